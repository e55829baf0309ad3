"""A run from elsewhere takes its place among the results here, and is evaluated and aggregated."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines import aggregate, evaluate, prepare
from pipelines.support import environment, identity, run_folders, settings
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from pipelines.training import given_weights
from pipelines.visit import queue
from port.checkpoints import run_files, run_folder


@dataclass(frozen=True)
class Brought:
    """A run from elsewhere.

    Attributes:
        entry: preset and seed.
        preset: with the settings it was trained with.
        steps: that it is trained for.
        environment: of the machine.
    """

    entry: queue.Entry
    preset: settings.Preset
    steps: int
    environment: dict


def put_in(run: Brought, results: Path, fill: Callable[[Path], object], replace: bool = False) -> Path | None:
    """Make results/train/<preset>/<seed>/ of a run, whole or not at all; None where as much of it is there already.

    Args:
        run: the run.
        results: folder of the results here.
        fill: writes it into a folder that is not there yet; its environment.json is written here.
        replace: in place of another run.

    Raises:
        BadInput: another run is there; and what `fill` raises.
    """
    folder = settings.folder_of("train", run.entry.preset, run.entry.seed, results)
    if (folder / "metrics.json").exists() and not replace and not is_earlier(run, folder):
        return None
    with run_folders.replaced(folder) as new:
        fill(new)
        weights = given_weights.digest(new / run_folder.MODEL, "model")
        write_json(new / run_folder.ENVIRONMENT, run.environment | {
            "weights": weights, "files": run_folder.digests(new), "imported_at": environment.revision()})
        forget_evaluations(run.entry, results, weights)
    return folder


def is_earlier(run: Brought, folder: Path) -> bool:
    """Whether what is there is an earlier part of the same run.

    Raises:
        BadInput: it is another run.
    """
    config, facts, metrics = (run_files.read(folder / f"{name}.json", form) for name, form in (
        ("config", run_files.CONFIG), ("environment", run_files.ENVIRONMENT), ("metrics", run_files.METRICS)))
    ours = decides(run.preset, run.entry.seed)
    theirs = {key: config.get(key, {}) for key in ours}
    differences = identity.differences(identity.identity(ours), identity.identity(theirs), without=("train.steps",))
    if facts.get("device") != run.environment.get("device"):
        differences.append(f"device is {run.environment.get('device')!r}, not {facts.get('device')!r}")
    if differences:
        raise BadInput(f"{folder} holds another run: {differences[0]}; move it away, or replace it with "
                       "--replace")
    return metrics["steps"] < run.steps


def decides(preset: settings.Preset, seed: int) -> dict:
    """Settings of a preset that decide what a run of it learns, as a config.json has them."""
    return {"train": vars(preset.train(seed)[0]), "prepare": preset.sections["prepare"],
            "arguments": preset.config().to_arguments()}


def forget_evaluations(entry: queue.Entry, results: Path, weights: str) -> None:
    """Remove what was measured with other weights of this preset and seed.

    Raises:
        DataError: one of them cannot be read; then all of them stay.
    """
    others = []
    for path in results.glob(f"evaluate/*/{entry.seed}/metrics.json"):
        name = path.parent.parent.name
        if name != entry.preset and not name.startswith(f"{entry.preset}_on_"):
            continue
        if run_files.read(path, {"weights?": run_files.MAYBE_TEXT}).get("weights") != weights:
            others.append(path.parent)
    for folder in others:
        print(f"{folder} was measured with other weights; removed", flush=True)
        shutil.rmtree(folder)


def presets_here(runs: Sequence[Brought], params: str) -> dict[str, settings.Preset]:
    """The presets of the runs as they stand here, by name; what the runs are held against.

    Raises:
        BadInput: there is none of a run's name.
    """
    return {name: settings.load_preset(name, path=params) for name in dict.fromkeys(run.entry.preset for run in runs)}


def on_data_here(run: Brought, here: settings.Preset) -> settings.Preset:
    """The preset that a run was trained with, on the data that lie here and evaluated as that of its name here is."""
    places = {name: here.sections["prepare"][name] for name in ("data_root", "download")
              if name in here.sections["prepare"]}
    sections = run.preset.sections | {"prepare": run.preset.sections["prepare"] | places,
                                      "evaluate": here.sections["evaluate"]}
    return settings.Preset(run.preset.name, sections, run.preset.model)


def assess(runs: Sequence[Brought], here: dict[str, settings.Preset], results: Path) -> None:
    """Evaluate runs on the CPU as they were trained; aggregate their presets as they stand here."""
    for run in runs:
        preset = on_data_here(run, here[run.entry.preset])
        prepare.dataset_for(preset, results)
        try:
            evaluate.run(preset, run.entry.seed, results, "cpu")
        except CheckFailed as error:  # of an unfinished run, say: what was measured is written all the same
            print(f"{run.entry.name}: {error}", flush=True)
    for preset in here.values():
        aggregate.run(preset, results)
