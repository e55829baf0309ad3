"""Rows of `em/losses.py`."""

from __future__ import annotations

from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _loss(m: Maker) -> Case:
    batch, classes = m.size(1, 5), m.size(2, 5)
    return m.case({"margin": m.choice([0.2, 0.9]), "reduction": m.choice(["sum", "mean"])},
                  terms=batch * classes, activation=m.uniform(batch, classes),
                  label=m.rng.integers(0, classes, batch))


def _margin(m: Maker) -> Case:
    return m.case({"step": m.size(0, 1_000_000), "schedule": m.choice(["sigmoid", "linear", "constant"]),
                   "ramp": m.choice([10_000, 500_000])})


ROWS = (
    OpCase("em.losses.spread_margin", function("em.losses.spread_margin"), _margin, exact=True),
    OpCase("em.losses.spread_loss", function("em.losses.spread_loss", constants=("label",)), _loss,
           oracle=True),
)
