"""Compare two arrays so that a mismatch explains itself.

Value, dtype and shape count (broadcasting would hide [] against [1]); NaN and infinities must stand
in the same places on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


class ParityError(AssertionError):
    """Two sides differ by more than the bound."""


@dataclass(frozen=True)
class Where:
    """What is compared, for the message.

    Attributes:
        op: op, golden record or model.
        tap: output, gradient or tap name.
        actual: name of the side under test, such as `port float32`.
        expected: name of the side it is held to.
        reproduce: a command line that shows the failure again.
    """

    op: str
    tap: str
    actual: str
    expected: str
    reproduce: str

    def head(self) -> str:
        """First line of every message."""
        return f"{self.op}  tap {self.tap}: {self.actual} differs from {self.expected}"

    def foot(self) -> str:
        """Last line of every message."""
        return f"  reproduce: {self.reproduce}"


def check(where: Where, actual: np.ndarray, expected: np.ndarray, bound: float | np.ndarray,
          dtype: str | None = None) -> float:
    """Raise unless |actual - expected| <= bound everywhere.

    Args:
        where: names for the message.
        actual: array under test.
        expected: what it should be.
        bound: absolute, one for all or one for each entry.
        dtype: expected dtype of `actual`; default that of `expected`.

    Returns:
        The margin: largest error / bound (0 for exact agreement).

    Raises:
        ParityError: naming op, tap, count, worst index, both values, bound and a command line.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    wanted = np.dtype(dtype) if dtype else expected.dtype
    if actual.shape != expected.shape:
        raise ParityError(f"{where.head()}\n  shape {list(actual.shape)}, expected "
                          f"{list(expected.shape)}\n{where.foot()}")
    if actual.dtype != wanted:
        raise ParityError(f"{where.head()}\n  dtype {actual.dtype}, expected {wanted}\n{where.foot()}")
    return check_values(where, actual, expected, bound)


def check_values(where: Where, actual: np.ndarray, expected: np.ndarray,
                 bound: float | np.ndarray) -> float:
    """`check` without dtype and shape."""
    if actual.size == 0:
        return 0.0
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - e)
    same_special = (np.isnan(a) & np.isnan(e)) | (np.isinf(a) & np.isinf(e) & (a == e))
    difference = np.where(same_special, 0.0, difference)
    difference = np.where(np.isnan(difference) | (np.isfinite(a) != np.isfinite(e)), np.inf, difference)
    if not difference.any():
        return 0.0
    bounds = np.broadcast_to(np.asarray(bound, np.float64), difference.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        margins = np.where(difference == 0.0, 0.0, difference / bounds)
    margin = float(margins.max())
    if not margin <= 1.0:
        index = np.unravel_index(int(margins.argmax()), margins.shape)
        worst, bound, count = float(difference[index]), float(bounds[index]), int((margins > 1.0).sum())
        raise ParityError("\n".join([
            where.head(),
            f"  {count} of {difference.size} entries beyond the bound {bound:.3e}"
            + special_note(a, e),
            f"  worst at {[int(i) for i in index]}: {where.actual} {float(a[index])!r}, "
            f"{where.expected} {float(e[index])!r}, |difference| {worst:.3e}, {margin:.3g} times the bound",
            where.foot()]))
    return margin


def special_note(actual: np.ndarray, expected: np.ndarray) -> str:
    """Counts of non-finite entries, when there are any."""
    counts = [(name, int(test(actual).sum()), int(test(expected).sum()))
              for name, test in (("nan", np.isnan), ("inf", np.isinf))]
    notes = [f"{name} {a} against {e}" for name, a, e in counts if a or e]
    return f" ({', '.join(notes)})" if notes else ""


def zeros_for_none(gradient: np.ndarray | None, like: np.ndarray, dtype: np.dtype | type | None = None) -> np.ndarray:
    """A gradient; zeros of the shape of `like`, and of its dtype unless one is given, where no path leads there."""
    return np.zeros(like.shape, dtype or like.dtype) if gradient is None else gradient
