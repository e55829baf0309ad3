"""What the stage `evaluate` leaves to be looked at: confusions, places in the plane, and lines on the terminal."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from pipelines.evaluation.baselines import EDGES
from pipelines.support import sections
from pipelines.support.measured import REASONS, lines, put, shown
from port.core import files
from port.evaluation import clustering as evaluate
from port.evaluation.collected import Collected

KINDS = ("posterior", "prior")


def write_tsne(path: Path, test: Collected, wanted: sections.Evaluate, measured: dict) -> None:
    """Places of some test images in the plane, by t-SNE of each kind of presence: one row each.

    A kind without a map has its reason in `measured`; without any, or with few images, there is no file.
    """
    n = min(wanted.tsne_images, len(test.labels))
    places: dict[str, np.ndarray] = {}
    if n >= 3:
        chosen = np.sort(np.random.default_rng(wanted.seed).choice(len(test.labels), n, replace=False))
        found: dict = {}
        for kind in KINDS:
            if put(found, kind, lambda kind=kind: evaluate.tsne(getattr(test, kind)[chosen],
                                                                wanted.seed)) is not None:
                places[kind] = found[kind]
        reasons = {f"tsne.{kind}": reason for kind, reason in found.get(REASONS, {}).items()}
        if reasons:
            measured[REASONS] = measured.get(REASONS, {}) | reasons
    if not places:
        path.unlink(missing_ok=True)
        return
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["presence", "example", "label", "x", "y"])
    for kind, found_places in places.items():
        for example, (x, y) in zip(chosen, found_places):
            writer.writerow([kind, example, test.labels[example], f"{x:.4f}", f"{y:.4f}"])
    files.write_text(path, rows.getvalue())


def confusion(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts `[true, predicted]`; the last column counts clusters without a class."""
    table = np.zeros((n_classes, n_classes + 1), np.int64)
    np.add.at(table, (labels, np.where(predicted < 0, n_classes, predicted)), 1)
    return table


def write_confusions(path: Path, confusions: dict[str, np.ndarray]) -> None:
    """One row per cell: which clustering, true class, class given, count."""
    cells = io.StringIO()
    writer = csv.writer(cells)
    writer.writerow(["clustering", "actual", "predicted", "count"])
    for name, table in confusions.items():
        for true, row in enumerate(table):
            for predicted, count in enumerate(row):
                if predicted < len(table) or count:
                    writer.writerow([name, true, predicted if predicted < len(table) else -1, count])
    files.write_text(path, cells.getvalue())


def say(measured: dict) -> None:
    """The accuracies as a table of a dozen lines at most."""
    protocols = measured["protocols"]
    print(f"evaluate: {measured['preset']}, seed {measured['seed']}, accuracy at step 0 -> end [interval]; "
          + ", ".join(f"{name} protocol: {found['final']['test_images']} test images"
                      for name, found in protocols.items()))
    names = dict.fromkeys(name for moments in protocols.values() for name, value in moments["final"].items()
                          if isinstance(value, dict))
    for name in names:
        cells = []
        for protocol, moments in protocols.items():
            first, last = (moments[moment].get(name) for moment in ("initial", "final"))
            if first and last:
                cells.append(f"{protocol} {first['value']:.3f} -> {last['value']:.3f} "
                             f"[{last['low']:.3f}, {last['high']:.3f}]")
        print(f"  {name:20s} {'  '.join(cells)}")
    for name, found in measured["baseline"].items():
        print(f"  {'' if name == EDGES else 'raw pixels, '}{name}: " + ", ".join(
            f"{key} {shown(value)}" for key, value in found.items() if key != "fitted_on"))
    for line in lines(measured):
        print(f"  {line}")
    missed = [check for check in measured["checks"] if not check["passed"]]
    print(f"  {len(measured['checks']) - len(missed)} of {len(measured['checks'])} checks passed"
          + "".join(f"; {'FAILED' if check['required'] else 'below'}: {check['says']}" for check in missed))
