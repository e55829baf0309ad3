"""Rows of `core/probe.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.goldens.ops import module
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _probe(m: Maker) -> Case:
    batch, features, classes = m.sizes(3, 2, 7)
    inputs = {"features": m.normal(batch, features), "labels": m.rng.integers(0, classes, batch)}
    if m.flag():
        kind = m.choice(["bool", "int64", "float64"])
        drawn = m.rng.random(batch) if kind == "float64" else m.rng.random(batch) > 0.4
        inputs["labeled"] = drawn.astype(kind)
    return m.case({"n_features": features, "n_classes": classes}, terms=max(features, batch), **inputs)


ROWS = (
    OpCase("core.probe.ClassificationProbe", module(
        "core.probe.ClassificationProbe", ("logits", "xe", "acc"), lambda a: a,
        lambda lib, x, a, m: m(**x), constants=("labels", "labeled")), _probe, (
            ("tied logits", Case({"features": np.zeros((2, 3)), "labels": np.array([0, 1])},
                                 {"n_features": 3, "n_classes": 4})),), oracle=True),
)
