"""What the rows of `capsnet/` share."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.harness.sides import Lib
from parity_tests.harness.strategies import Maker

TABLE = "capsnet.tf_names"
CHANNELS = {"image": 1, "features": 1, "reconstruction": 1, "out": 1}


def make_settings(lib: Lib, a: dict[str, Any]) -> Any:
    """This side's make_settings from the preset and the changes that an example names."""
    return lib.capsnet.settings.preset(a.get("preset", "paper"), **a["settings"])


def draw_vectors(m: Maker, *shape: int, axis: int = -1, scale: float | None = None) -> np.ndarray:
    """Normal vectors; sometimes a share of them is exactly 0."""
    values = m.normal(*shape, scale=scale)
    if m.flag(3):
        values = values * np.expand_dims(m.rng.random(np.delete(shape, axis)) > 0.3, axis)
    return values


def draw_options(m: Maker) -> dict[str, Any]:
    return {"iterations": m.size(1, 5), "leaky": m.flag(), "routing_gradient": m.choice(["all", "last"]),
            "squash_epsilon": m.choice([0.0, 1e-8]), "routing_bias": m.flag(),
            "initial": m.choice(["official", "fan_in"])}


TINY = np.array([[0.0, 0.0, 0.0], [1e-10, 0.0, -1e-10], [1e-3, 1e-3, 0.0], [5.0, -9.0, 1.0]])
