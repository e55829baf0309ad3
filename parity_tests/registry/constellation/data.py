"""Rows of `constellation/data.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase

N_PATTERNS = 4
DRAWS = ("angle", "scale", "translation", "presence", "order", "noise")
POINTS = ("corners", "presence", "pattern_presence", "pattern_id")


def _block(m: Maker) -> Case:
    settings = {"drop_prob": m.choice([0.5, 0.0, 0.9]), "gaussian_noise": m.choice([0.0, 0.0, 0.1]),
                "max_translation": m.choice([1.0, 0.3]), "rotation_percent": m.choice([0.5, 1.0, 0.0]),
                "max_upscale": m.choice([3.0, 0.0])}
    slots = [m.size(0, N_PATTERNS - 1) for _ in range(m.size(1, 4))]
    return m.case({"seed": m.seed, "size": m.size(1, 6), "slots": slots, "settings": settings})


def _draws(lib: Any, a: dict[str, Any]) -> Any:
    return lib.constellation.data.draw(np.random.RandomState(a["seed"]), a["size"], a["slots"],
                                       **a["settings"])


def _run_draw(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    found = _draws(lib, a)._asdict()
    return found | {"noise": np.zeros(0) if found["noise"] is None else found["noise"]}


def _run_assemble(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.data.assemble(_draws(lib, a), a["slots"])


def _run_create(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.data.create(np.random.RandomState(a["seed"]), a["size"], a["slots"],
                                         **a["settings"])


ROWS = (
    OpCase("constellation.data.draw", Recipe(_run_draw, DRAWS), _block, exact=True),
    OpCase("constellation.data.slot_of_point", Recipe(
        lambda lib, x, a, _: lib.constellation.data.slot_of_point(a["slots"])), _block, exact=True),
    OpCase("constellation.data.assemble", Recipe(_run_assemble, POINTS), _block, exact=True),
    OpCase("constellation.data.create", Recipe(_run_create, POINTS), _block, exact=True, oracle=True),
)
