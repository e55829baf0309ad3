"""A folder that changes whole: written beside its place, flushed, then put there by a rename.

A kill or a full disk at any moment leaves what was there, or what is new, never some of each. What a
process that was killed left beside the place is cleared by the next one that writes there; its hidden name
says whose it is, so that what another one is writing just now is left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import itertools
import os
import platform
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from port.core import files

ROLES = ("new", "old")
LONGEST = 120  # bytes of a name that stands in the hidden ones, which may have 255
_count = itertools.count()


def _machine() -> str:
    """This machine's name as part of a file's."""
    return platform.node().replace("/", "_")[:60]


def _start(folder: Path) -> str:
    """How the hidden names beside a place begin; a long name is shortened, with its digest."""
    name = os.fsencode(folder.name)
    if len(name) > LONGEST:
        return f".{folder.name[:20]}{hashlib.sha256(name).hexdigest()[:24]}.scae-"
    return f".{folder.name}.scae-"


def beside(folder: Path, token: str, role: str) -> Path:
    return folder.with_name(f"{_start(folder)}{token}.{role}")


@contextlib.contextmanager
def swapped(folder: Path, own: Collection[str]) -> Iterator[Path]:
    """A folder to write to, which takes the place of another when all went well.

    Args:
        folder: the place.
        own: names in it, or patterns of names (`optimizer-*`), that the new folder brings or does without; whatever
            else is there stays.
    """
    folder = folder if folder.name not in ("", "..") else folder.resolve()
    recover(folder, own)
    token = f"{_machine()}-{os.getpid()}-{next(_count)}"
    new, old = (beside(folder, token, role) for role in ROLES)
    with files.named(folder, new):
        new.mkdir(parents=True)
        try:
            yield new
            for path in [*new.rglob("*"), new]:
                flush(path)
            if folder.exists() or folder.is_symlink():  # a link to nothing stands in the way too
                os.replace(folder, old)
            os.replace(new, folder)
            flush(folder.parent)
        finally:
            recover(folder, own, token)


@contextlib.contextmanager
def aside(place: Path) -> Iterator[Path]:
    """A folder beside a place, for files that are renamed from there; gone at the end."""
    for path in left_beside(place):
        if path.suffix == ".new":
            shutil.rmtree(path, ignore_errors=True)
    made = beside(place, f"{_machine()}-{os.getpid()}-{next(_count)}", "new")
    with files.named(place, made):
        made.mkdir()
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


@contextlib.contextmanager
def together(folder: Path) -> Iterator[Path]:
    """A folder to write files to, which go into another one when all of them are there; what else is there stays.

    Raises:
        OSError: one cannot be written, no folder is there, or a folder stands at the place of a file; it names the
            place that was meant.
    """
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    # In the folder, and not beside it: that may be on another disk, or not open for writing.
    place = Path(os.path.realpath(folder))
    new = not place.exists()
    place.mkdir(parents=True, exist_ok=True)
    try:
        with files.named(folder, place / "files"), aside(place / "files") as made:
            yield made
            paths = list(made.iterdir())
            for path in paths:
                if (place / path.name).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path.name))
            for path in paths:
                os.replace(path, place / path.name)
    except BaseException:
        if new:
            with contextlib.suppress(OSError):  # not empty: somebody else uses it
                place.rmdir()
        raise


def recover(folder: Path, own: Collection[str], token: str = "") -> None:
    """Clear what processes that are no more left; what they had put out of the way comes back.

    Args:
        folder: the place.
        own: as for `swapped`.
        token: of what to clear although its process lives.
    """
    for path in left_beside(folder, token):
        if path.suffix == ".old":
            if not os.path.lexists(folder):
                os.replace(path, folder)
                continue
            if path.is_symlink():  # the link goes, what it leads to stays
                path.unlink()
                continue
            for item in path.iterdir():
                if not is_own(item.name, own) and not (folder / item.name).exists():
                    os.replace(item, folder / item.name)
        shutil.rmtree(path, ignore_errors=True)


def is_own(name: str, own: Collection[str]) -> bool:
    """Whether a name is one of these or fits a pattern of theirs."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in own)


def left_beside(folder: Path, token: str = "") -> list[Path]:
    """Folders that processes that are no more left beside a place, those with old content first."""
    start, found = _start(folder), []
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        whose, _, role = path.name.removeprefix(start).rpartition(".")
        if path.name.startswith(start) and role in ROLES and (whose == token or not _lives(whose)):
            found.append(path)
    return sorted(found, key=lambda path: ROLES.index(path.suffix[1:]), reverse=True)


def _lives(token: str) -> bool:
    """Whether the process of a token may still write; of another machine nobody here knows."""
    machine, _, numbers = token.rpartition("-")[0].rpartition("-")
    if machine != _machine() or not numbers.isdigit():
        return True
    try:
        os.kill(int(numbers), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def flush(path: Path) -> None:
    """Hand a file or folder to the disk, so that a rename never overtakes its contents."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
