"""Rows of `capsnet/settings.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.harness.sides import Lib, Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _preset(m: Maker) -> Case:
    return m.case({"name": m.choice(["paper", "official", "xg"]), "classes": m.size(2, 12)})


def _run_preset(lib: Lib, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    """The numbers among the settings."""
    found = vars(lib.capsnet.settings.preset(a["name"], classes=a["classes"]))
    return np.asarray([float(v) for v in found.values() if isinstance(v, int | float | bool)])


ROWS = (
    OpCase("capsnet.settings.preset", Recipe(_run_preset), _preset, exact=True),
)
