"""Runs of one program under one configuration: a value of every column in every window of every run."""

from __future__ import annotations

import csv
import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.support.values import BadInput

FIXTURES = Path(__file__).parents[1] / "fixtures" / "curves"  # runs that are committed
STEPS, WINDOW = 1200, 50
# The original's own report under its own names, the norm of its gradients, and reductions that its driver added
# (`own_…`). Two of those are left out (`own_h_batch_sd`, `own_vote_batch_sd`): their divisor is not recorded.
COLUMNS = ("loss", "rec_ll", "log_prob", "dynamic_weights_l2", "grad_global_norm", "primary_caps_l1",
           "posterior_within_sparsity_loss", "posterior_between_sparsity_loss", "prior_within_sparsity_loss",
           "prior_between_sparsity_loss", "posterior_cls_xe", "prior_cls_xe", "posterior_cls_acc", "prior_cls_acc",
           "own_parts_active", "own_obj_presence_sum", "own_obj_active", "own_posterior_mass", "own_vote_scale",
           "own_caps_hidden_dead")


@dataclass(frozen=True)
class Bundle:
    """Runs that differ in their seeds alone.

    Attributes:
        names: of the runs, as `seed_3`.
        columns: of the values.
        values: `[runs, windows, columns]`, each the mean over the 50 steps of a window of what was measured
            before each update.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """`[runs, windows]` of a column."""
        return self.values[..., self.columns.index(name)]

    def of(self, runs: list[int]) -> Bundle:
        """Some of the runs, by their place."""
        return Bundle(tuple(self.names[i] for i in runs), self.columns, self.values[runs])

    def __len__(self) -> int:
        return len(self.names)

    def save(self, path: str | os.PathLike) -> None:
        """Write an `.npz` without pickled objects; float32, which the recorded digits need."""
        np.savez_compressed(path, names=np.array(self.names), columns=np.array(self.columns),
                            values=self.values.astype(np.float32))


def read(path: str | os.PathLike) -> Bundle:
    """What `Bundle.save` wrote.

    Raises:
        OSError: no such file.
        BadInput: another file, a damaged one, or runs of another length.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as held:
            found = Bundle(tuple(map(str, held["names"])), tuple(map(str, held["columns"])),
                           held["values"].astype(np.float64))
    except (KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_bundle(path, " ".join(str(error).split())[:120]) from None
    shape = (len(found.names), STEPS // WINDOW, len(found.columns))
    if found.values.shape != shape or not found.names:
        raise _no_bundle(path, f"values of shape {found.values.shape} in place of {shape}, runs first")
    missing = [name for name in COLUMNS if name not in found.columns]
    if missing:
        raise _no_bundle(path, f"no column {missing[0]}")
    return found


def _no_bundle(path: str | os.PathLike, why: str) -> BadInput:
    return BadInput(f"{path} holds no runs ({why}); `python -m parity_tests.curves learn` writes such a file")


def from_csv(paths: list[Path]) -> Bundle:
    """Runs as the original's driver recorded them, one file a run, a row a window.

    Raises:
        ValueError: a file without one of the columns, or with another number of windows.
    """
    runs = []
    for path in paths:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        missing = [name for name in COLUMNS if not rows or name not in rows[0]]
        if missing or [int(row["step"]) for row in rows] != list(range(WINDOW, STEPS + 1, WINDOW)):
            raise ValueError(f"{path}: " + (f"no column {missing[0]}" if missing else
                                            f"expected a row for every {WINDOW} of {STEPS} steps"))
        runs.append([[float(row[name]) for name in COLUMNS] for row in rows])
    return Bundle(tuple(f"{path.parent.name}/{path.stem}" for path in paths), COLUMNS, np.array(runs))
