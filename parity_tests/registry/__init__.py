"""One row per public name of the rooms that both sides have.

A row says how to call the op, what to draw, which cases at discontinuities to add, and which oracle
answers for it. Functions are named, never held: they are looked up at call time.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker

# Modules that both packages have, in reading order.
ROOMS = ("core.ops", "core.preprocess", "core.initializers", "core.warp", "core.layers",
         "core.attention", "core.mixture", "scae.part_encoder", "scae.part_decoder",
         "scae.object_decoder", "core.losses", "core.probe", "scae.model", "scae.pcae",
         "scae.hierarchy", "core.rmsprop", "core.adam", "capsnet.settings", "capsnet.routing",
         "capsnet.network", "em.settings", "em.routing", "em.layers", "em.losses", "em.network",
         "constellation.data", "constellation.likelihood", "constellation.decoder",
         "constellation.model")


@dataclass(frozen=True)
class OpCase:
    """One op.

    Attributes:
        op: `folder.module.name`.
        recipe: how to run it on either side.
        draw: builds one example from a maker.
        special: named cases at ties, singularities and non-finite values.
        oracle: whether `parity_tests/oracles/` has a function of this name.
        exact: bit-equal on both sides (NumPy on both, or no arithmetic).
        cells: `(lib, x, a) -> integer tensor` that names the pieces of a piecewise op; where float32
            lands in other pieces than float64, float32 gradients are not compared.
        magnitude: scale of the terms where they are larger than the result, for float32.
        tested_by: the test file of a row that `test_ops.py` does not run itself.
        note: what to know.
        judges: further modules of the port whose mutants it is asked about first.
    """

    op: str
    recipe: Recipe | None = None
    draw: Callable[[Maker], Case] | None = None
    special: Sequence[tuple[str, Case]] = ()
    oracle: bool = False
    exact: bool = False
    cells: Callable[[Any, dict[str, Any], dict[str, Any]], Any] | None = None
    magnitude: float = 0.0
    tested_by: str = "test_ops.py"
    note: str = ""
    judges: Sequence[str] = ()

    @property
    def room(self) -> str:
        """The room's name."""
        return self.op.rpartition(".")[0]


def rows() -> dict[str, OpCase]:
    """Every row by op, in the order of the rooms."""
    found: dict[str, OpCase] = {}
    for part in ("ops", "images", "layers", "parts", "objects", "training", "adam", "capsnet", "em",
                 "em_layers", "constellation", "modes"):
        module = importlib.import_module(f"parity_tests.registry.old_{part}")
        for row in module.ROWS:
            if row.op in found:
                raise ValueError(f"two rows for {row.op}")
            found[row.op] = row
    return dict(sorted(found.items(), key=lambda item: ROOMS.index(item[1].room)))


def fast_rows() -> list[OpCase]:
    """The rows of faster paths; they share their names with the plain ones."""
    return list(importlib.import_module("parity_tests.registry.old_fast").ROWS)


def public_names(package: str, room: str) -> set[str]:
    """Functions and classes a room defines, without NamedTuples, exceptions and imports."""
    module = importlib.import_module(f"{package}.{room}")
    names = set()
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        is_class = (inspect.isclass(value) and not issubclass(value, (tuple, Exception))
                    and not hasattr(value, "__dataclass_fields__"))
        if inspect.isfunction(value) or is_class:
            names.add(name)
    return names
