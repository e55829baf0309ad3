"""What every classifying family gives and takes: the result of a forward pass, and the check of its images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from port.configuration.protocol import Configuration
from port.core.taps import Taps

Array = Float[Tensor, "..."]


class Classified(NamedTuple):
    """A forward pass: the optimised scalar, its terms, evidence for each class, its capsules.

    `evidence` is a capsule's length or its activation; the class is where it is largest. `capsules` is
    `[B, classes, atoms]`. Only CapsNet has a `reconstruction` `[B, C, S, S]`.
    """

    loss: Array
    scalars: dict[str, Array]
    evidence: Array
    capsules: Array
    reconstruction: Array | None
    taps: Taps | None


def check_images(image: Tensor, config: Configuration, dtype: torch.dtype) -> None:
    """Refuse images of another shape or dtype.

    Args:
        image: `[B, C, S, S]`.
        config: says C and S.
        dtype: of the weights.

    Raises:
        ValueError: says what was expected and what was given.
    """
    shape = (config.channels, config.canvas, config.canvas)
    if image.ndim != 4 or tuple(image.shape[1:]) != shape:
        raise ValueError(f"image: expected shape [batch, {', '.join(map(str, shape))}], got "
                         f"{list(image.shape)}")
    if image.dtype != dtype:
        raise ValueError(f"image: expected dtype {dtype}, got {image.dtype}")
