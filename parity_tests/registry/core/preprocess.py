"""Rows of `core/preprocess.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase

IMAGE = {"image": 1, "out": 1}


def _shift_offset(m: Maker) -> Case:
    padding = m.size(0, 13)
    return m.case({"padding": padding},
                  shift=m.rng.integers(-padding, padding + 1, m.shape(1, 2)))


def _pad_and_shift(m: Maker) -> Case:
    batch, height, width, channels = m.sizes(4, 2, 6)
    output = max(height, width) + m.size(0, 5)
    return m.case({"output_size": output}, image=m.uniform(batch, height, width, channels),
                  x=m.rng.integers(width - output, output - width + 1, batch),
                  y=m.rng.integers(height - output, output - height + 1, batch))


def _edges(m: Maker) -> Case:
    batch, channels = m.size(1, 3), m.size(1, 3)
    height, width = m.sizes(2, 3, 8)
    height, width = max(height, 2), max(width, 2)  # a reflected border needs two pixels
    return m.case(terms=height * width, image=m.uniform(batch, height, width, channels))


def _normalized(m: Maker) -> Case:
    """Four pixels a side at least: reflected, the responses of smaller images are tied by symmetry."""
    batch, channels = m.size(1, 3), m.size(1, 3)
    height, width = (4 + extra for extra in m.sizes(2, 1, 6))
    return m.case(terms=height * width, image=m.uniform(batch, height, width, channels))


ROWS = (
    OpCase("core.preprocess.shift_offset", function("core.preprocess.shift_offset"), _shift_offset, (
        ("all of the original", Case({"shift": np.arange(-12, 13)}, {"padding": 12})),),
        exact=True, oracle=True),
    OpCase("core.preprocess.pad_and_shift", function("core.preprocess.pad_and_shift", layouts=IMAGE),
           _pad_and_shift, exact=True, oracle=True),
    OpCase("core.preprocess.sobel_edges", function("core.preprocess.sobel_edges", layouts=IMAGE), _edges,
           oracle=True),
    OpCase("core.preprocess.normalized_sobel_edges",
           function("core.preprocess.normalized_sobel_edges", layouts=IMAGE), _normalized, (
               ("constant image", Case({"image": np.full((1, 4, 5, 1), 0.5)})),), oracle=True),
)
