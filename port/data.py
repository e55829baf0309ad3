"""Data sets as uint8 tensors, and batches drawn from them on the device.

A source becomes a `Dataset` of uint8 images `[N, C, H, W]` and int64 labels. Everything after that
is batched device code: `Batches` permutes, gathers, divides by 255 and moves each image to a random
place on the canvas, as the original does for training and test images alike.

Images are looked for in a data root first (an argument, else the variable SCAE_DATA, else the
folder `data`), and downloaded by torchvision only where they are not there.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from port import preprocess

MNIST_FILES = {  # file name: md5 of the compressed original
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


class DataError(ValueError):
    """A data set that is missing or cannot be read; the message says what to put where."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set."""

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A named data set; `train` is empty for sets that are only evaluated on."""

    name: str
    train: Split
    test: Split
    n_classes: int = 10

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def load(source: str, root: str | os.PathLike | None = None, download: bool = True,
         **options) -> Dataset:
    """Load a data set by name.

    Args:
        source: one of `SOURCES`.
        root: data root; None is the variable SCAE_DATA, else `data`.
        download: fetch what is missing with torchvision (where the source can be fetched).
        options: of `digits`: `enlarge` (pixels), `test_share`, `split_seed`.

    Raises:
        DataError: an unknown source, or files that are missing and could not be fetched.
    """
    if source not in SOURCES:
        raise DataError(f"no data source {source!r}; there are {', '.join(SOURCES)}")
    root = Path(root or os.environ.get("SCAE_DATA") or "data")
    return SOURCES[source](root, download, **options)


def save(dataset: Dataset, path: str | os.PathLike) -> None:
    """Write a data set as one compressed .npz file, under a temporary name first."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        np.savez_compressed(
            file, name=dataset.name, n_classes=dataset.n_classes,
            train_x=dataset.train.images.cpu().numpy(), train_y=dataset.train.labels.cpu().numpy(),
            test_x=dataset.test.images.cpu().numpy(), test_y=dataset.test.labels.cpu().numpy())
    os.replace(temporary, path)


def read(path: str | os.PathLike) -> Dataset:
    """Read what `save` wrote.

    Raises:
        DataError: the file is missing or no such file.
    """
    try:
        with np.load(path) as file:
            train = _split(file["train_x"], file["train_y"])
            test = _split(file["test_x"], file["test_y"])
            return Dataset(str(file["name"]), train, test, int(file["n_classes"]))
    except FileNotFoundError:
        raise DataError(f"no prepared data in {path}; the prepare stage writes it") from None
    except (KeyError, ValueError, OSError) as error:
        raise DataError(f"{path} is no data file of the prepare stage: {error}") from None


def place(images: UInt8[Tensor, "batch channels height width"], canvas: int,
          generator: torch.Generator | None) -> Float[Tensor, "batch channels canvas canvas"]:
    """Images in [0, 1] at random places on the canvas, or in its middle without a generator.

    Column and row shift are integers drawn uniformly from {-(S - W), ..., S - W}; the offset on
    the canvas is ceil((S - W - shift) / 2), which is not uniform (Q08).

    Raises:
        DataError: the images do not fit the canvas.

    Source: original `data/preprocess.py: pad_and_shift` with the draws of `data/image.py`.
    """
    height, width = images.shape[2:]
    if max(height, width) > canvas:
        raise DataError(f"images of {height}x{width} pixels do not fit a canvas of {canvas}; "
                        f"set canvas_size to at least {max(height, width)}")
    images = images.to(torch.float32) / 255
    if height == width == canvas:
        return images
    shifts = []
    for size in (width, height):
        if generator is None:
            shifts.append(torch.zeros(len(images), dtype=torch.int64, device=images.device))
        else:
            shifts.append(torch.randint(size - canvas, canvas - size + 1, (len(images),),
                                        generator=generator, device=images.device))
    return preprocess.pad_and_shift(images, shifts[0], shifts[1], canvas)


