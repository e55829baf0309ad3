"""Where images come from: each source looks in the data root first, then asks torchvision.

The data root is an argument, else the variable SCAE_DATA, else the folder `data` (`port.data.root`). Files
with a known md5 are checked before they are read; what the others hold is compared with what the published
set holds (`port.data.standard_sets`). Whatever is missing or damaged becomes one `DataError` that says which
file to put where.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from port.configuration import limits
from port.configuration.limits import limited
from port.core import array_files, files
from port.data import affnist, smallnorb, standard_sets
from port.data import root as data_root
from port.data.dataset import DataError, Dataset, Split, split_of

MNIST_FILES = {  # file name: md5 of the compressed original
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}
USPS_WHITE = 2000  # in usps.npz
ROOT_HINT = "the data root is set by SCAE_DATA or prepare.data_root"


@dataclass(frozen=True)
class SplitOptions:
    """Numbers among the options of sources that have no test images of their own."""

    enlarge: int = limited(20, at_least=8, at_most=512)
    test_share: float = limited(0.25, above=0, below=1)
    split_seed: int = limits.seed()


def load(source: str, root: str | os.PathLike | None = None, download: bool = True,
         **options) -> Dataset:
    """Load a data set by name.

    Args:
        source: one of `SOURCES`.
        root: data root, as in `data_root.resolve`.
        download: fetch what is missing with torchvision (where the source can be fetched).
        options: of `digits`: `enlarge` (pixels), `test_share`, `split_seed`; of `svhn_head` the last
            two.

    Raises:
        DataError: an unknown source, or files that are missing, damaged or could not be fetched.
    """
    if source not in SOURCES:
        own = "; own images are known once pipelines.support.own_images is imported" \
            if source in ("folder", "npz") else ""
        raise DataError(f"no data source {source!r}; there are {', '.join(SOURCES)}{own}")
    return SOURCES[source](data_root.resolve(root), download, **options)


def _digits(root: Path, download: bool, enlarge: int = 20, test_share: float = 0.25,
            split_seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels that come with scikit-learn, enlarged bilinearly."""
    limits.check(SplitOptions(enlarge, test_share, split_seed), DataError)
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(enlarge, enlarge), mode="bilinear", align_corners=False)
    images = (images * 255).round().to(torch.uint8).numpy()
    train, test = train_test_split(np.arange(len(images)), test_size=test_share,
                                   stratify=digits.target, random_state=split_seed)
    return Dataset("digits", split_of(images[train], digits.target[train]),
                   split_of(images[test], digits.target[test]))


def _mnist(root: Path, download: bool) -> Dataset:
    """MNIST from `MNIST/raw` in the data root, compressed or not; by another name if it is not MNIST."""
    (train, checked), (test, other) = (_mnist_part(root, download, part) for part in ("train", "t10k"))
    name = "mnist" if checked and other else standard_sets.name_of("mnist", *arrays_of(train), *arrays_of(test))
    return Dataset(name, train, test)


def _mnist_part(root: Path, download: bool, part: str) -> tuple[Split, bool]:
    """Images and labels of a part, and whether the md5 of both files was checked."""
    folder = root / "MNIST" / "raw"
    if not all(_mnist_file(folder, name) for name in MNIST_FILES if name.startswith(part)):
        _fetch("MNIST", root, download, f"the four files {', '.join(f'{n}.gz' for n in MNIST_FILES)}",
               folder)
    paths = {name: _mnist_file(folder, name) for name in MNIST_FILES if name.startswith(part)}
    images, labels = (_read_idx(path, MNIST_FILES[name]) for name, path in paths.items())
    return _checked(folder, images, labels), all(path.suffix == ".gz" for path in paths.values())


def _usps(root: Path, download: bool) -> Dataset:
    """USPS from `usps/usps.npz` (grey value x 2000), else `usps.bz2` and `usps.t.bz2`; same pixels."""
    path = root / "usps" / "usps.npz"
    if path.exists():
        parts = _read_npz(path, ("train_x", "train_y", "test_x", "test_y"))
        name = standard_sets.name_of("usps", *parts)

        def pixels(values):  # the arithmetic of torchvision's USPS, which cuts off, not rounds
            if not (np.isfinite(values).all() and values.min(initial=0) >= 0
                    and values.max(initial=0) <= USPS_WHITE):
                raise DataError(f"{path} holds something else than expected: grey values must lie in "
                                f"0..{USPS_WHITE}; put it there anew")
            return ((values.astype(np.float32) / 1000 - 1 + 1) / 2 * 255).astype(np.uint8)
        return Dataset(name, _checked(path, pixels(parts[0]), parts[1]),
                       _checked(path, pixels(parts[2]), parts[3]))
    sets = _torchvision("USPS", _folder(root, "usps", "usps.bz2"), download,
                        lambda kind: [kind.split_list[part][1:] for part in ("train", "test")],
                        [{"train": True}, {"train": False}], "usps.npz, or usps.bz2 and usps.t.bz2,")
    return Dataset("usps", *(_checked("usps", part.data, part.targets) for part in sets))


def _svhn(root: Path, download: bool) -> Dataset:
    """SVHN, cropped digits, from `train_32x32.mat` and `test_32x32.mat` in `svhn` or the root."""
    sets = _torchvision("SVHN", _folder(root, "svhn", "train_32x32.mat"), download,
                        lambda kind: [kind.split_list[part][1:] for part in ("train", "test")],
                        [{"split": "train"}, {"split": "test"}],
                        "train_32x32.mat and test_32x32.mat")
    return Dataset("svhn", *(_checked("svhn", part.data, part.labels) for part in sets))


def _svhn_head(root: Path, download: bool, test_share: float = 0.25,
               split_seed: int = 0) -> Dataset:
    """The first 1,083 SVHN training digits, split by photograph; never to be shown as SVHN."""
    limits.check(SplitOptions(test_share=test_share, split_seed=split_seed), DataError)
    from sklearn.model_selection import GroupShuffleSplit

    path = root / "svhn_head" / "svhn_train_first1083.npz"
    images, labels, photo = _read_npz(path, ("x", "y", "photo"))
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_share, random_state=split_seed)
    train, test = next(splitter.split(images, labels, groups=photo))
    name = standard_sets.name_of("svhn_head", images, labels, photo)
    images = images.transpose(0, 3, 1, 2)
    return Dataset(name, _checked(path, images[train], labels[train]),
                   _checked(path, images[test], labels[test]))


def _cifar10(root: Path, download: bool) -> Dataset:
    """CIFAR-10 from `cifar-10-batches-py` in the data root or its folder `cifar10`."""
    base = _folder(root, "cifar10", "cifar-10-batches-py")
    packed = root / "cifar10" / "unpack_cifar10.py"
    if packed.exists() and not (base / "cifar-10-batches-py").is_dir():
        raise DataError(f"CIFAR-10 is there, but packed: run `python {packed} {root}` first")

    def files(kind) -> list[tuple[str, str]]:
        listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return [(f"{kind.base_folder}/{name}", digest) for name, digest in listed]
    sets = _torchvision("CIFAR10", base, download, files, [{"train": True}, {"train": False}],
                        "the folder cifar-10-batches-py")
    return Dataset("cifar10", *(_checked("cifar10", part.data.transpose(0, 3, 1, 2), part.targets)
                                for part in sets))


def _affnist(root: Path, download: bool) -> Dataset:
    """The published affNIST test set where its files are given, else what `affnist_like` gives.

    Files: `affnist/test.mat`, or any `affnist/…/*.mat` of a folder or name with `test` in it, as
    the numbered files of `test_batches`. There are no training images.
    """
    folder = root / "affnist"
    single = folder / "test.mat"
    paths = [single] if single.exists() else sorted(
        (path for path in folder.rglob("*.mat") if "test" in str(path.relative_to(folder))),
        key=lambda path: (len(path.name), path))
    if not paths:
        return _affnist_like(root, download)
    parts = []
    for path in paths:
        try:
            parts.append(affnist.read_mat(path))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a file of the published affNIST: {error}; put "
                            f"test.mat into {folder}, or remove it to have the set regenerated") from None
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts))
    return Dataset("affnist", split_of(images[:0], labels[:0]), split_of(images, labels))


def _affnist_like(root: Path, download: bool) -> Dataset:
    """Transformed MNIST test digits, regenerated, not the published affNIST; no training images.

    From `affnist_like/affnist_like_test.npz`, else made anew from the MNIST test images: the same
    pixels.
    """
    path, name = root / "affnist_like" / "affnist_like_test.npz", "affnist_like"
    if path.exists():
        images, labels = _read_npz(path, ("x", "y"))
        name = standard_sets.name_of(name, images, labels)
    else:
        test, checked = _mnist_part(root, download, "t10k")
        images, labels = affnist.regenerate(test.images[:, 0].numpy())[0], test.labels.numpy()
        if not checked:
            name = standard_sets.name_of(name, *arrays_of(test), known="mnist_test")
    return Dataset(name, split_of(images[:0], labels[:0]), _checked(path, images, labels))


SOURCES: dict[str, Callable[..., Dataset]] = {
    "digits": _digits, "mnist": _mnist, "usps": _usps, "svhn": _svhn, "svhn_head": _svhn_head,
    "cifar10": _cifar10, "affnist": _affnist, "affnist_like": _affnist_like,
    "smallnorb": smallnorb.load}


# ------------------------------------------------------------------------------------ files, checked

