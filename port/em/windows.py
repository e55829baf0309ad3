"""Which children each parent of a convolutional capsule layer sees, and the way back.

Layout: children `[B, H, W, …]`; what a parent sees of them `[B, P, Q, K, L, …]`, with parent position (p, q) and
place (u, v) in its K × L window; child (p·s + u, q·s + v).
Read beside `reference/em/windows.py`: same names, same order.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Array = Float[Tensor, "..."]


def windows(children: Array, kernel: tuple[int, int], stride: int) -> Array:
    """What each parent sees: out[b, p, q, u, v] = children[b, p·s + u, q·s + v].

    Args:
        children: `[B, H, W, …]`.
        kernel: K, L.
        stride: s.

    Returns:
        `[B, P, Q, K, L, …]`, P = (H - K) // s + 1; a view, nothing is copied.

    Raises:
        ValueError: the kernel is larger than the grid.

    Source: paper section 4 (convolutional capsules).
    """
    height, width = children.shape[1:3]
    if kernel[0] > height or kernel[1] > width:
        raise ValueError(f"a kernel of {kernel[0]}x{kernel[1]} does not fit {height}x{width} children")
    seen = children.unfold(1, kernel[0], stride).unfold(2, kernel[1], stride)
    return seen.movedim((-2, -1), (3, 4))


def fold(entries: Array, stride: int, grid: tuple[int, int] | None = None) -> Array:
    """Sum over every parent that sees a child: the adjoint of `windows`.

    Args:
        entries: `[B, P, Q, K, L, …]`.
        stride: s.
        grid: H, W of the children; default just what the windows cover.

    Returns:
        `[B, H, W, …]`, 0 for children that no window holds.

    Source: paper section 4; the sum over a child's parents of the E step.
    """
    batch, *places = entries.shape[:5]
    parents, kernel = tuple(places[:2]), tuple(places[2:])
    height, width = grid or covered(parents, kernel, stride)
    height, width = max(height, kernel[0]), max(width, kernel[1])
    flat = entries.reshape(*entries.shape[:5], -1)
    columns = flat.permute(0, 5, 3, 4, 1, 2).reshape(batch, -1, parents[0] * parents[1])
    # Rows and columns at the far edge that no window holds are not known to `F.fold`.
    used = covered(parents, kernel, stride)
    summed = F.fold(columns, used, kernel, stride=stride)
    summed = F.pad(summed, (0, width - used[1], 0, height - used[0]))
    return summed.permute(0, 2, 3, 1).reshape(batch, height, width, *entries.shape[5:])


def covered(parents: tuple[int, int], kernel: tuple[int, int], stride: int) -> tuple[int, int]:
    """H, W of the grid that the windows of these parents cover: (P - 1)·s + K."""
    return (parents[0] - 1) * stride + kernel[0], (parents[1] - 1) * stride + kernel[1]


def parent_counts(parents: tuple[int, int], kernel: tuple[int, int], stride: int) -> np.ndarray:
    """How many parent positions see each child: float64 `[H, W]` over the covered grid."""
    counts = [np.zeros(size) for size in covered(parents, kernel, stride)]
    for count, n, k in zip(counts, parents, kernel):
        for parent in range(n):
            count[parent * stride:parent * stride + k] += 1.0
    return np.outer(*counts)
