"""Rows of `core/initializers.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _initializer(name: str) -> Recipe:
    return Recipe(lambda lib, x, a, _: getattr(lib.core.initializers, name)(
        np.random.default_rng(a["seed"]), *a["arguments"]))


def _truncated_normal(m: Maker) -> Case:
    return m.case({"seed": m.seed, "arguments": (m.shape(), m.choice([1.0, 0.05]))})


def _glorot_uniform(m: Maker) -> Case:
    return m.case({"seed": m.seed, "arguments": (m.shape(1, 4),)})


def _orthogonal(m: Maker) -> Case:
    parts, height, width = m.sizes(3, 2, 6)
    return m.case({"seed": m.seed, "arguments": (parts, (height, width), m.size(1, 3))})


ROWS = (
    OpCase("core.initializers.truncated_normal", _initializer("truncated_normal"), _truncated_normal,
           exact=True),
    OpCase("core.initializers.glorot_uniform", _initializer("glorot_uniform"), _glorot_uniform, exact=True),
    OpCase("core.initializers.orthogonal_templates", _initializer("orthogonal_templates"), _orthogonal,
           exact=True),
)
