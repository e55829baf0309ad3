"""Rows of ablations and soaks that a visit brought become results here.

What was trained and not measured is measured here. A row or soak is refused whose settings are not those of the
section or preset here, and one that would stand in another's place, unless it may replace it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from pipelines import soak
from pipelines.evaluation import row_measures
from pipelines.support import run_folders, settings
from pipelines.support.values import BadInput, load_params
from pipelines.training import rows
from pipelines.visit import parcel
from port.checkpoints import run_files
from port.configuration.fields import ConfigError
from port.data.dataset import DataError

SECTIONS = ("ablation", "ablation_small")


class Found(NamedTuple):
    """A result of a parcel.

    Attributes:
        path: below a folder of results.
        why_not: why a folder does not hold this very row or soak; None where it does.
    """

    path: Path
    why_not: Callable[[Path], str | None]


class Taken(NamedTuple):
    """What became of the rows and soaks of a parcel.

    Attributes:
        new: folders that were not here.
        refused: those that are not here now, with the reason.
        any: whether there were any at all.
    """

    new: list[Path]
    refused: list[str]
    any: bool


def take_in(work: Path, results: Path, params: str, replace: bool = False, measure: bool = True) -> Taken:
    """Put every row and soak of an unpacked parcel into the results.

    Args:
        work: the unpacked parcel.
        results: folder of the results here.
        params: file of presets and sections.
        replace: in place of others that are there.
        measure: what is trained and not measured, too.

    Returns:
        What became of them.
    """
    waiting = row_measures.waiting(work / "checkpoints")
    for checkpoints in waiting if measure else ():
        try:
            row_measures.measure_trained(checkpoints, work / "results")
        except (BadInput, DataError) as error:
            print(f"bring_home: {checkpoints.name} is trained and not measured: {error}", flush=True)
    left = len(waiting) if not measure else 0
    under_way = sum(parcel.is_beside(checkpoint) and not parcel.waits(checkpoint)
                    for checkpoint in parcel.newest_checkpoints(work))
    new, refused, same = list[Path](), list[str](), 0
    for found in (*rows_in(work / "results", params), *soaks_in(work / "results", params)):
        source, target = work / "results" / found.path, results / found.path
        why = found.why_not(source)
        if why is None and target.exists() and not replace:
            device = [rows.device_of(place) for place in (source, target)]
            if found.why_not(target) is None and device[0] == device[1]:
                same += 1
                continue
            why = (f"one trained on {device[1]} is there, this is from {device[0]}" if found.why_not(target) is None
                   else "one with other settings is there") + "; move it away, or take --replace"
        if why is not None:
            refused.append(f"{found.path}: {why}")
            continue
        with run_folders.replaced(target) as filled:
            shutil.copytree(source, filled)
        new.append(target)
    if new or same or left or under_way:
        print(f"bring_home: rows and soaks: {len(new)} new in {results}, {same} here already, {left} not measured, "
              f"{under_way} under way, with which the next visit goes on", flush=True)
    return Taken(new, refused, bool(new or refused or same or left or under_way))


def rows_in(place: Path, params: str) -> Iterator[Found]:
    """Rows below a folder of results, each with a look at its settings."""
    given = load_params(params)
    by_folder = {wanted.folder: wanted for name in SECTIONS if given.get(name)
                 for wanted in [rows.section(params, name=name)]}
    for path in sorted(place.glob("ablation*/*/*/metrics.json")):
        folder, name, seed = path.parent.relative_to(place).parts

        def why_not(at: Path, folder: str = folder, name: str = name, seed: str = seed) -> str | None:
            if folder not in by_folder or not seed.isdigit():
                return f"no section of {params} has the folder {folder}"
            try:
                return rows.why_not(by_folder[folder], name, int(seed), at, params)
            except (BadInput, ConfigError, DataError, KeyError) as error:
                return str(error)
        yield Found(path.parent.relative_to(place), why_not)


def soaks_in(place: Path, params: str) -> Iterator[Found]:
    """Soaks below a folder of results, each with a look at its settings."""
    for path in sorted(place.glob("soak/*/x*/*/metrics.json")):
        def why_not(at: Path) -> str | None:
            try:
                told = run_files.read(at / "metrics.json", soak.RUN)
                preset = settings.load_preset(told["preset"], [f"train.steps={told['steps']}"], params)
                if soak.ended_in(at, preset, told["factor"], told["seed"]):
                    return None
            except (BadInput, ConfigError, DataError, KeyError) as error:
                return str(error)
            return "run with other settings"
        yield Found(path.parent.relative_to(place), why_not)