class Batches:
    """An endless stream of batches whose place can be saved and restored.

    Examples come in a new random order each epoch, or in the stored order as in the original
    (`shuffle=False`, Q28); a batch may span two epochs, as in `repeat().batch(B)`.

    Args:
        split: images and labels, on the device where the batches are wanted.
        batch_size: B.
        canvas: side of the canvas, in pixels.
        seed: of the order and of the places on the canvas.
        shuffle: a new order each epoch.
    """

    def __init__(self, split: Split, batch_size: int, canvas: int, seed: int,
                 shuffle: bool = True):
        if not len(split):
            raise DataError("this data set has no training images")
        self.split, self.batch_size, self.canvas, self.shuffle = split, batch_size, canvas, shuffle
        self.order_generator = torch.Generator().manual_seed(seed)
        self.place_generator = torch.Generator(split.images.device).manual_seed(seed + 1)
        self.epoch, self.position = -1, 0
        self._next_epoch()

    def _next_epoch(self) -> None:
        self.epoch += 1
        self.epoch_start = self.order_generator.get_state()
        self._draw_order()

    def _draw_order(self) -> None:
        n = len(self.split)
        order = torch.randperm(n, generator=self.order_generator) if self.shuffle \
            else torch.arange(n)
        self.order = order.to(self.split.images.device)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[Float[Tensor, "batch channels canvas canvas"],
                                Int64[Tensor, " batch"]]:
        pieces, missing = [], self.batch_size
        while missing:
            piece = self.order[self.position:self.position + missing]
            pieces.append(piece)
            missing -= len(piece)
            self.position += len(piece)
            if self.position == len(self.order):
                self._next_epoch()
                self.position = 0
        index = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        return place(self.split.images[index], self.canvas, self.place_generator), \
            self.split.labels[index]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next batch depends on, as tensors on the CPU."""
        return {"order": self.epoch_start.clone(), "place": self.place_generator.get_state(),
                "where": torch.tensor([self.epoch, self.position])}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken."""
        self.epoch, self.position = state["where"].tolist()
        self.epoch_start = state["order"].clone()
        self.order_generator.set_state(state["order"])
        self.place_generator.set_state(state["place"])
        self._draw_order()


# ------------------------------------------------------------------------------------------ sources

def _digits(root: Path, download: bool, enlarge: int = 20, test_share: float = 0.25,
            split_seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8x8 pixels that come with scikit-learn, enlarged bilinearly."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = torch.from_numpy(digits.images).to(torch.float32)[:, None] / 16
    images = F.interpolate(images, size=(enlarge, enlarge), mode="bilinear", align_corners=False)
    images = (images * 255).round().to(torch.uint8).numpy()
    train, test = train_test_split(np.arange(len(images)), test_size=test_share,
                                   stratify=digits.target, random_state=split_seed)
    return Dataset("digits", _split(images[train], digits.target[train]),
                   _split(images[test], digits.target[test]))


def _mnist(root: Path, download: bool) -> Dataset:
    """MNIST from `MNIST/raw` in the data root, compressed or not."""
    folder = root / "MNIST" / "raw"
    if not all(_mnist_file(folder, name) for name in MNIST_FILES):
        _torchvision("MNIST", root, download, "the four files *-ubyte.gz", folder)
    arrays = {name: _read_idx(_mnist_file(folder, name), digest)
              for name, digest in MNIST_FILES.items()}
    return Dataset("mnist",
                   _split(arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]),
                   _split(arrays["t10k-images-idx3-ubyte"], arrays["t10k-labels-idx1-ubyte"]))


def _usps(root: Path, download: bool) -> Dataset:
    """USPS from `usps/usps.npz` (grey value x 2000), else through torchvision; same pixels."""
    path = root / "usps" / "usps.npz"
    if path.exists():
        with _open_npz(path) as file:
            parts = [file[key] for key in ("train_x", "train_y", "test_x", "test_y")]

        def pixels(values):  # the arithmetic of torchvision's USPS, which cuts off, not rounds
            return ((values.astype(np.float32) / 1000 - 1 + 1) / 2 * 255).astype(np.uint8)
        return Dataset("usps", _split(pixels(parts[0]), parts[1]),
                       _split(pixels(parts[2]), parts[3]))
    sets = [_torchvision("USPS", root, download, "usps.npz (or usps.bz2 and usps.t.bz2 in the data "
                         "root)", path.parent, train=train) for train in (True, False)]
    return Dataset("usps", *(_split(part.data, np.asarray(part.targets)) for part in sets))


