"""What every classifying family gives: the result of a forward pass."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

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

