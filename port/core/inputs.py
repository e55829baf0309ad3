"""What a model of any family is given: images, points and labels, looked at before they are used.

Form (shape, dtype, an empty batch) is known to the host and looked at in every call. Values are looked at
where that stops nothing: not while a graph is traced or captured, and not in training, whose images come
from bytes and whose labels were looked at once, with the data set (`check_range` of a model says so).
Numbers that mean something else train without a word: pixels 0..255, a label of -100, which PyTorch's
cross-entropy leaves out, or of 1.9, which it would cut to 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Other integers, int32 say, are counted as what they are; a bool says nothing about ten classes.
NO_LABEL = -1  # of every example of a data set without labels
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def may_look(tensor: Tensor, everywhere: bool = False) -> bool:
    """Whether the values of a tensor may be read here: eagerly, on the CPU or, if asked for, anywhere."""
    if torch.compiler.is_compiling() or tensor.is_meta or type(tensor) is not Tensor:
        return False  # a pretended tensor, say, which has no values
    if tensor.is_cuda:
        return everywhere and not torch.cuda.is_current_stream_capturing()
    return True


def check_image(image: Tensor, channels: int, canvas: int | None, dtype: torch.dtype, look: bool = True,
                what: str = "image") -> None:
    """Refuse images of the wrong size, channels, dtype or range, and an empty batch.

    Args:
        image: `[B, C, S, S]`, channels first, in [0, 1].
        channels: C.
        canvas: S in pixels; None where any size will do.
        dtype: of the weights, which the images must have too.
        look: at the values too, on the CPU, where reading one stops nothing.
        what: the argument's name, for the message.

    Raises:
        ValueError: says what was expected and what was given.
    """
    side = "height, width" if canvas is None else f"{canvas}, {canvas}"
    sides = image.shape[2:] if canvas is None else (canvas, canvas)
    if image.ndim != 4 or tuple(image.shape[1:]) != (channels, *sides):
        hint = ""
        if image.ndim == 4 and image.shape[3] == channels and canvas in (None, image.shape[1]):
            hint = "; these are channels last: give image.permute(0, 3, 1, 2)"
        elif image.ndim == 3 and channels == 1 and canvas in (None, image.shape[1]):
            hint = "; give image[:, None]"
        raise ValueError(f"{what}: expected shape [batch, {channels}, {side}] (channels first), got "
                         f"{list(image.shape)}{hint}")
    _check_batch(image, what)
    if image.dtype != dtype:
        hint = "; divide bytes by 255" if image.dtype == torch.uint8 else ""
        raise ValueError(f"{what}: expected dtype {dtype}, got {image.dtype}{hint}")
    if look and may_look(image):
        low, high = image.min().item(), image.max().item()
        if not (low >= 0.0 and high <= 1.0):
            hint = "; divide by 255" if high > 1.0 and low >= 0.0 else ""
            raise ValueError(f"{what}: expected values in [0, 1], got [{low:g}, {high:g}]{hint}")


def check_points(points: Tensor, presence: Tensor | None, n_dims: int, dtype: torch.dtype,
                 look: bool = True) -> None:
    """Refuse points or presences of another shape or dtype, that are not finite, and an empty batch.

    Args:
        points: `[B, M, n_dims]`.
        presence: `[B, M]` in [0, 1], or None.
        n_dims: coordinates of a point.
        dtype: of the weights.
        look: at the values too, on the CPU.

    Raises:
        ValueError: says what was expected and what was given.
    """
    if points.ndim != 3 or points.shape[2] != n_dims:
        raise ValueError(f"points: expected shape [batch, points, {n_dims}], got {list(points.shape)}")
    _check_batch(points, "points")
    if presence is not None and presence.shape != points.shape[:2]:
        raise ValueError(f"presence: expected shape {list(points.shape[:2])}, got {list(presence.shape)}")
    for name, value in (("points", points), ("presence", presence)):
        if value is not None and value.dtype != dtype:
            raise ValueError(f"{name}: expected dtype {dtype}, got {value.dtype}")
    if look and may_look(points):
        if not torch.isfinite(points).all():
            raise ValueError("points: expected finite coordinates, got NaN or infinity")
        if presence is not None:
            low, high = presence.min().item(), presence.max().item()
            if not (low >= 0.0 and high <= 1.0):
                raise ValueError(f"presence: expected values in [0, 1], got [{low:g}, {high:g}]")


def check_labels(label: Tensor, batch: int, n_classes: int | None = None, look: bool = True,
                 what: str = "label") -> Tensor:
    """Class numbers as int64; what is none is refused.

    Args:
        label: integers `[B]` in 0..n_classes - 1.
        batch: B.
        n_classes: None where nothing counts classes; then labels must only not be negative.
        look: at the values too, on any device: a number outside the classes ends a GPU's process.
        what: the argument's name, for the message.

    Returns:
        The labels, int64; the same tensor where they already were.

    Raises:
        ValueError: says what was expected and what was given.
    """
    if tuple(label.shape) != (batch,):
        hint = ""
        if label.ndim == 2 and label.shape[0] == batch:
            hint = "; give label[:, 0]" if label.shape[1] == 1 else "; of one-hot rows give label.argmax(1)"
        raise ValueError(f"{what}: expected one class number an example, shape [{batch}], got "
                         f"{list(label.shape)}{hint}")
    if label.dtype not in INTEGERS:
        raise ValueError(f"{what}: expected integers (torch.int64), got {label.dtype}; class numbers in "
                         "another dtype become integers with label.long()")
    if look and batch and may_look(label, everywhere=True):
        _check_classes(label.min().item(), label.max().item(), n_classes, what)
    return label.long()


def classes_of(config: Any) -> int | None:
    """How many classes a configuration's model tells apart by labels; None where it takes none."""
    if hasattr(config, "n_classes"):
        return config.n_classes
    weights = config.autoencoder
    return weights.n_classes if getattr(weights, "probe", False) else None


def _check_classes(low: int, high: int, n_classes: int | None, what: str) -> None:
    if low < 0 or (n_classes is not None and high >= n_classes):
        expected = "class numbers from 0" if n_classes is None else f"class numbers in 0..{n_classes - 1}"
        hint = f"; subtract 1 from labels that begin at 1, or set {n_classes + 1} classes" \
            if low > 0 and high == n_classes else ""
        raise ValueError(f"{what}: expected {expected}, got {low} to {high}{hint}")


def _check_batch(tensor: Tensor, what: str) -> None:
    # A traced graph may leave the number of examples open; asking for it would settle it.
    if not torch.compiler.is_compiling() and not tensor.shape[0]:
        raise ValueError(f"{what}: an empty batch; give at least one example")
