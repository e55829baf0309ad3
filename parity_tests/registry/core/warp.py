"""Rows of `core/warp.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import at_edges, draw_resampler, warp_cells
from parity_tests.registry.row import OpCase


def _grid_axis(m: Maker) -> Case:
    return m.case({"size": m.size(2, 45), "template_size": m.size(1, 15)})


def _poses(m: Maker) -> Case:
    return m.case(pose=m.pose(*m.shape(1, 2)))


def _affine_grid(m: Maker) -> Case:
    n = m.size(1, 3)
    height, width, rows, columns = m.sizes(4, 2, 8)
    return m.case({"canvas_shape": (height, width), "template_shape": (rows, columns)},
                  inverse_pose=m.normal(n, 6))


def _warp_templates(m: Maker) -> Case:
    batch, parts, channels = m.sizes(3, 2, 4)
    rows, columns, height, width = m.sizes(4, 2, 8)
    return m.case({"canvas_shape": (height, width), "inverse": not m.flag(4)},
                  templates=m.normal(batch, parts, rows, columns, channels, scale=1.0),
                  pose=m.pose(batch, parts))


ROWS = (
    OpCase("core.warp.grid_axis", Recipe(
        lambda lib, x, a, _: lib.core.warp.grid_axis(a["size"], a["template_size"])), _grid_axis,
        exact=True, oracle=True),
    OpCase("core.warp.inverse_affine", function("core.warp.inverse_affine"), _poses, (
        ("singular", Case({"pose": np.array([[1.0, 2, 0, 2, 4, 1], [0, 0, 0, 0, 0, 0]])})),),
        oracle=True),
    OpCase("core.warp.affine_grid", function("core.warp.affine_grid"), _affine_grid, oracle=True),
    OpCase("core.warp.resampler", function("core.warp.resampler", layouts={"data": 1, "out": 1}), draw_resampler,
           (("cell edges", at_edges()),), oracle=True),
    OpCase("core.warp.warp_templates",
           function("core.warp.warp_templates", layouts={"templates": 2, "out": 2}), _warp_templates,
           cells=warp_cells, oracle=True),
)
