"""Numba's compiler for the kernels of a CPU: compiled code is kept on disk where that works.

A cache is a convenience: a folder that cannot be written, a full disk or a damaged file costs the minute of
compiling again, and never the run. Numba itself refuses at the decorator where there is no folder, and
raises out of the kernel's first call where its files cannot be written or read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError:
    numba = None


def compiled(function: Callable, **options: Any) -> Callable:
    """A function compiled for the types of each call; as it is where Numba is not installed.

    Args:
        function: of numbers and arrays.
        options: of `numba.njit`, beside those that every kernel here has.
    """
    if numba is None:
        return function
    options = {"nogil": True, "error_model": "numpy", **options}
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(**options)(function)
    cache = getattr(dispatcher, "_cache", None)
    for name in ("load_overload", "save_overload"):
        if hasattr(cache, name):
            setattr(cache, name, _forgiving(cache, getattr(cache, name)))
    return dispatcher


def _forgiving(cache: Any, work: Callable) -> Callable:
    """A method of a cache that does nothing where its files fail, and from then on."""
    def tried(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Exception:  # whatever a full disk or half a pickle raises: nothing was loaded or kept
            with contextlib.suppress(Exception):
                cache.disable()
            return None
    return tried
