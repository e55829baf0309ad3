"""Every planted bug that runs inside the tests' process, found by its path."""

from __future__ import annotations

import importlib
import pkgutil

from parity_tests import mutants
from parity_tests.mutants.planting import Mutant
from parity_tests.registry import ROOMS

# Planted in a process of its own, by `harness/triton_side.py`.
ELSEWHERE = ("scae.pixel_kernel_triton",)


def collect() -> tuple[Mutant, ...]:
    """The `MUTANTS` of every file below this folder, in the order of the registry.

    Raises:
        ValueError: two of one name.
    """
    rooms = [module.name.removeprefix(f"{mutants.__name__}.") for module in pkgutil.walk_packages(
        mutants.__path__, f"{mutants.__name__}.") if module.name.count(".") == 3]
    rooms.sort(key=lambda room: (ROOMS.index(room) if room in ROOMS else len(ROOMS), room))
    found = [mutant for room in rooms if room not in ELSEWHERE
             for mutant in importlib.import_module(f"{mutants.__name__}.{room}").MUTANTS]
    names = [mutant.id for mutant in found]
    if len(set(names)) < len(names):
        raise ValueError(f"two planted bugs of one name: {sorted({n for n in names if names.count(n) > 1})}")
    return tuple(found)


MUTANTS = collect()
