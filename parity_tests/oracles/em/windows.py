"""Oracles of `em/windows.py`: every parent, every place of its window, one Python loop an index."""

import numpy as np

from parity_tests.oracles.scalars import as64


def seen_by(shape: tuple[int, ...], stride: int) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """Child position → every (parent row, parent column, window row, window column) that holds it."""
    rows, columns, high, wide = shape
    found: dict[tuple[int, int], list[tuple[int, ...]]] = {}
    for p in range(rows):
        for q in range(columns):
            for u in range(high):
                for v in range(wide):
                    found.setdefault((p * stride + u, q * stride + v), []).append((p, q, u, v))
    return found


def fold(entries, stride, grid=None) -> np.ndarray:
    """out[b, y, x] = sum of the entries of every parent that sees child (y, x)."""
    entries = as64(entries)
    rows, columns, high, wide = entries.shape[1:5]
    grid = grid or ((rows - 1) * stride + high, (columns - 1) * stride + wide)
    out = np.zeros((entries.shape[0], *grid, *entries.shape[5:]))
    for (y, x), parents in seen_by(entries.shape[1:5], stride).items():
        for p, q, u, v in parents:
            out[:, y, x] += entries[:, p, q, u, v]
    return out


def parent_counts(parents, kernel, stride) -> np.ndarray:
    """Number of parent positions that see each child of the covered grid."""
    out = np.zeros([(n - 1) * stride + k for n, k in zip(parents, kernel)])
    for (y, x), found in seen_by((*parents, *kernel), stride).items():
        out[y, x] = len(found)
    return out
