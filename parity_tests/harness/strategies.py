"""What the property tests draw.

Hypothesis draws sizes, flags, scales and a seed; a NumPy generator fills the arrays from the seed.
Magnitudes are bounded on purpose (no subnormals, nothing that overflows float32), sizes are unequal
so that a swapped axis cannot hide, with size-1 axes and batch 1 mixed in. Values at a discontinuity
(argmax, floor, kinks of relu1) are drawn away from it here; ties are the special cases of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np

from parity_tests.harness import recorder
from parity_tests.harness.hypothesis_internals import refusals
from parity_tests.harness.sides import Arrays

# exp(88) is the largest float32 exponential; logits stay below it so that both dtypes are finite.
EXTREME_LOGIT = 60.0


@dataclass(repr=False)
class Case:
    """One drawn example.

    Attributes:
        inputs: float64 arrays (or integers) in the reference's layout.
        attributes: plain arguments.
        seed: seeds the cotangents and the variables of a module.
        terms: number of terms of the longest sum, for the float32 bound.
    """

    inputs: Arrays
    attributes: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    terms: float = 1.0

    def __repr__(self) -> str:
        shapes = {name: list(np.shape(value)) for name, value in self.inputs.items()}
        return f"Case(shapes {shapes}, {self.attributes}, seed {self.seed})"


class Maker:
    """Draws sizes from hypothesis and arrays from a seeded generator."""

    def __init__(self, draw: Callable[[st.SearchStrategy], Any]) -> None:
        self.draw = draw
        self.seed = draw(st.integers(0, 2**32 - 1))
        self.rng = np.random.default_rng(self.seed)

    def size(self, low: int = 1, high: int = 5) -> int:
        """One axis."""
        return self.draw(st.integers(low, high))

    def sizes(self, n: int, low: int = 2, high: int = 7) -> list[int]:
        """n axes of unequal size; sometimes one of them is 1."""
        # A permutation is never refused, as a list of unique numbers would be.
        drawn = list(self.draw(st.permutations(range(low, high + 1)))[:n])
        if low > 1 and self.flag(4):
            drawn[self.draw(st.integers(0, n - 1))] = 1
        return drawn

    def shape(self, low: int = 1, high: int = 4) -> tuple[int, ...]:
        """A shape of unequal sizes, rank low..high."""
        return tuple(self.sizes(self.draw(st.integers(low, high))))

    def flag(self, one_in: int = 2) -> bool:
        """True once in `one_in`."""
        return self.draw(st.integers(1, one_in)) == 1

    def choice(self, options: Sequence[Any]) -> Any:
        """One of the options."""
        return self.draw(st.sampled_from(list(options)))

    def normal(self, *shape: int, scale: float | None = None) -> np.ndarray:
        """Normal entries; the scale is drawn from .1, 1 and 10 when not given."""
        scale = self.choice([1.0, 0.1, 10.0]) if scale is None else scale
        return self.rng.standard_normal(shape) * scale

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> np.ndarray:
        """Uniform entries."""
        return self.rng.uniform(low, high, shape)

    def logits(self, *shape: int) -> np.ndarray:
        """Normal logits with some extreme ones (±60)."""
        values = self.rng.standard_normal(shape) * self.choice([1.0, 3.0])
        if self.flag():
            values = self.sprinkle(values, [-EXTREME_LOGIT, EXTREME_LOGIT], 0.2)
        return values

    def sprinkle(self, values: np.ndarray, special: Sequence[float], share: float) -> np.ndarray:
        """Replace a share of the entries by special values."""
        mask = self.rng.random(values.shape) < share
        return np.where(mask, self.rng.choice(np.asarray(special, np.float64), values.shape), values)

    def presence(self, *shape: int, exact: bool | None = None) -> np.ndarray:
        """Presences in (0, 1); with `exact` some are 0, 1 or tied at ½."""
        values = self.uniform(*shape, low=0.01, high=0.99)
        exact = self.flag() if exact is None else exact
        return self.sprinkle(values, [0.0, 1.0, 0.5], 0.4) if exact else values

    def probability(self, *shape: int) -> np.ndarray:
        """Non-negative weights, some exactly 0 or below safe_log's floor."""
        values = self.uniform(*shape, low=1e-3, high=1.0)
        return self.sprinkle(values, [0.0, 1e-20, 1.0], 0.3) if self.flag() else values

    def spaced(self, *shape: int, axis: int = 1, gap: float = 0.1) -> np.ndarray:
        """Distinct entries along `axis`, at least gap/2 apart: away from every argmax tie."""
        count = shape[axis]
        order = np.argsort(self.rng.random(shape), axis=axis).astype(np.float64)
        return (order - (count - 1) / 2.0 + self.uniform(*shape, low=-0.25, high=0.25)) * gap

    def pose(self, *batch: int) -> np.ndarray:
        """Affine poses [a b tx c d ty], some nearly singular (determinant 1e-3), none singular."""
        theta = self.uniform(*batch, low=-np.pi, high=np.pi)
        scales = self.uniform(2, *batch, low=0.3, high=1.5)
        if self.flag(3):
            scales[1] = np.where(self.rng.random(batch) < 0.5, 3e-3, scales[1])
        shear = self.uniform(*batch, low=-0.5, high=0.5)
        c, s = np.cos(theta), np.sin(theta)
        rotate = np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)
        stretch = np.stack([np.stack([scales[0], shear], -1),
                            np.stack([np.zeros_like(c), scales[1]], -1)], -2)
        shift = self.uniform(*batch, 2, 1, low=-0.8, high=0.8)
        return np.concatenate([rotate @ stretch, shift], -1).reshape(*batch, 6)

    def off_integers(self, *shape: int, low: float, high: float) -> np.ndarray:
        """Coordinates whose fractional part is in [.02, .98]: away from the sampler's cell edges."""
        return np.floor(self.uniform(*shape, low=low, high=high)) + self.uniform(
            *shape, low=0.02, high=0.98)

    def case(self, attributes: dict[str, Any] | None = None, terms: float = 1.0,
             **inputs: np.ndarray) -> Case:
        """The finished example."""
        return Case(inputs, attributes or {}, self.seed, terms)


def cases(build: Callable[[Maker], Any], op: str | None = None) -> st.SearchStrategy[Any]:
    """A strategy from a function of a maker; `op` counts the examples refused."""
    def count() -> None:
        if op is not None:
            recorder.discard(op)

    @st.composite
    def strategy(draw: Callable[[st.SearchStrategy], Any]) -> Any:
        with refusals(count):
            return build(Maker(draw))

    return strategy()
