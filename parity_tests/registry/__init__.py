"""The rows of every op, found by the op's path: `registry/core/warp.py` holds those of `core/warp.py`."""

from __future__ import annotations

import importlib
import inspect

from parity_tests.registry.row import OpCase

__all__ = ["ROOMS", "OpCase", "fast_rows", "public_names", "rows"]

# Modules that both packages have, in reading order.
ROOMS = ("core.ops", "core.preprocess", "core.initializers", "core.warp", "core.layers",
         "core.attention", "core.mixture", "scae.part_encoder", "scae.part_decoder",
         "scae.object_decoder", "core.losses", "core.probe", "scae.model", "scae.pcae",
         "scae.hierarchy", "core.rmsprop", "core.adam", "capsnet.settings", "capsnet.routing",
         "capsnet.losses", "capsnet.layers", "capsnet.network",
         "em.settings", "em.windows", "em.routing", "em.layers", "em.losses", "em.network",
         "constellation.data", "constellation.likelihood", "constellation.decoder",
         "constellation.model")


def rows() -> dict[str, OpCase]:
    """Every row by op, in the order of `ROOMS`.

    Raises:
        ValueError: two rows for one op, or a row in another module's file.
    """
    found: dict[str, OpCase] = {}
    for room in ROOMS:
        for row in importlib.import_module(f"{__name__}.{room}").ROWS:
            if row.op in found or row.room != room:
                raise ValueError(f"registry/{room.replace('.', '/')}.py: a row for {row.op}, which "
                                 f"{'has one already' if row.op in found else 'is of another module'}")
            found[row.op] = row
    return found


def fast_rows() -> list[OpCase]:
    """The rows of faster paths; they share their names with the plain ones."""
    return list(importlib.import_module(f"{__name__}.fast").ROWS)


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
