"""Oracles of `em/losses.py`."""

import numpy as np

from parity_tests.oracles.scalars import as64


def spread_loss(activation, label, margin, reduction="sum") -> np.ndarray:
    """Sum (or mean) over the wrong classes of max(0, m - (a_t - a_i))^2, mean over the batch."""
    activation, total = as64(activation), 0.0
    for row, target in zip(activation, label):
        for i, value in enumerate(row):
            if i != target:
                total += max(0.0, margin - (row[target] - value)) ** 2
    return np.asarray(total / len(label) / (activation.shape[1] if reduction == "mean" else 1))
