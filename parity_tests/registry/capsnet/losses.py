"""Rows of `capsnet/losses.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase

TERMS = function("capsnet.losses.margin_terms", constants=("labels",))
MARGIN = function("capsnet.losses.margin_loss", constants=("labels",))


def _draw_margin(m: Maker) -> Case:
    batch, classes = m.sizes(2)
    labels = np.eye(classes)[m.rng.integers(0, classes, batch)]
    return m.case({"reduction": m.choice(["sum", "mean"])}, terms=batch * classes, labels=labels,
                  lengths=m.uniform(batch, classes, low=0.0, high=1.1))


def _draw_terms(m: Maker) -> Case:
    case = _draw_margin(m)
    return m.case({"upper": m.choice([0.9, 0.8]), "lower": m.choice([0.1, 0.2]),
                   "down_weight": m.choice([0.5, 1.0])}, **case.inputs)


def _draw_reconstruction(m: Maker) -> Case:
    shape = m.shape(2, 4)
    return m.case({"weight": m.choice([0.0005, 1.0])}, terms=float(np.prod(shape)),
                  image=m.uniform(*shape), reconstruction=m.uniform(*shape))


_HINGE = {"lengths": np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.5]]), "labels": np.eye(3)[:2]}

ROWS = (
    OpCase("capsnet.losses.margin_terms", TERMS, _draw_terms,
           (("on the hinge", Case(_HINGE, {"upper": 0.75, "lower": 0.25})),), oracle=True),
    OpCase("capsnet.losses.margin_loss", MARGIN, _draw_margin, oracle=True),
    OpCase("capsnet.losses.reconstruction_loss", function("capsnet.losses.reconstruction_loss"), _draw_reconstruction,
           oracle=True),
)
