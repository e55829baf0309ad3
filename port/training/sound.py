"""Whether a training checkpoint is what was written: checksums of its files, exact shapes, ranges.

A disk, a copy or a hand may change a bit, and a run that goes on from there computes something else in
silence. So the SHA-256 of each file lies in the checkpoint, and everything is looked at before anything is
put into model, optimizer or generators. Checkpoints from before there were checksums have none; shapes and
ranges are looked at in them too.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from port.data.dataset import DataError

CHECKSUMS = "checksums.json"
FORMAT = 2  # of a checkpoint with checksums; without one it was written before there were any
OLD = ".old.tmp"  # ending of what is about to be removed


class Damaged(DataError):
    """A checkpoint that must not be used, and why."""


def write_checksums(folder: Path) -> None:
    """The SHA-256 of every file in a folder, as one file more."""
    sums = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    (folder / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path) -> None:
    """Compare the files of a checkpoint with their checksums, where there are any.

    Raises:
        Damaged: a file that differs, is missing or was added.
    """
    try:
        known = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        there = {path.name for path in folder.iterdir()} - {CHECKSUMS}
        if not isinstance(known, dict) or known.keys() != there:
            raise Damaged(f"its files are not those that {CHECKSUMS} lists")
        for name, digest in known.items():
            if sha256(folder / name) != digest:
                raise Damaged(f"{name} is not as it was written")
    except FileNotFoundError:
        return  # one that should be there is missed by what the format says
    except (OSError, ValueError) as error:
        raise error if isinstance(error, Damaged) else Damaged(f"{CHECKSUMS} cannot be read ({error})") \
            from None


def check_tensors(what: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Names, shapes and types, exactly: a shape that would broadcast is another shape.

    Raises:
        Damaged: naming the first difference.
    """
    odd = sorted(found.keys() ^ expected.keys())
    if odd:
        raise Damaged(f"{what}: {odd[0]} is {'not of this run' if odd[0] in found else 'missing'}")
    for name, tensor in expected.items():
        if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
            raise Damaged(f"{what}: {name} is {_kind(found[name])}, not {_kind(tensor)}")


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def check_position(state: Any, step: int, has_checksums: bool) -> None:
    """What state.json says: step, seconds, running sums, history.

    Args:
        state: as read.
        step: that the folder's name says.
        has_checksums: whether the checkpoint has them.

    Raises:
        Damaged: a value that no run has.
    """
    def whole(value: Any, high: int) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= high

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(state, dict):
        raise Damaged("state.json holds no values by name")
    if state.get("format", 1) >= FORMAT and not has_checksums:
        raise Damaged(f"{CHECKSUMS} is missing")
    history, names, seconds = (state.get(key) for key in ("history", "names", "seconds"))
    wrong = {
        "step": state.get("step") != step or not whole(state.get("step"), step),
        "seconds": not number(seconds) or not math.isfinite(seconds) or seconds < 0,
        "count": not whole(state.get("count"), step),
        "names": not isinstance(names, list) or not all(isinstance(name, str) for name in names),
        "history": not isinstance(history, list) or not all(
            isinstance(row, dict) and whole(row.get("step"), step) and all(map(number, row.values()))
            for row in history)}
    for key, is_wrong in wrong.items():
        if is_wrong:
            value = state.get(key)
            raise Damaged(f"state.json: {key} {str(value)[:60]!r} cannot be at step {step}")


def check_streams(streams: Mapping[str, Tensor], expected: Mapping[str, Tensor],
                  generators: Mapping[str, torch.Generator], limits: list[int], names: list[str]) -> None:
    """Generators, place in the data, running sums.

    Args:
        streams: as read.
        expected: those of a run that begins.
        generators: one of the kind, for each state among the streams; none is changed.
        limits: the highest value of each number of `batches/where`.
        names: of the running sums.

    Raises:
        Damaged: a value that no run has.
    """
    sums = streams.get("sums")
    if sums is not None and (sums.shape != (len(names),) or sums.dtype != torch.float32):
        raise Damaged(f"streams: sums is {_kind(sums)}, not {[len(names)]} float32")
    check_tensors("streams", {name: value for name, value in streams.items() if name != "sums"},
                  {name: value for name, value in expected.items() if name != "sums"})
    where = streams["batches/where"].tolist()
    if not all(0 <= value <= limit for value, limit in zip(where, limits, strict=True)):
        raise Damaged(f"streams: the place in the data {where} lies outside 0..{limits}")
    for name, generator in generators.items():
        try:
            torch.Generator(generator.device).set_state(streams[name])
        except (RuntimeError, TypeError) as error:
            raise Damaged(f"streams: {name} is no state of a generator ({str(error).splitlines()[0]})") \
                from None


def discard(folder: Path) -> None:
    """Remove a folder so that a kill in between leaves no half of it under its name."""
    away = folder.with_name(f".{folder.name}{OLD}")
    shutil.rmtree(away, ignore_errors=True)
    try:
        os.replace(folder, away)
    except FileNotFoundError:
        return
    shutil.rmtree(away, ignore_errors=True)


def clear(folder: Path, name: str) -> None:
    """Remove what a process that was killed left of a folder's child while it removed that."""
    shutil.rmtree(folder / f".{name}{OLD}", ignore_errors=True)
