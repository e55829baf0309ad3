"""Data sets as uint8 tensors, and batches drawn from them on the device.

A source (`port/data/sources.py`) becomes a `Dataset` of uint8 images `[N, C, H, W]` and int64 labels.
Everything after that is batched device code: `Batches` permutes, gathers, divides by 255 and moves
each image to a random place on the canvas, as the original does for training and test images alike.
Random parts and changes of brightness, which only the routing ancestors' data use, are `port.data.augment`'s.
An edge target is made by the model, which knows whether it wants one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from port.configuration.protocol import Configuration
from port.core import inputs, preprocess
from port.core.inputs import NO_LABEL
from port.data import augment

# Where an image may come to lie on its canvas; `translate` and `crop` are the routing ancestors'.
SHIFTS = ("original", "uniform", "centred", "translate", "crop")


class DataError(ValueError):
    """A data set that is missing or cannot be read; the message says what to put where."""


@dataclass(frozen=True)
class Split:
    """Images and labels of one part of a data set; without labels all are `NO_LABEL`."""

    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"]

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.ndim != 4:
            raise DataError("images of a split are bytes 0..255 (uint8), [n, C, H, W], not "
                            f"{self.images.dtype} {list(self.images.shape)}; of [0, 1] make "
                            "(255 * images).round().to(torch.uint8)")
        try:
            inputs.check_labels(self.labels, len(self.images), look=False, what="labels")
        except ValueError as error:
            raise DataError(str(error)) from None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels; the host reads one, where there are values to read."""
        if not len(self.labels) or not inputs.may_look(self.labels, everywhere=True):
            return True
        return int(self.labels[0]) != NO_LABEL

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """A named data set; `train` is empty for sets that are only evaluated on."""

    name: str
    train: Split
    test: Split
    n_classes: int = 10  # 0: images without labels
    classes: tuple[str, ...] = ()  # their names, where they have some

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def batches(self, config: Configuration, settings, seed: int) -> Batches:
        """The stream of training images that `port.training.loop` takes (`settings`: `schedule.Settings`).

        Raises:
            DataError: labels that are no classes of the model, or no images.
        """
        check_classes(self.train, inputs.classes_of(config))
        return Batches(self.train, settings.batch_size, config.canvas, seed, settings.shuffle,
                       settings.shift, settings.max_shift, settings.jitter, settings.data_workers)


def check_classes(split: Split, n_classes: int | None) -> None:
    """Refuse labels that are no classes of a model; the host reads them once.

    Args:
        split: images and labels.
        n_classes: of the model; None where it takes no labels.

    Raises:
        DataError: says which labels there are.
    """
    if not split.labelled:
        if n_classes is not None:
            raise DataError("the images have no labels, which the model's probes or classes need; set "
                            "model.probe to false")
        return
    try:
        inputs.check_labels(split.labels, len(split), n_classes, what="labels")
    except ValueError as error:
        raise DataError(f"{error}; the model's number of classes is the setting n_classes (classes of "
                        "CapsNet and matrix capsules)") from None


def split_of(images: np.ndarray, labels: np.ndarray, n_classes: int = 10) -> Split:
    """Arrays of a source as a split; grey images get their channel axis.

    Args:
        images: uint8 `[n, H, W]` or `[n, C, H, W]`.
        labels: integers `[n]` in 0..n_classes - 1; of whole floats, as some programs write them, the
            integers. Of 0 classes all are `NO_LABEL`.

    Raises:
        ValueError: another type, shape or range.
    """
    images = np.ascontiguousarray(images)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise ValueError(f"images must be uint8 [n, H, W] or [n, C, H, W], not {images.dtype} "
                         f"{list(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images, but labels of shape {list(labels.shape)}")
    if not np.issubdtype(labels.dtype, np.integer) and not (
            np.issubdtype(labels.dtype, np.floating) and (labels == np.floor(labels)).all()):
        raise ValueError(f"labels must be integers, not {labels.dtype}"
                         + (" with halves or NaN among them" if labels.dtype.kind == "f" else ""))
    if not n_classes and (labels != NO_LABEL).any():
        raise ValueError(f"labels of 0 classes must all be {NO_LABEL}")
    if n_classes and len(labels) and not (labels.min() >= 0 and labels.max() < n_classes):
        raise ValueError(f"labels must lie in 0..{n_classes - 1}, found {labels.min()} to {labels.max()}")
    images = torch.from_numpy(images if images.ndim == 4 else images[:, None])
    return Split(images, torch.from_numpy(labels.astype(np.int64)))


