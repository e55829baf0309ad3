"""Functions of one number or one short list, shared by the oracles; everything is a Python float.

The stable branches (no overflow of `exp`) change no value in exact arithmetic.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

LOG_FLOOR = -1e8  # what safe_log returns below its epsilon
LOG_2PI = math.log(2.0 * math.pi)


def as64(array) -> np.ndarray:
    """Returns the array in float64 (integers and booleans too)."""
    return np.asarray(array, dtype=np.float64)


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-x)), by the branch that cannot overflow."""
    if value >= 0.0:
        return 1.0 / (1.0 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1.0 + grown)


def softplus(value: float) -> float:
    """log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|))."""
    return max(value, 0.0) + math.log1p(math.exp(-abs(value)))


def relu(value: float) -> float:
    """max(x, 0)."""
    return value if value > 0.0 else 0.0


def relu1(value: float) -> float:
    """relu6(6 x) / 6: x cut to [0, 1]."""
    return min(max(6.0 * value, 0.0), 6.0) / 6.0


def safe_log(value: float, eps: float = 1e-16) -> float:
    """log x where x >= eps, else -1e8."""
    return math.log(value) if value >= eps else LOG_FLOOR


def exponential(value: float) -> float:
    """exp x with inf in place of an overflow error."""
    return math.inf if value > 709.782712893384 else math.exp(value)


def divide(numerator: float, denominator: float) -> float:
    """Quotient by IEEE rules: infinity or NaN in place of an error for a zero denominator."""
    with np.errstate(all="ignore"):
        return float(np.float64(numerator) / np.float64(denominator))


def log_sum_exp(values: Sequence[float]) -> float:
    """log of the sum of exp(x - m), plus m, with m the largest x, zero if infinite."""
    largest = max(values)
    if not math.isfinite(largest):
        largest = 0.0
    total = 0.0
    for value in values:
        total += exponential(value - largest)
    return (math.log(total) if total != 0.0 else -math.inf) + largest


def softmax(values: Sequence[float]) -> list[float]:
    """exp(x_i - m) / sum_j exp(x_j - m), with m the largest x."""
    largest = max(values)
    grown = [math.exp(value - largest) for value in values]
    total = 0.0
    for value in grown:
        total += value
    return [value / total for value in grown]


def argmax(values: Iterable[float]) -> int:
    """Index of the largest value, the lowest such index at a tie."""
    best, best_value = -1, -math.inf
    for index, value in enumerate(values):
        if best < 0 or value > best_value:
            best, best_value = index, value
    return best


def normal_log_prob(x: float, mean: float, scale: float) -> float:
    """-(x - mean)^2 / (2 scale^2) - log(scale) - log(2 pi) / 2."""
    distance = (x - mean) / scale
    return -0.5 * distance * distance - math.log(scale) - 0.5 * LOG_2PI


def student_log_prob(x: float, df: float, loc: float, scale: float) -> float:
    """log of G((v+1)/2) / (G(v/2) sqrt(pi v) scale) (1 + y^2/v)^(-(v+1)/2), y = (x - loc)/scale."""
    distance = (x - loc) / scale
    constant = math.lgamma((df + 1.0) / 2.0) - math.lgamma(df / 2.0) - 0.5 * math.log(math.pi * df)
    return constant - math.log(scale) - (df + 1.0) / 2.0 * math.log1p(distance * distance / df)


NONLINEARITIES = {"relu1": relu1, "sigmoid": sigmoid}


def sub_scope(variables: Mapping[str, np.ndarray], scope: str) -> dict[str, np.ndarray]:
    """Returns the variables below `scope`, under their names relative to it.

    Raises:
      KeyError: no variable lies below the scope.
    """
    prefix = scope + "/"
    found = {}
    for name, value in variables.items():
        if name.startswith(prefix):
            found[name[len(prefix) :]] = value
    if not found:
        raise KeyError(f"no variable below {scope!r}; there are {sorted(variables)}")
    return found
