"""Numba's compiler for the kernels of a CPU: compiled code is kept on disk where that works.

A cache is a convenience: a folder that cannot be written, a full disk or a damaged file costs the minute of
compiling again, and never the run. Numba itself refuses at the decorator where there is no folder, and
raises out of the kernel's first call where its files cannot be written or read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
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
    others = files_called(function)
    if others and not stamp(cache, others):
        return numba.njit(**options)(function)
    for name in ("load_overload", "save_overload"):
        if hasattr(cache, name):
            setattr(cache, name, _forgiving(cache, getattr(cache, name)))
    return dispatcher


def without_arrays(function: Callable) -> Callable:
    """`compiled` for a function that makes no array: it allocates nothing and counts no references.

    An atomic operation for every view of an array took more than a quarter of the time of small canvases.
    """
    return compiled(function, _nrt=False)


def files_called(function: Callable) -> list[Path]:
    """The files, other than its own, of the compiled functions that its module and theirs import."""
    rooms: list[dict[str, Any]] = [function.__globals__]
    for room in rooms:
        for value in list(room.values()):
            called = getattr(getattr(value, "py_func", None), "__globals__", None)
            if called is not None and not any(called is known for known in rooms):
                rooms.append(called)
    return sorted(Path(room["__file__"]) for room in rooms[1:])


def stamp(cache: Any, files: list[Path]) -> bool:
    """Make what is kept depend on further files, as Numba does by the function's own file alone.

    Otherwise a kernel would go on with the code of a function in another file from before that was changed.
    Returns False where Numba has its stamp elsewhere than version 0.68 does; then nothing may be kept.
    """
    kept = getattr(cache, "_cache_file", None)
    if not hasattr(kept, "_source_stamp"):
        return False
    kept._source_stamp = (kept._source_stamp, *((file.stat().st_mtime, file.stat().st_size) for file in files))
    return True


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
