"""Where the checkpoints of a run lie: its name, and what to do with those of a run on other data."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.support.values import BadInput
from port.constellation import batches as constellation_batches
from port.core import swap
from port.data import dataset as data
from port.data import standard_sets
from port.training import loop as train
from port.training import resume


def checkpoints(runs: Path, preset: str, seed: int, decides: list[dict],
                dataset: data.Dataset | constellation_batches.Dataset | None, kept: bool) -> Path:
    """The folder `<preset>-<seed>-<identity>` below `runs`; the data set is part of the identity.

    An earlier version left the data out, and a run that it began goes on.

    Args:
        runs: where checkpoints go.
        preset: its name.
        seed: of the run.
        decides: what else decides the run (`port.training.loop.identity`).
        dataset: that it trains on; one that is drawn is decided by its settings.
        kept: `runs` belongs to this run alone, so that other data there are a mistake.

    Raises:
        BadInput: the run was begun on other data.
    """
    before = runs / f"{preset}-{seed}-{train.identity(*decides)}"
    if not isinstance(dataset, data.Dataset):
        return before
    own = standard_sets.digest_of(dataset)
    folder = runs / f"{preset}-{seed}-{train.identity(*decides, {'data': own})}"
    if resume.checkpoints(folder):
        return folder
    if resume.checkpoints(before) and made_on(before) in (None, own):
        return before
    for other in sorted(runs.iterdir()) if runs.is_dir() else ():
        if run_of(other) != f"{preset}-{seed}" or made_on(other) in (None, own):
            continue
        if kept:
            raise BadInput(f"{other} was begun on other data than there are now ({made_on(other)}, not "
                           f"{own}); put the data back, or begin a new run under another name")
        if os.environ.get("RANK", "0") == "0":
            print(f"train: {other} was begun on other data ({made_on(other)}, now {own}) and is left as it "
                  "is; this run begins anew", flush=True)
    return folder


def run_of(checkpoints: Path) -> str:
    """`preset-seed`, of which a folder `<preset>-<seed>-<identity>` holds the checkpoints."""
    return checkpoints.name.rpartition("-")[0]


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A place where nothing is yet; what the block makes there takes the place of `folder`, whole or not at all."""
    with swap.swapped(folder, own=("*",)) as new:
        new.rmdir()
        yield new


def made_on(folder: Path) -> str | None:
    """Digest of the data that the newest checkpoint in a folder was made on, where it says so."""
    found = resume.checkpoints(folder)
    return data_of(found[-1]) if found else None


def data_of(checkpoint: Path) -> str | None:
    """Digest of the data that a checkpoint was made on, where it says so."""
    try:
        return json.loads((checkpoint / "state.json").read_text(encoding="utf-8")).get("data") or None
    except (OSError, ValueError, AttributeError):
        return None


def check_data(checkpoint: Path, dataset: data.Dataset | constellation_batches.Dataset) -> None:
    """Refuse to measure a checkpoint on other data than it was made on, where both say which.

    Raises:
        BadInput: they are others.
    """
    known = data_of(checkpoint)
    if known and isinstance(dataset, data.Dataset) and known != standard_sets.digest_of(dataset):
        raise BadInput(f"{checkpoint} was made on other data than there are now ({known}, not "
                       f"{standard_sets.digest_of(dataset)}); put the data back, or remove {checkpoint.parent} to "
                       "train anew")
