"""The way back of `scae convert`: a PyTorch folder as a TensorFlow checkpoint that reads back equal."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import port
from pipelines.checkpoints import child, original
from pipelines.checkpoints.comparison import Report
from pipelines.support.values import BadInput
from port.checkpoints import convert, model_folder
from port.checkpoints.tensor_bundle import locate


def to_tf(folder: str, prefix: str, dry_run: bool, verify: bool) -> None:
    """A PyTorch folder as a TensorFlow checkpoint with the original's names and layouts.

    Raises:
        BadInput: the folder cannot be read, a checkpoint is there already, or it cannot be written.
        CheckFailed: what was written reads back otherwise.
    """
    model = original.load_folder(folder)
    with original.in_words(folder):
        names = model_folder.slot_names(folder)
        others = not any(names <= theirs for theirs in model_folder.ORIGINAL)
        slots, step = model_folder.load_slots(folder, model, names if others else None)
    if model.dtype.itemsize != 4:
        raise BadInput(f"{folder}: weights are {model.dtype}, the original's are float32")
    if others:  # a rule that TensorFlow's checkpoints of the original do not know
        print(f"{folder}: the slots {', '.join(sorted(names))} of {len(slots)} parameters left out; the original's "
              "optimizers have none of these names")
        slots = {}
    if slots and step is None:  # the original has no such checkpoint, and neither it nor this project would read one
        print(f"{folder}: {len(slots)} optimizer slots left out; the folder does not say at which step they stand")
        slots = {}
    arrays: dict[str, np.ndarray] = convert.to_tf(model) | convert.slots_to_tf(model, slots)
    if step is not None:
        arrays["global_step"] = np.int64(step)
    if dry_run:
        for name, array in sorted(arrays.items()):
            print(name, list(np.shape(array)))
        print(f"{prefix}: {len(arrays)} arrays; nothing written (--dry-run)")
        return
    target = Path(prefix)
    if target.is_dir():
        raise BadInput(f"{prefix} is a folder; name a prefix, for instance {target / 'model.ckpt-1'}")
    with original.in_words(prefix):
        if locate.is_there(target):
            raise BadInput(f"{prefix}: a checkpoint is there already; name another prefix")
        port.write_checkpoint(target, arrays)
    if not verify:
        print(f"{prefix}: {len(arrays)} arrays, unverified")
        return
    report = Report(f"Conversion of {folder}")
    section = report.section("tensors", "the folder")
    again = original.read(prefix).arrays
    for name, expected in arrays.items():
        section.add(name, "file", "bits", again.get(name), np.asarray(expected))
    report.conclude()
    said = f"{len(arrays)} arrays read back equal in every bit"
    if child.installed():
        report.add(child.ask("read back", source=prefix))
        report.conclude()
        print(f"{prefix}: done and proven ({said}, by TensorFlow too)")
    else:
        print(f"{prefix}: done, {said}; not proven: that TensorFlow reads it, which is not installed here")


def read_back(source: str) -> dict:
    """Where TensorFlow is: its own reading of a checkpoint, beside this project's."""
    from pipelines.checkpoints import proof

    report = Report("")
    proof.reading(report, original.read(source))
    return report.as_json()
