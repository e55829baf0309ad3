"""The range of a setting, beside its field.

    lr: float = limited(3e-5, above=0)
    held_out_images: int = limited(1024, at_least=1)

`check` looks at every field that has one; NaN and infinity lie in no range.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any, NamedTuple

KEY = "limits"
SEEDS = 2**32 - 1  # the largest that scikit-learn takes
THREADS = 1024
STEPS = 2**53  # up to here a float tells each number from the next, and rates are computed from the step as one


class Limits(NamedTuple):
    """Where a number may lie; None leaves a side open."""

    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None

    def refusal(self, number: float) -> str:
        """What a number has to be and is not, as `must be at least 1`; empty where it fits."""
        if not math.isfinite(number):
            return "must be a finite number"
        for words, bound, fits in (
                ("at least", self.at_least, operator.ge), ("above", self.above, operator.gt),
                ("at most", self.at_most, operator.le), ("below", self.below, operator.lt)):
            if bound is not None and not fits(number, bound):
                return f"must be {words} {bound:,}"
        return ""


def limited(default: Any, *, at_least: float | None = None, at_most: float | None = None,
            above: float | None = None, below: float | None = None) -> Any:
    """A field of a settings dataclass with its default and range; of a tuple the range of each item."""
    return dataclasses.field(default=default,
                             metadata={KEY: Limits(at_least, at_most, above, below)})


def seed(default: int = 0) -> Any:
    """A field that holds a seed."""
    return limited(default, at_least=0, at_most=SEEDS)


def of(kind: type) -> dict[str, Limits]:
    """Range of each field that has one; a default that a subclass changes keeps its parent's."""
    found: dict[str, Limits] = {}
    for parent in reversed(kind.__mro__):
        for field in parent.__dict__.get("__dataclass_fields__", {}).values():
            if KEY in field.metadata:
                found[field.name] = field.metadata[KEY]
    return found


def check(settings: Any, error: type[ValueError] = ValueError) -> None:
    """Refuse settings outside their ranges.

    Args:
        settings: a dataclass with `limited` fields.
        error: what is raised.

    Raises:
        ValueError: names the setting, its range and its value.
    """
    for name, limits in of(type(settings)).items():
        value = getattr(settings, name)
        for number in value if isinstance(value, list | tuple) else (value,):
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise error(f"{name} must be a number, not {number!r}")
            words = limits.refusal(number)
            if words:
                raise error(f"{name} {words}, not {number}")
