"""Images from a file or a folder, as a model takes them: NumPy arrays and pictures."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from pipelines.support import picture_files
from pipelines.support.values import BadInput
from port.core import array_files
from port.data import dataset

ARRAYS = (".npy", ".npz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
KEYS = ("images", "image", "test_x")  # of a .npz with several arrays, the first that is there


def read(path: str | os.PathLike, channels: int, canvas: int) -> dataset.Split:
    """Images of a file or of all such files in a folder, in the order of their names, without labels.

    Args:
        path: `.npy` or `.npz` with uint8 or floats in [0, 1], `[H, W]`, `[N, H, W]`, `[N, C, H, W]` or
            `[N, H, W, C]`; or one picture; or a folder of these, all of one size.
        channels: of the model; a picture is made grey or coloured to fit.
        canvas: side of the model's canvas.

    Raises:
        BadInput: no such file, another type or shape, or too large.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, channels, canvas)
    if path.suffix.lower() in ARRAYS:
        images = _array(path)
    elif path.suffix.lower() in PICTURES:
        images = picture_files.read(path, channels, canvas)
    else:
        raise BadInput(f"images {path}: give a number of test images, or a file {', '.join(ARRAYS)}, "
                       f"{', '.join(PICTURES)}")
    images = as_bytes(images, path)
    if images.ndim == 2:
        images = images[None]
    if images.ndim == 3 and channels == 1:
        images = images[:, None]
    if images.ndim == 3 and images.shape[-1] == channels:
        images = images[None]
    if images.ndim == 4 and images.shape[1] != channels and images.shape[-1] == channels:
        images = np.moveaxis(images, -1, 1)
    if images.ndim != 4 or images.shape[1] != channels or not images.size:
        raise BadInput(f"images {path}: of shape {list(images.shape)}; the model takes {channels} "
                       f"channel(s): [N, {channels}, H, W] or [N, H, W, {channels}]")
    if max(images.shape[2:]) > canvas:
        raise BadInput(f"images {path}: {images.shape[2]}x{images.shape[3]} pixels do not fit the model's "
                       f"canvas of {canvas}; make them smaller")
    return dataset.Split(torch.from_numpy(np.array(images, order="C")),
                      torch.full((len(images),), dataset.NO_LABEL))


def _folder(path: Path, channels: int, canvas: int) -> dataset.Split:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (*ARRAYS, *PICTURES)
                   and picture_files.visible(file) and not file.is_dir())
    if not files:
        raise BadInput(f"images {path}: no file {', '.join((*ARRAYS, *PICTURES))} in this folder")
    each = [read(file, channels, canvas) for file in files]
    for file, split in zip(files, each, strict=True):
        if split.images.shape[1:] != each[0].images.shape[1:]:
            sizes = ("x".join(map(str, one.images.shape[2:])) for one in (split, each[0]))
            raise BadInput(f"images {file}: {next(sizes)} pixels, {files[0].name} has {next(sizes)}; "
                           "give a folder of one size")
    return dataset.Split(torch.cat([split.images for split in each]),
                      torch.cat([split.labels for split in each]))


def _array(path: Path) -> np.ndarray:
    try:
        return array_files.one(path, KEYS)
    except array_files.TooLarge as error:
        raise BadInput(f"images {path}: {error}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"images {path}: cannot be read ({' '.join(str(error).split())})") from None


def as_bytes(images: np.ndarray, path: Path) -> np.ndarray:
    """Pixels as uint8; floats in [0, 1] are multiplied by 255 and rounded.

    Raises:
        BadInput: another dtype or range.
    """
    if images.dtype == np.uint8:
        return images
    if np.issubdtype(images.dtype, np.floating) and images.size and np.isfinite(images).all() \
            and images.min() >= 0 and images.max() <= 1:
        return np.round(images * 255).astype(np.uint8)
    raise BadInput(f"images {path}: must be uint8, or floats in [0, 1], not {images.dtype}"
                   + (f" in [{images.min():g}, {images.max():g}]" if images.size
                      and np.issubdtype(images.dtype, np.number) else ""))
