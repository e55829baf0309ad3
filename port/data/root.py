"""Where raw data lie, and a digest of the files that a source would read there.

The root is what a caller names, else the variable SCAE_DATA, else `data`. A relative root belongs to the
checkout that one works in: the temporary copy in which `dvc exp run --queue` (or `--temp`) works, and a
further git worktree, hold no data of their own, since git ignores them, so there it leads to the main
checkout.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLE, DEFAULT = "SCAE_DATA", "data"
COPIES = (".dvc", "tmp", "exps")  # where DVC keeps the copies of queued experiments
# What each source of `port.data.sources` may read, below the root.
FILES: dict[str, tuple[str, ...]] = {
    "mnist": ("MNIST/raw",), "usps": ("usps", "usps.bz2", "usps.t.bz2"),
    "svhn": ("svhn", "train_32x32.mat", "test_32x32.mat"), "svhn_head": ("svhn_head",),
    "cifar10": ("cifar10/cifar-10-batches-py", "cifar-10-batches-py"),
    "affnist": ("affnist", "affnist_like", "MNIST/raw"), "affnist_like": ("affnist_like", "MNIST/raw"),
    "smallnorb": ("smallnorb",)}


def resolve(root: str | os.PathLike | None = None) -> Path:
    """The folder that holds the raw data; it need not be there.

    Args:
        root: as named; None is the variable SCAE_DATA, else `data`.
    """
    path = Path(root or os.environ.get(VARIABLE) or DEFAULT)
    if path.is_absolute() or (path.is_dir() and any(path.iterdir())):
        return path
    here = Path.cwd()
    copy, named = copied_from(here), Path(os.path.normpath(here / path))
    return copy[1] / named.relative_to(copy[0]) if copy and named.is_relative_to(copy[0]) else path


def copied_from(here: Path) -> tuple[Path, Path] | None:
    """The copy of the repository that a folder lies in, and the main checkout; None in the main one."""
    for folder in (here, *here.parents):
        if folder.parent.parts[-3:] == COPIES:
            return folder, folder.parents[3]
        git = folder / ".git"
        if git.is_file():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                # A worktree's file names its place in the main repository, whose own folder is `.git`.
                own = folder / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
                common = (own / (own / "commondir").read_text(encoding="utf-8").strip()).resolve()
                return (folder, common.parent) if common.name == ".git" else None
        if git.exists():
            return None
    return None


def files_of(source: str, root: str | os.PathLike | None = None,
             options: Mapping[str, Any] | None = None) -> dict[str, Path]:
    """Raw files of a source that are there, by name below the root; hidden ones are no data.

    Args:
        source: of `port.data.sources`; one without files, as `digits`, has none.
        root: as in `resolve`.
        options: of the source; those that name a file or folder count too.
    """
    base, found = resolve(root), {}
    places = [(name, base / name) for name in FILES.get(source, ())]
    places += [(f"{key}:", Path(value)) for key, value in (options or {}).items()
               if isinstance(value, str) and value and Path(value).exists()]
    for name, place in places:
        if place.is_file():
            found[name] = place
            continue
        for path in sorted(place.rglob("*")):
            inside = path.relative_to(place)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                found[f"{name}/{inside.as_posix()}"] = path
    return found


def digest(source: str, root: str | os.PathLike | None = None, options: Mapping[str, Any] | None = None
           ) -> str | None:
    """SHA-256 over names and contents of a source's raw files, 16 digits; None where there are none."""
    files = files_of(source, root, options)
    if not files:
        return None
    whole = hashlib.sha256()
    for name, path in sorted(files.items()):
        with open(path, "rb") as file:
            # The bytes of the name, whatever they are: a system's names need be no UTF-8.
            line = f"{hashlib.file_digest(file, 'sha256').hexdigest()} {name}\n"
            whole.update(line.encode("utf-8", "surrogateescape"))
    return whole.hexdigest()[:16]


@contextlib.contextmanager
def no_empty_folders(folder: Path) -> Iterator[None]:
    """Remove, after a failure, those folders down to this one that were not there and stayed empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        yield
    except BaseException:
        for path in sorted(folder.rglob("*"), reverse=True) if folder in new and folder.is_dir() else ():
            with contextlib.suppress(OSError):  # a file, or not empty
                path.rmdir()
        for path in new:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise
