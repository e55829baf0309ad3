"""One process at a time in a folder: a lock that ends with the process, however it ends.

The lock lies beside the folder under a hidden name, so that the folder can be swapped whole, and goes when
it is given up. A process that was killed leaves an empty file, which holds nobody up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from pipelines.support.values import BadInput


def path_of(folder: str | os.PathLike) -> Path:
    """Where the lock of a folder lies."""
    folder = Path(folder)
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def held(folder: str | os.PathLike, what: str) -> Iterator[None]:
    """Hold the lock of a folder, which need not be there, or refuse.

    Args:
        folder: the folder.
        what: what another process does with it, for the message.

    Raises:
        BadInput: another process holds it.
    """
    with _taken(path_of(folder), 0) as got:
        if not got:
            raise BadInput(f"{folder}: another process {what} there; wait until it is done, or stop it")
        yield


def refuse_held(folder: str | os.PathLike, what: str) -> None:
    """As `held`, for a moment: whether it could be had.

    Raises:
        BadInput: another process holds it.
    """
    if path_of(folder).exists():
        with held(folder, what):
            pass


@contextlib.contextmanager
def awaited(folder: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of a folder as soon as it is free; where none can be written, go on without.

    A results folder may lie on a disk that can only be read; what has to be written fails by itself then.
    """
    path = path_of(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError:
        yield
        return
    with _taken(path, -1):
        yield


@contextlib.contextmanager
def _taken(path: Path, timeout: float) -> Iterator[bool]:
    """Whether the lock was got; its file goes at the end, and after a failure the folders made for it."""
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        yield False
        return
    try:
        yield True
        made = []
    finally:
        path.unlink(missing_ok=True)  # while it is held: who waits for it looks for the file anew
        lock.release()
        for parent in made:
            with contextlib.suppress(OSError):  # something else is there by now
                parent.rmdir()
