"""`scae verify --golden DIR`: both sides against a folder of records of CapsNet or matrix capsules.

Such a folder holds a manifest.json with `records` and one .npz for each (docs/routing_ancestors.md). Each
record is one function on recorded inputs: values, gradients, or a whole network with five optimizer steps.
There is one row a record and side: the difference nearest to its bound, over the array's largest value.
"""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pipelines.checkpoints import child
from pipelines.checkpoints.comparison import Report, Row
from pipelines.support.values import BadInput

SIDES = ("reference", "port")


def run(folder: str, json_file: str | None = None, html_file: str | None = None) -> None:
    """Compare every record, print the table, write it, and say whether all agrees.

    Raises:
        BadInput: no folder of records, or one that nothing here can compare.
        CheckFailed: naming the first record that differs.
    """
    child.ask("records", folder=folder, json_file=json_file, html_file=html_file)


def compare_all(folder: str, json_file: str | None, html_file: str | None) -> None:
    """The comparison itself, where TensorFlow is."""
    found, verify = records_in(Path(folder))
    report = Report(f"Records in {Path(folder).resolve().name}",
                    {"recording": Path(folder).resolve().name, "family": found[0].family})
    section = report.section(f"{len(found)} records, differences over an array's largest value",
                             "the record", "records")
    for record in found:
        for side in SIDES:
            row = compare(record, side, verify)
            section.rows.append(row)
            print(f"{record.name:40} {side:10} {row.max_rel:9.1e} of {row.bound:.0e}  {row.verdict}"
                  f"{'  ' * bool(row.note)}{row.note}", flush=True)
    report.write(json_file, html_file)
    report.conclude()
    print(f"{folder}: verified, {len(found)} records agree on both sides")


def records_in(folder: Path) -> tuple[list, Callable]:
    """The records of a folder, and the function that compares one on a side.

    Raises:
        BadInput: no manifest, one of another kind, a record of an unknown function, or a missing or damaged
            file.
    """
    from parity_tests.goldens import capsnet as golden_capsnet
    from parity_tests.goldens import em as golden_em
    from parity_tests.goldens import verify_capsnet, verify_em
    from parity_tests.goldens.routing import RoutingRecord

    path = folder / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{folder}: no manifest.json; expected a folder of records")
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["records"]
        names = [entry["name"] for entry in entries]
        files = [folder / entry["file"] for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise BadInput(f"{path}: no list of records; a recording of a whole model is verified with CKPT "
                       "and OUT") from None
    if not names:
        raise BadInput(f"{path}: an empty list of records")
    known = {"capsnet": (tuple(golden_capsnet.RUNS), verify_capsnet.verify),
             "em": ((*golden_em.RECIPES, *golden_em.ELSEWHERE), verify_em.verify)}
    family = max(known, key=lambda kind: sum(name.startswith(known[kind][0]) for name in names))
    beginnings, verify = known[family]
    for name, file in zip(names, files):
        if not name.startswith(beginnings):
            raise BadInput(f"{path}: {name} is a record of a function that nothing here compares; known "
                           f"names begin with {', '.join(sorted(beginnings))}")
        if not file.is_file():
            raise BadInput(f"{file}: the record {name} is in the manifest, its file is not there")
        try:
            with file.open("rb") as opened:
                arrays = np.load(opened, allow_pickle=False)
                for key in arrays.files:
                    arrays[key]
        except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
            raise BadInput(f"{file}: no .npz of arrays, or a damaged one ({error})") from None
    return [RoutingRecord(family, folder, entry) for entry in entries], verify


def compare(record, side: str, verify: Callable) -> Row:
    """One record on one side as a row, in units of an array's largest value."""
    from parity_tests.harness import recorder
    from parity_tests.harness.compare import ParityError

    with recorder.aside():
        recorder.reset()
        note = ""
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                verify(record, side)
        except ParityError as error:
            note = " ".join(str(error).split())[:400]
        except (AssertionError, KeyError, ValueError, OSError) as error:
            note = f"cannot be compared: {' '.join(str(error).split())[:300]}"
        seen = max(recorder.STATE["goldens"].values(), key=lambda entry: entry["worst_margin"],
                   default={"worst_margin": 0.0})
    bound = seen.get("bound", 0.0)
    worst = float("inf") if note else seen["worst_margin"] * bound
    return Row(record.name, side, record.dtype, worst, worst, worst / np.finfo(record.dtype).eps, bound,
               "fail" if note else "pass" if worst else "exact", note)
