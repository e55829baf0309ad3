"""Oracles of `capsnet/losses.py`."""

import numpy as np

from parity_tests.oracles.scalars import as64


def margin_terms(
    lengths, labels, upper: float = 0.9, lower: float = 0.1, down_weight: float = 0.5
) -> np.ndarray:
    """T max(0, upper - l)^2 + down_weight (1 - T) max(0, l - lower)^2."""
    lengths, labels = as64(lengths), as64(labels)
    result = np.zeros(lengths.shape)
    for index in np.ndindex(lengths.shape):
        length, label = float(lengths[index]), float(labels[index])
        result[index] = (label * max(0.0, upper - length) ** 2
                         + down_weight * (1.0 - label) * max(0.0, length - lower) ** 2)
    return result


def margin_loss(lengths, labels, reduction: str = "sum") -> float:
    """The paper's: class sum, batch mean; `mean`: that over 2 classes."""
    terms = margin_terms(lengths, labels)
    batch, classes = terms.shape
    total = sum(float(v) for v in terms.ravel()) / batch
    return total if reduction == "sum" else total / (2.0 * classes)


def reconstruction_loss(image, reconstruction, weight: float = 0.0005) -> float:
    """weight (sum of squared differences of everything) / batch."""
    x, r = as64(image), as64(reconstruction)
    total = sum((float(r[index]) - float(x[index])) ** 2 for index in np.ndindex(x.shape))
    return weight * total / x.shape[0]
