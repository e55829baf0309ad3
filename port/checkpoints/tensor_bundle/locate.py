"""From what a user names to the files of one checkpoint. A path is taken as it is, never as a pattern."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import NamedTuple

from port.checkpoints.tensor_bundle import kinds
from port.checkpoints.tensor_bundle.bundle import INDEX
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable
from port.checkpoints.tensor_bundle.source import Source
from port.checkpoints.tensor_bundle.table import is_table

STATE = "checkpoint"
# What a state file holds is a few lines; more is none.
MOST_STATE = 1 << 20
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})", re.DOTALL)
_DATA = re.compile(r"(.+)\.data-\d{5}-of-\d{5}", re.DOTALL)
# What `tf.train.Saver` calls a checkpoint; in a folder without an index one of format V1.
_SAVED = re.compile(r"(.*ckpt-\d+)(?:-\d{5}-of-\d{5})?", re.DOTALL)
_PATH = re.compile(rb"""\s*model_checkpoint_path\s*:\s*("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')\s*\Z""")
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)")
_LETTERS = {b"n": b"\n", b"t": b"\t", b"r": b"\r"}


class Place(NamedTuple):
    """Where a checkpoint lies.

    Attributes:
        prefix: what its files' names begin with.
        tables: the files of format V1; empty for V2.
    """

    prefix: Path
    tables: tuple[Path, ...] = ()


def shown(path: Path) -> str:
    """A path, fit for a terminal."""
    return printable(str(path), 1000)


def find(path: str | os.PathLike) -> Place:
    """The checkpoint that a path names: its prefix, its folder, one of its files, or a `checkpoint` file.

    Raises:
        CheckpointError: nothing there, something else, several, or a file that names one elsewhere.
    """
    path = Path(path)
    try:
        return _find(path)
    except OSError as error:
        raise CheckpointError(f"{shown(path)}: cannot be opened ({error.strerror or error})") from None
    except ValueError as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{shown(path)}: no path ({error})") from None  # a zero byte


def _find(path: Path) -> Place:
    if path.is_dir():
        return _in_folder(path)
    found = at_prefix(path)
    if found is not None and not found.tables:
        return found
    if path.exists():
        return _of_file(path)
    if found is not None:
        return found
    name = printable(path.name)
    raise CheckpointError(f"{shown(path)}: no checkpoint there; expected {name}{INDEX} and "
                          f"{name}.data-00000-of-00001, or a folder that holds them")


def at_prefix(prefix: Path) -> Place | None:
    """The checkpoint whose files begin with a prefix, in either format.

    Raises:
        CheckpointError: shards of format V1 are missing.
    """
    if Path(f"{prefix}{INDEX}").is_file():
        return Place(prefix)
    if prefix.is_file() and is_table(Source(prefix)):
        return Place(prefix, (prefix,))
    shards = v1_shards(prefix)
    if not shards:
        return None
    expected = int(shards[0].name[-5:])
    if len(shards) != expected:
        raise CheckpointError(f"{shown(prefix)}: cannot be read ({len(shards)} of {expected} shards); copy "
                              "the checkpoint again")
    return Place(prefix, tuple(shards))


def v1_shards(prefix: Path) -> list[Path]:
    """Shards of format V1, `<prefix>-00000-of-00002`; V2 has `.data-…` and an index."""
    if not prefix.parent.is_dir():
        return []
    return sorted(file for file in prefix.parent.iterdir()
                  if (match := _SHARD.fullmatch(file.name)) and match[1] == prefix.name)


def _of_file(path: Path) -> Place:
    """The checkpoint that a file is of."""
    folder, name = path.parent, path.name
    stems = [name.removesuffix(end) for end in (INDEX, ".meta") if name.endswith(end)]
    stems += [match[1] for match in (_DATA.fullmatch(name),) if match]
    for stem in stems:
        found = at_prefix(folder / stem) if stem else None
        if found is not None:
            return found
    if not path.is_file():
        raise CheckpointError(f"{shown(path)}: no regular file")
    if _DATA.fullmatch(name):
        raise CheckpointError(f"{shown(path)}: the data of a checkpoint without its index; "
                              f"{printable(stems[-1])}{INDEX} is not there")
    source = Source(path)
    if is_table(source):
        match = _SHARD.fullmatch(name)
        return (at_prefix(folder / match[1]) if match else None) or Place(path, (path,))
    if source.size <= MOST_STATE and (named := latest(path)) is not None:
        return _named(path, named)
    raise CheckpointError(f"{shown(path)}: {kinds.kind_of_file(path)}, no TensorFlow checkpoint; expected "
                          "the prefix or folder of what tf.train.Saver wrote (model.ckpt-N.index and "
                          "model.ckpt-N.data-00000-of-00001)")


def _in_folder(folder: Path) -> Place:
    """The one checkpoint of a folder, or the latest of several."""
    state = folder / STATE
    if state.is_file() and state.stat().st_size <= MOST_STATE and (named := latest(state)) is not None:
        return _named(state, named)
    files = [file for file in folder.iterdir() if file.is_file()]
    names = sorted({file.name.removesuffix(INDEX) for file in files if file.name.endswith(INDEX)} - {""})
    if not names:
        names = sorted({match[1] for file in files if (match := _SAVED.fullmatch(file.name))
                        and is_table(Source(file))})
    if len(names) == 1:
        found = at_prefix(folder / names[0])
        if found is not None:
            return found
    kind = kinds.kind_of_folder(folder)
    if not names and kind:
        raise CheckpointError(f"{shown(folder)}: {kind}; expected the folder of a checkpoint")
    listed = ", ".join(map(printable, names[:5])) + ", …" * (len(names) > 5)
    raise CheckpointError(f"{shown(folder)}: expected one checkpoint, found "
                          f"{listed or 'no .index file'}; name its prefix, for instance model.ckpt-300001")


def latest(state: Path) -> Path | None:
    """What a `checkpoint` file names as the latest; None where it is no such file."""
    for line in state.read_bytes().split(b"\n"):
        match = _PATH.match(line)
        if match:
            raw = _ESCAPE.sub(_unescaped, match[1][1:-1])
            return Path(os.fsdecode(raw)) if raw and b"\0" not in raw else None
    return None


def _unescaped(match: re.Match[bytes]) -> bytes:
    text = match[1]
    if text[:1].isdigit():
        return bytes([int(text, 8) & 0xFF])
    if text[:1] == b"x" and len(text) > 1:
        return bytes([int(text[1:], 16)])
    return _LETTERS.get(text, text)


def _named(state: Path, named: Path) -> Place:
    """The checkpoint that a `checkpoint` file names, which has to lie in the same folder.

    A run that was moved leaves its old absolute path there: then the name counts. A path that leads out of
    the folder to something that exists is never followed.

    Raises:
        CheckpointError: it leads out, or to nothing.
    """
    folder = state.parent
    target = Path(os.path.normpath(folder.resolve() / named))
    if target.parent != folder.resolve() and (not named.is_absolute() or is_there(target)):
        raise CheckpointError(f"{shown(state)} names {shown(named)}, which is not in this folder, so it is "
                              "not read; name the checkpoint's own prefix")
    found = at_prefix(folder / named.name) if named.name else None
    if found is None:
        raise CheckpointError(f"{shown(state)} names {printable(named.name)}, which is not there; name the "
                              "prefix of the checkpoint that is meant")
    return found


def is_there(prefix: Path) -> bool:
    """Whether any file of a checkpoint lies at a prefix; a place that may not be looked at counts."""
    try:
        return prefix.exists() or Path(f"{prefix}{INDEX}").exists() or bool(v1_shards(prefix))
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG  # which no file can have