def _svhn(root: Path, download: bool) -> Dataset:
    """SVHN, cropped digits, from `train_32x32.mat` and `test_32x32.mat` in `svhn`."""
    folder = root / "svhn"
    sets = [_torchvision("SVHN", folder, download, f"{part}_32x32.mat", folder, split=part)
            for part in ("train", "test")]
    return Dataset("svhn", *(_split(part.data, part.labels) for part in sets))


def _svhn_head(root: Path, download: bool, test_share: float = 0.25,
               split_seed: int = 0) -> Dataset:
    """The first 1,083 SVHN training digits, split by photograph; never to be shown as SVHN."""
    from sklearn.model_selection import GroupShuffleSplit

    path = root / "svhn_head" / "svhn_train_first1083.npz"
    with _open_npz(path) as file:
        images, labels, photo = file["x"], file["y"], file["photo"]
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_share, random_state=split_seed)
    train, test = next(splitter.split(images, labels, groups=photo))
    images = images.transpose(0, 3, 1, 2)
    return Dataset("svhn_head", _split(images[train], labels[train]),
                   _split(images[test], labels[test]))


def _cifar10(root: Path, download: bool) -> Dataset:
    """CIFAR-10 from `cifar-10-batches-py` in the data root or its folder `cifar10`."""
    base = root / "cifar10" if (root / "cifar10" / "cifar-10-batches-py").is_dir() else root
    what = "cifar-10-batches-py (a pack with unpack_cifar10.py writes it)"
    sets = [_torchvision("CIFAR10", base, download, what, root, train=train)
            for train in (True, False)]
    return Dataset("cifar10", *(_split(part.data.transpose(0, 3, 1, 2), np.asarray(part.targets))
                                for part in sets))


def _affnist_like(root: Path, download: bool) -> Dataset:
    """Transformed MNIST test digits, regenerated, not the published affNIST; no training images."""
    with _open_npz(root / "affnist_like" / "affnist_like_test.npz") as file:
        images, labels = file["x"], file["y"]
    return Dataset("affnist_like", _split(images[:0], labels[:0]), _split(images, labels))


SOURCES: dict[str, Callable[..., Dataset]] = {
    "digits": _digits, "mnist": _mnist, "usps": _usps, "svhn": _svhn, "svhn_head": _svhn_head,
    "cifar10": _cifar10, "affnist_like": _affnist_like}


def _split(images: np.ndarray, labels: np.ndarray) -> Split:
    """Arrays of a source as tensors; grey images get their channel axis."""
    images = np.ascontiguousarray(images)
    images = torch.from_numpy(images if images.ndim == 4 else images[:, None])
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def _torchvision(kind: str, root: Path, download: bool, what: str, where: Path, **arguments):
    """A torchvision data set; every way it can fail becomes one `DataError`."""
    missing = f"{kind} is not there: put {what} into {where} (the data root is set by SCAE_DATA)"
    try:
        from torchvision import datasets
    except ImportError:
        raise DataError(f"{missing}, or install torchvision to download it") from None
    try:
        if download:
            root.mkdir(parents=True, exist_ok=True)
        return getattr(datasets, kind)(root, download=download, **arguments)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{missing}; fetching it failed: {reason}") from None


def _open_npz(path: Path):
    try:
        return np.load(path)
    except FileNotFoundError:
        raise DataError(f"{path.name} is not there: put it into {path.parent} (the data root is "
                        "set by SCAE_DATA)") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _mnist_file(folder: Path, name: str) -> Path | None:
    for path in (folder / f"{name}.gz", folder / name):
        if path.exists():
            return path
    return None


def _read_idx(path: Path, digest: str) -> np.ndarray:
    """An IDX file (magic, sizes, bytes); a compressed one must have the known md5."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != digest:
            raise DataError(f"{path} is damaged: its md5 is not {digest}; delete it and try again")
        content = gzip.decompress(content)
    n_axes = content[3]
    shape = [int.from_bytes(content[4 + 4 * i:8 + 4 * i], "big") for i in range(n_axes)]
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes)
    if len(values) != np.prod(shape):
        raise DataError(f"{path} is cut off: {len(values)} values, {np.prod(shape)} expected")
    return values.reshape(shape).copy()
