"""smallNORB: photographs of toys in five categories, from the published binary `.mat` files.

24,300 training and 24,300 test pairs of 96 × 96 grey pictures (two cameras), instances of the two
parts disjoint. The files are not MATLAB's format: a magic number, the sizes, then the values.
Source: LeCun, Huang, Bottou 2004; the layout is that of the data set's own page.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from port.core import files
from port.data.dataset import DataError, Dataset, Split, split_of

STEMS = {"train": "smallnorb-5x46789x9x18x6x2x96x96-training",
         "test": "smallnorb-5x01235x9x18x6x2x96x96-testing"}
CATEGORIES = ("animal", "human", "airplane", "truck", "car")
# What a file's first four bytes, little end first, say of its values.
TYPES = {0x1E3D4C51: "<f4", 0x1E3D4C53: "<f8", 0x1E3D4C54: "<i4", 0x1E3D4C55: "u1", 0x1E3D4C56: "<i2"}


def read_matrix(path: Path) -> np.ndarray:
    """One file: magic, number of axes, sizes (three at least, the spare ones 1), values.

    Args:
        path: the file, `.gz` if compressed.

    Raises:
        DataError: missing, damaged, or of another format.
    """
    try:
        content = files.read_bytes(path)
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except FileNotFoundError:
        raise DataError(f"{path.name} is not there: put it into {path.parent}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    head = np.frombuffer(content[:8].ljust(8, b"\0"), "<i4")
    dtype = TYPES.get(int(head[0]))
    if dtype is None:
        raise DataError(f"{path} is no smallNORB file: it begins with {content[:4].hex() or 'nothing'}, "
                        "not with one of the format's magic numbers")
    n_axes, first = int(head[1]), 8 + 4 * max(3, int(head[1]))
    whole = max(min(first, len(content)) - 8, 0) // 4
    sizes = np.frombuffer(content[8:8 + 4 * whole], "<i4")[:max(n_axes, 0)]
    wanted = math.prod(int(size) for size in sizes) * np.dtype(dtype).itemsize
    if not 1 <= n_axes <= 8 or len(sizes) < n_axes or len(content) - first != wanted:
        raise DataError(f"{path} is cut off or damaged: sizes {sizes.tolist()} need {wanted} bytes after "
                        f"the head, there are {max(len(content) - first, 0)}")
    return np.frombuffer(content, dtype, offset=first).reshape(sizes)


def _find(folder: Path, name: str) -> Path:
    """The file, or the compressed one where only that is there."""
    return folder / f"{name}.gz" if (folder / f"{name}.gz").exists() and not (
        folder / name).exists() else folder / name


def read_part(folder: Path, part: str, size: int = 48) -> tuple[Split, np.ndarray]:
    """One part: pictures of the two cameras as channels, categories, and what the info file says.

    Args:
        folder: holds the `-dat.mat`, `-cat.mat` and `-info.mat` files, plain or `.gz`.
        part: `train` or `test`.
        size: side in pixels, 96 or a divisor of it; pixels are averaged in blocks and rounded.

    Returns:
        Split of `[N, 2, size, size]`, and `[N, 4]` instance, elevation, azimuth, lighting.

    Raises:
        DataError: a missing or damaged file, files of unlike length, or a size that does not divide.
    """
    images, labels, info = (read_matrix(_find(folder, f"{STEMS[part]}-{kind}.mat"))
                            for kind in ("dat", "cat", "info"))
    if images.ndim != 4 or images.shape[1] != 2 or images.dtype != np.uint8 or \
            images.shape[2] != images.shape[3]:
        raise DataError(f"{folder / STEMS[part]}-dat.mat holds {list(images.shape)} {images.dtype}, not "
                        "pairs of square byte pictures")
    if not len(images) == labels.size == len(info):
        raise DataError(f"the {part} files in {folder} do not belong together: {len(images)} pictures, "
                        f"{labels.size} categories, {len(info)} descriptions")
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(CATEGORIES):
        raise DataError(f"{folder / STEMS[part]}-cat.mat holds categories {labels.min()} to "
                        f"{labels.max()}; there are {len(CATEGORIES)}, from 0")
    block, rest = divmod(images.shape[2], size)
    if rest or block < 1:
        raise DataError(f"size {size} does not divide pictures of {images.shape[2]} pixels")
    small = np.empty((*images.shape[:2], size, size), np.uint8)
    for i in range(0, len(images), 1024):  # the whole part in floats would be gigabytes
        blocks = images[i:i + 1024].reshape(-1, 2, size, block, size, block)
        small[i:i + 1024] = np.floor(blocks.mean((3, 5)) + 0.5)
    return split_of(small, labels.reshape(-1)), np.array(info)


def load(root: Path, download: bool, size: int = 48) -> Dataset:
    """smallNORB from `smallnorb` in the data root; it is fetched by hand, `download` changes nothing."""
    folder = Path(root) / "smallnorb"
    if not folder.is_dir():
        names = ", ".join(f"{stem}-{{dat,cat,info}}.mat" for stem in STEMS.values())
        raise DataError(f"smallNORB is not there: put {names} (or .mat.gz) into {folder}; the data root is "
                        "set by SCAE_DATA or prepare.data_root")
    parts = [read_part(folder, part, size)[0] for part in STEMS]
    return Dataset("smallnorb", *parts, n_classes=len(CATEGORIES))
