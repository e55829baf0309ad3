"""TensorFlow checkpoints as named NumPy arrays, in and out.

Only in `reference`: the port reads what this module hands over, without TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf


class CheckpointError(ValueError):
    """A checkpoint that cannot be read; the message says what, where and what to do."""


def find_checkpoint(path: str | Path) -> str:
    """The prefix of a checkpoint, from the prefix itself, one of its files or its folder.

    Args:
        path: `…/model.ckpt-300001`, `…/model.ckpt-300001.index`, or the folder.

    Raises:
        CheckpointError: nothing there, or several checkpoints and none is named the latest.
    """
    path = Path(path)
    if path.suffix == ".index" and path.exists():
        return str(path.with_suffix(""))
    if path.is_dir():
        prefixes = sorted(index.with_suffix("") for index in path.glob("*.index"))
        if len(prefixes) > 1:
            state = path / "checkpoint"
            latest = _latest(state.read_text()) if state.is_file() else None
            prefixes = [prefix for prefix in prefixes if prefix.name == latest] or prefixes
        if len(prefixes) == 1:
            return str(prefixes[0])
        found = ", ".join(prefix.name for prefix in prefixes) or "no .index file"
        raise CheckpointError(f"{path}: expected one checkpoint, found {found}; name its prefix, "
                              "for instance model.ckpt-300001")
    if path.with_name(path.name + ".index").is_file() or path.is_file():
        return str(path)
    raise CheckpointError(f"{path}: no checkpoint there; expected {path.name}.index and "
                          f"{path.name}.data-00000-of-00001, or a folder that holds them")


def _latest(state: str) -> str | None:
    """File name of the latest checkpoint in a `checkpoint` file; only the name, never a path."""
    for line in state.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model_checkpoint_path":
            return Path(value.strip().strip('"')).name
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
    prefix = find_checkpoint(path)
    try:
        reader = tf.train.load_checkpoint(prefix)
        names = sorted(reader.get_variable_to_shape_map())
        return {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, RuntimeError, ValueError, SystemError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{prefix}: cannot be read ({reason}); the file is damaged or a shard "
                              "is missing, copy the checkpoint again") from error


def write_checkpoint(prefix: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a V2 checkpoint.

    Args:
        prefix: written as `<prefix>.index` and `<prefix>.data-00000-of-00001`; the folder is made.
        arrays: name → value.
    """
    Path(prefix).parent.mkdir(parents=True, exist_ok=True)
    names = list(arrays)
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names),
                      tensors=[tf.convert_to_tensor(arrays[name]) for name in names])
