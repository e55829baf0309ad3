"""Which children each parent of a convolutional capsule layer sees, and the way back.

Layout: children `[B, H, W, …]`; what a parent sees of them `[B, P, Q, K, L, …]`, with parent position (p, q) and
place (u, v) in its K × L window; child (p·s + u, q·s + v).
Read beside `port/em/windows.py`: same names, same order.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


def windows(children: Array, kernel: tuple[int, int], stride: int) -> Array:
    """What each parent sees: out[b, p, q, u, v] = children[b, p·s + u, q·s + v].

    Args:
        children: `[B, H, W, …]`.
        kernel: K, L.
        stride: s.

    Returns:
        `[B, P, Q, K, L, …]`, P = (H - K) // s + 1.

    Raises:
        ValueError: the kernel is larger than the grid.

    Source: paper section 4 (convolutional capsules).
    """
    height, width = children.shape[1:3]
    if kernel[0] > height or kernel[1] > width:
        raise ValueError(f"a kernel of {kernel[0]}x{kernel[1]} does not fit {height}x{width} children")
    rows, columns = _places(height, kernel[0], stride), _places(width, kernel[1], stride)
    seen = tf.gather(tf.gather(children, columns, axis=2), rows, axis=1)
    return tf.transpose(seen, [0, 1, 3, 2, 4, *range(5, len(seen.shape))])


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
    parents, kernel = entries.shape[1:3], entries.shape[3:5]
    height, width = grid or covered(parents, kernel, stride)
    rows, columns = (tf.one_hot(_places(size, k, stride, n), size, axis=0, dtype=entries.dtype)
                     for size, n, k in zip((height, width), parents, kernel))
    flat = tf.reshape(entries, [*entries.shape[:5], -1])
    return tf.reshape(tf.einsum("ypu,xqv,bpquvf->byxf", rows, columns, flat),
                      [entries.shape[0], height, width, *entries.shape[5:]])


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


def _places(size: int, kernel: int, stride: int, parents: int | None = None) -> np.ndarray:
    """Index of the child at each place of each window along one axis, `[P, K]`."""
    parents = (size - kernel) // stride + 1 if parents is None else parents
    return stride * np.arange(parents)[:, None] + np.arange(kernel)
