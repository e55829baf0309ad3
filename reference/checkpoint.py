"""TensorFlow checkpoints as named NumPy arrays, in and out, by TensorFlow itself.

The port has a reader and a writer of its own, `port.checkpoints`; this one is what they are compared with.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf

_SHARD = r"-(\d{5})-of-(\d{5})"
# What `tf.train.Saver` calls a checkpoint; in a folder without an index one of format V1.
_SAVED = re.compile(r"(.*ckpt-\d+)(?:" + _SHARD + ")?")


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message says what, where and what to do."""


def find_checkpoint(path: str | Path) -> str:
    """The prefix of a checkpoint, from the prefix itself, one of its files or its folder.

    Args:
        path: `…/model.ckpt-300001` (format V2, or V1, which is one file or shards of it),
            `…/model.ckpt-300001.index`, or the folder.

    Raises:
        CheckpointError: nothing there, several checkpoints and none is named the latest, or a
            `checkpoint` file that names one outside its folder.
    """
    path = Path(path)
    try:
        if path.suffix == ".index" and path.is_file():
            return str(path.with_suffix(""))
        if path.is_dir():
            return _in_folder(path)
        if is_there(path):
            return str(path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be opened ({error.strerror})") from error
    raise CheckpointError(f"{path}: no checkpoint there; expected {path.name}.index and "
                          f"{path.name}.data-00000-of-00001, or a folder that holds them")


def is_there(prefix: Path) -> bool:
    """Whether the files of a checkpoint lie at this prefix, in either format."""
    return (prefix.with_name(prefix.name + ".index").is_file() or prefix.is_file()
            or bool(v1_shards(prefix)))


def v1_shards(prefix: Path) -> list[Path]:
    """Shards of the V1 format, `<prefix>-00000-of-00002`; V2 has `.data-…` and an index."""
    pattern = re.compile(re.escape(prefix.name) + _SHARD)
    return sorted(file for file in prefix.parent.iterdir() if pattern.fullmatch(file.name)
                  ) if prefix.parent.is_dir() else []


def files_of(prefix: str | Path) -> list[Path]:
    """The files of a checkpoint that hold its tensors, sorted; the graph (`.meta`) is none of them."""
    prefix = Path(prefix)
    v2 = [file for file in prefix.parent.iterdir() if file.name == prefix.name + ".index"
          or file.name.startswith(prefix.name + ".data-")]
    return sorted(v2) or v1_shards(prefix) or [prefix]


def _in_folder(folder: Path) -> str:
    """The one checkpoint of a folder, or the latest of several."""
    latest = _latest(folder)
    if latest is not None and is_there(folder / latest):
        return str(folder / latest)
    prefixes = sorted(index.with_suffix("") for index in folder.glob("*.index"))
    if not prefixes:
        prefixes = sorted({folder / match[1] for file in folder.iterdir()
                           if file.is_file() and (match := _SAVED.fullmatch(file.name))})
    if len(prefixes) == 1:
        return str(prefixes[0])
    found = ", ".join(prefix.name for prefix in prefixes) or "no .index file"
    raise CheckpointError(f"{folder}: expected one checkpoint, found {found}; name its prefix, "
                          "for instance model.ckpt-300001")


def _latest(folder: Path) -> str | None:
    """Name of the latest checkpoint as the folder's `checkpoint` file has it.

    A run that was moved leaves its old absolute path there: then the name counts. A path that leads
    out of the folder to something that exists is never followed.

    Raises:
        CheckpointError: the path leads out of the folder.
    """
    state = folder / "checkpoint"
    if not state.is_file():
        return None
    try:
        text = state.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None  # a V1 checkpoint may be called so
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() != "model_checkpoint_path":
            continue
        named = Path(value.strip().strip('"'))
        target = (folder / named).resolve()
        outside = target.parent != folder.resolve()
        if outside and (not named.is_absolute() or is_there(target)):
            raise CheckpointError(f"{state} names {named}, which is not in this folder, so it is not "
                                  "read; name the checkpoint's own prefix")
        return named.name
    return None


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a checkpoint by name: variables, slots, averages, step.

    Args:
        path: see `find_checkpoint`.

    Returns:
        name → array, sorted by name.

    Raises:
        CheckpointError: missing, incomplete or damaged files.
    """
    prefix, shards = find_checkpoint(path), ""
    if not (Path(prefix + ".index").is_file() or Path(prefix).is_file()):
        found = v1_shards(Path(prefix))
        expected = int(found[0].name[-5:])
        if len(found) != expected:
            raise CheckpointError(f"{prefix}: cannot be read ({len(found)} of {expected} shards); copy "
                                  "the checkpoint again")
        shards = "-?????-of-?????"
    try:
        with _no_pattern(prefix) as plain:
            reader = tf.compat.v1.train.NewCheckpointReader(plain + shards)
            names = sorted(reader.get_variable_to_shape_map())
            return {name: np.asarray(reader.get_tensor(name)) for name in names}
    except Exception as error:  # TensorFlow maps what is wrong with a file to a dozen types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{prefix}: cannot be read ({reason}); the file is damaged or a shard "
                              "is missing, copy the checkpoint again") from error


@contextlib.contextmanager
def _no_pattern(prefix: str) -> Iterator[str]:
    """The prefix, or another one for the same files: TensorFlow takes a path for a pattern."""
    if not set(prefix) & set("*?[]\\"):
        yield prefix
        return
    with tempfile.TemporaryDirectory() as made:
        for file in files_of(prefix):
            os.symlink(file.resolve(), Path(made) / f"ckpt{file.name.removeprefix(Path(prefix).name)}")
        yield f"{made}/ckpt"


def write_checkpoint(prefix: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a V2 checkpoint: both files, or none.

    Args:
        prefix: written as `<prefix>.index` and `<prefix>.data-00000-of-00001`; the folder is made.
        arrays: name → value.
    """
    prefix = Path(prefix)
    prefix.parent.mkdir(parents=True, exist_ok=True)
    names = list(arrays)
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix=f".{prefix.name}.") as made:
        tf.raw_ops.SaveV2(prefix=f"{made}/{prefix.name}", tensor_names=names,
                          shape_and_slices=[""] * len(names),
                          tensors=[tf.convert_to_tensor(arrays[name]) for name in names])
        # The index last: without it there is no checkpoint.
        for file in sorted(Path(made).iterdir()):
            os.replace(file, prefix.with_name(file.name))