def place(images: UInt8[Tensor, "batch channels height width"], canvas: int,
          generator: torch.Generator | None, uniform: bool = False) \
        -> Float[Tensor, "batch channels canvas canvas"]:
    """Images in [0, 1] at random places on the canvas, or in its middle without a generator.

    Column and row shift are integers drawn uniformly from {-(S - W), ..., S - W}; the offset on
    the canvas is ceil((S - W - shift) / 2), which is not uniform (Q08).

    Args:
        images: uint8.
        canvas: S, in pixels.
        generator: of the draws, on the images' device.
        uniform: draw each offset in {0, ..., S - W} with the same probability instead.

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
            padding = canvas - size
            low, high = (0, padding + 1) if uniform else (-padding, padding + 1)
            drawn = torch.randint(low, high, (len(images),), generator=generator,
                                  device=images.device)
            shifts.append(padding - 2 * drawn if uniform else drawn)
    return preprocess.pad_and_shift(images, shifts[0], shifts[1], canvas)


def arrange(images: UInt8[Tensor, "batch channels height width"], canvas: int, shift: str,
            generator: torch.Generator | None, max_shift: int = 2
            ) -> Float[Tensor, "batch channels canvas canvas"]:
    """Images in [0, 1] as training sees them, or in the middle without a generator.

    Args:
        images: uint8.
        canvas: S, in pixels.
        shift: one of `SHIFTS`.
        generator: of the draws, on the images' device.
        max_shift: of `translate`.

    Raises:
        DataError: the images do not fit the canvas, or have no part of its size.
    """
    if shift == "crop":
        if min(images.shape[2:]) < canvas:
            raise DataError(f"images of {images.shape[2]}x{images.shape[3]} pixels have no part of "
                            f"{canvas}x{canvas}; set canvas to at most their size, or another shift")
        return augment.crop(images, canvas, generator).to(torch.float32) / 255
    if shift == "translate":
        image = place(images, canvas, None)
        return image if generator is None else augment.translate(image, max_shift, generator)
    return place(images, canvas, None if shift == "centred" else generator, shift == "uniform")


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
        shift: one of `SHIFTS`.
        max_shift: of `translate`.
        jitter: change brightness and contrast too.
        workers: threads that gather the images, each a part of the batch; 0 for none.

    Raises:
        DataError: no images, or an unknown shift.
    """

    def __init__(self, split: Split, batch_size: int, canvas: int, seed: int,
                 shuffle: bool = True, shift: str = "original", max_shift: int = 2,
                 jitter: bool = False, workers: int = 0):
        if not len(split):
            raise DataError("this data set has no training images")
        if shift not in SHIFTS:
            raise DataError(f"no shift {shift!r}; there are {', '.join(SHIFTS)}")
        self.shift, self.max_shift, self.jitter = shift, max_shift, jitter
        self.workers = 0 if split.images.is_cuda else workers
        self.pool = ThreadPoolExecutor(self.workers, "data") if self.workers else None
        self.labelled = split.labelled
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
                                Int64[Tensor, " batch"] | None]:
        return self.take(self.next_index())

    def next_index(self) -> Int64[Tensor, " batch"]:
        """Which examples the next batch holds; moves on."""
        pieces, missing = [], self.batch_size
        while missing:
            piece = self.order[self.position:self.position + missing]
            pieces.append(piece)
            missing -= len(piece)
            self.position += len(piece)
            if self.position == len(self.order):
                self._next_epoch()
                self.position = 0
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]

    def take(self, index: Int64[Tensor, " batch"]) -> tuple[
            Float[Tensor, "batch channels canvas canvas"], Int64[Tensor, " batch"] | None]:
        """Images at newly drawn places, and labels (None without); device code no host has to wait for."""
        image = arrange(self._gather(index), self.canvas, self.shift, self.place_generator,
                        self.max_shift)
        if self.jitter:
            image = augment.jitter(image, self.place_generator)
        return image, self.split.labels[index] if self.labelled else None

    def _gather(self, index: Int64[Tensor, " batch"]) -> UInt8[Tensor, "batch channels height width"]:
        """The images of `index`, by the workers where there are some."""
        if self.pool is None:
            return self.split.images[index]
        found = self.split.images.new_empty(len(index), *self.split.images.shape[1:])
        done = [self.pool.submit(torch.index_select, self.split.images, 0, part, out=rows)
                for rows, part in zip(found.tensor_split(self.workers), index.tensor_split(self.workers))]
        for one in done:
            one.result()
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next batch depends on, as tensors on the CPU."""
        return {"order": self.epoch_start.clone(), "place": self.place_generator.get_state(),
                "where": torch.tensor([self.epoch, self.position])}

    @property
    def limits(self) -> list[int]:
        """The highest value of each number of the state's `where`."""
        return [2**62, len(self.split) - 1]

    def generators(self) -> dict[str, torch.Generator]:
        """Those whose states the state holds, by name."""
        return {"order": self.order_generator, "place": self.place_generator}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken."""
        self.epoch, self.position = state["where"].tolist()
        self.epoch_start = state["order"].clone()
        self.order_generator.set_state(state["order"])
        self.place_generator.set_state(state["place"])
        self._draw_order()


