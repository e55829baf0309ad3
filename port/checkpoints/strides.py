"""Canvas, strides and embedding grid: which fit each other, for unpadded convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from port.config import CNN

# Hard-coded in the original's `model_config.py`; no shape shows them.
ORIGINAL_STRIDES = CNN().strides


def strides_possible(n_layers: int) -> list[tuple[int, ...]]:
    """The original's strides for its four convolutions; all of 1 and 2 for another number."""
    if n_layers == len(ORIGINAL_STRIDES):
        return [ORIGINAL_STRIDES]
    return any_of_two(n_layers)


def canvases(grid: int, kernels: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Sides of the canvas that unpadded convolutions bring to `grid`: (S - k) // s + 1, backwards."""
    sizes = [grid]
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        sizes = [(size - 1) * stride + kernel + rest for size in sizes for rest in range(stride)]
    return sizes


def each(values: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """One value for each convolution; a single one serves all."""
    return tuple(values) * (n_layers if len(values) == 1 else 1)


def fitting(grid: int, kernels: Sequence[int], canvas: int,
            candidates: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The strides among `candidates` that bring a canvas to `grid`."""
    return [strides for strides in candidates if canvas in canvases(grid, kernels, strides)]


def any_of_two(n_layers: int) -> list[tuple[int, ...]]:
    """All strides of 1 and 2."""
    return list(itertools.product((2, 1), repeat=n_layers))
