"""Rows of `em/windows.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.em.drawing import draw_counts, draw_grid, draw_sizes
from parity_tests.registry.row import OpCase


def _entries(m: Maker) -> Case:
    sizes = draw_sizes(m)
    stride = m.size(1, 3)
    used = [(n - 1) * stride + k for n, k in zip(sizes[1:3], sizes[3:5])]
    grid = None if m.flag() else (used[0] + m.size(0, 2), used[1] + m.size(0, 2))
    return m.case({"stride": stride, "grid": grid}, terms=sizes[1] * sizes[2],
                  entries=m.normal(*sizes[:m.size(5, 7)]))


def _covered(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    return np.asarray(lib.em.windows.covered(**a))


ROWS = (
    OpCase("em.windows.windows", function("em.windows.windows"), draw_grid),
    OpCase("em.windows.fold", function("em.windows.fold"), _entries, oracle=True),
    OpCase("em.windows.covered", Recipe(_covered), draw_counts, exact=True),
    OpCase("em.windows.parent_counts", function("em.windows.parent_counts"), draw_counts, exact=True,
           oracle=True),
)