def _folder(root: Path, name: str, holds: str) -> Path:
    """`root/name`, or the root itself where that already holds the file."""
    return root if (root / holds).exists() and not (root / name / holds).exists() else root / name


def _torchvision(kind: str, folder: Path, download: bool,
                 files: Callable[[type], Iterable[tuple[str, str]]], splits: list[dict], what: str):
    """The splits of a torchvision data set, from files whose md5 is right.

    Args:
        kind: name of the torchvision class.
        folder: where its files lie.
        download: fetch them if one is missing.
        files: path below the folder and md5 of each, from the class.
        splits: arguments of the class, one set each.
        what: the files in words.
    """
    wanted = [(folder / path, digest) for path, digest in files(_torchvision_class(kind, what, folder))]
    if not all(path.exists() for path, _ in wanted):
        _fetch(kind, folder, download, what, folder, splits)
    for path, digest in wanted:
        _check_md5(path, _content(path), digest)
    try:
        return [_torchvision_class(kind, what, folder)(folder, download=False, **one) for one in splits]
    except Exception as error:  # each class has its own; the md5 was right, so this is rare
        raise DataError(f"{kind} in {folder} cannot be read: {_line(error)}") from None


def _torchvision_class(kind: str, what: str, where: Path):
    try:
        from torchvision import datasets
    except ImportError:
        raise DataError(f"{_missing(kind, what, where)}, and install torchvision, which reads or "
                        "downloads it") from None
    return getattr(datasets, kind)


def _fetch(kind: str, root: Path, download: bool, what: str, where: Path,
           splits: Iterable[dict] = ({},)) -> None:
    """Download with torchvision; without network or permission a `DataError` says what is missing."""
    if not download:
        raise DataError(f"{_missing(kind, what, where)}, or set prepare.download to true")
    fetcher = _torchvision_class(kind, what, where)
    try:
        with data_root.no_empty_folders(where):
            root.mkdir(parents=True, exist_ok=True)
            for one in splits:
                fetcher(root, download=True, **one)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        raise DataError(f"{_missing(kind, what, where)}; fetching it failed: {_line(error)}") from None


def _missing(kind: str, what: str, where: Path) -> str:
    return f"{kind} is not there: put {what} into {where} ({ROOT_HINT})"


def _line(error: Exception) -> str:
    """The first line of an error, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _content(path: Path) -> bytes:
    try:
        return files.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); put it there anew") from None


def _check_md5(path: Path, content: bytes, digest: str) -> None:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
        raise DataError(f"{path} is damaged: its md5 is not {digest}; delete it and try again")


def _checked(path: Path | str, images: np.ndarray, labels: np.ndarray | list[int]) -> Split:
    """`split_of`, whose refusal names the file."""
    try:
        return split_of(images, np.asarray(labels))
    except ValueError as error:
        raise DataError(f"{path} holds something else than expected: {error}") from None


def _read_npz(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Arrays of an .npz file, all of them or a `DataError`."""
    try:
        return array_files.named(path, names)
    except FileNotFoundError:
        raise DataError(f"{path.name} is not there: put it into {path.parent} ({ROOT_HINT})") from None
    except KeyError as error:
        raise DataError(f"{path} lacks an array ({_line(error)}); it should hold "
                        f"{', '.join(names)}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged ({_line(error)}); put it there anew") from None


def arrays_of(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Grey images and labels as the files of a source have them."""
    return split.images[:, 0].numpy(), split.labels.numpy()


def _mnist_file(folder: Path, name: str) -> Path | None:
    """The file, compressed or not, also as archives of others name and unpack it.

    Some write a dot before `idx`, and some make a folder for each file, of the file's own name.
    """
    for spelled in (name, name.replace("-idx", ".idx")):
        for path in (folder / f"{spelled}.gz", folder / spelled, folder / spelled / spelled,
                     folder / spelled / f"{spelled}.gz"):
            if path.is_file():
                return path
    return None


def _read_idx(path: Path, digest: str) -> np.ndarray:
    """An IDX file (magic, sizes, bytes); a compressed one must have the known md5."""
    content = _content(path)
    if path.suffix == ".gz":
        _check_md5(path, content, digest)
        content = gzip.decompress(content)
    n_axes = content[3] if len(content) > 4 and content[:3] == b"\0\0\x08" else 0
    shape = [int.from_bytes(content[4 + 4 * i:8 + 4 * i], "big") for i in range(n_axes)]
    values = np.frombuffer(content, np.uint8, offset=min(4 + 4 * n_axes, len(content)))
    if not n_axes or len(values) != np.prod(shape):
        raise DataError(f"{path} is damaged or cut off: no IDX file of bytes of the size it names; "
                        "delete it and try again")
    return values.reshape(shape).copy()
