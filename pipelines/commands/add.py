"""`scae add RUN…`: finished runs that were trained elsewhere become results here, evaluated and aggregated.

A run is a folder as the train stage leaves it, of this revision or an earlier one: a numbered run (runs/NAME/N), a
results folder with one run in it, or the run's own folder. It is copied, never changed. Its environment.json keeps
the machine, the time and the revision of the training, and says in `imported_at` which revision read it. Weights
that do not fit its settings and data that are not those here are refused; settings unlike those of the preset as it
stands here are named, and named again by the aggregate, which refuses seeds that are unlike each other.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipelines import aggregate, prepare
from pipelines.support import environment, settings
from pipelines.support.identity import differences, identity
from pipelines.support.values import BadInput
from pipelines.training import given_weights
from pipelines.visit import queue, taken_in
from port.checkpoints import run_files, run_folder
from port.data import dataset as data
from port.data import dataset_file, standard_sets
from port.training.sound import sha256

NEEDED = (*run_folder.FILES, run_folder.ENVIRONMENT, f"{run_folder.MODEL}/config.json",
          f"{run_folder.MODEL}/model.safetensors")


def run(folders: Sequence[str | os.PathLike], results: str | os.PathLike = settings.RESULTS, replace: bool = False,
        measure: bool = True, params: str = "params.yaml") -> list[Path]:
    """Take runs in, each as results/train/<preset>/<seed>; evaluate each, then aggregate their presets.

    Args:
        folders: of finished runs.
        results: folder of the results here.
        replace: put a run in the place of another one of its preset and seed.
        measure: evaluate and aggregate, too.
        params: file of presets.

    Returns:
        The folders of the runs here.

    Raises:
        BadInput: no finished run, weights or data that are not its own, or another run in its place.
    """
    # All of them, and the presets they are held against, before anything is written: evaluating takes minutes.
    found = [read(folder) for folder in folders]
    here = taken_in.presets_here([brought for brought, _ in found], params)
    added = []
    for brought, source in found:
        preset = here[brought.entry.preset]
        for line in unlike_preset(brought, preset):
            print(f"add: {source}: unlike preset {preset.name} of {params}: {line}", flush=True)
        print(f"add: {source}: {checked_data(source, taken_in.on_data_here(brought, preset), results)}", flush=True)
        added.append(put_in(brought, source, Path(results), replace))
    if measure:
        taken_in.assess([brought for brought, _ in found], here, Path(results))
    return added


def read(folder: str | os.PathLike) -> tuple[taken_in.Brought, Path]:
    """A run and its folder.

    Raises:
        BadInput: it is no finished run, or its weights are another model's.
    """
    try:
        source = run_folder.located(folder)
    except ValueError as error:
        raise BadInput(str(error)) from None
    missing = [name for name in NEEDED if not (source / name).is_file()]
    if missing:
        raise BadInput(f"{source} holds no finished run: {missing[0]} is not there; name runs/NAME/N or "
                       "results/train/PRESET/SEED, and let a run end first (scae train --resume)")
    preset, seed = settings.preset_of_run(source)
    model = settings.load_model(source)
    unlike = differences(identity({"arguments": model.config.to_arguments()}),
                         identity({"arguments": preset.config().to_arguments()}))
    if unlike:
        raise BadInput(f"{source}: its weights are another model's than its config.json says: {unlike[0]}")
    facts = run_files.read(source / run_folder.ENVIRONMENT, run_files.ENVIRONMENT)
    steps = run_files.read(source / "metrics.json", run_files.METRICS)["steps"]
    run_files.read(source / "config.json", aggregate.CONFIG)
    return taken_in.Brought(queue.Entry(preset.name, seed), preset, steps, facts), source


def unlike_preset(brought: taken_in.Brought, here: settings.Preset) -> list[str]:
    """Where a run's settings differ from the preset's of its name, as the aggregate will say."""
    return differences(*(identity(taken_in.decides(preset, brought.entry.seed)) for preset in (brought.preset, here)))


def checked_data(source: Path, preset: settings.Preset, results: str | os.PathLike) -> str:
    """What can be said of the data that a run was trained on, held against those here.

    Raises:
        BadInput: they are others.
    """
    path = source.resolve().parents[2] / "prepare" / preset.name / "data.npz"
    here = prepare.dataset_for(preset, results)
    if not isinstance(here, data.Dataset):
        return "its examples are drawn from its settings"
    if not path.is_file():
        return f"which data it was trained on is not recorded beside it; taken for those of {preset.name} here"
    ours, theirs = standard_sets.digest_of(here), standard_sets.digest_of(dataset_file.read(path))
    if ours != theirs:
        raise BadInput(f"{source} was trained on other data than there are here ({theirs}, not {ours}; {path})")
    return f"trained on the data that are here ({ours})"


def put_in(brought: taken_in.Brought, source: Path, results: Path, replace: bool) -> Path:
    """Copy a run to results/train/<preset>/<seed>, whole or not at all.

    Raises:
        BadInput: another run is there.
    """
    folder = settings.folder_of("train", brought.entry.preset, brought.entry.seed, results)
    if folder.exists() and folder.resolve() == source.resolve():
        print(f"add: {source} lies where it belongs", flush=True)
        return folder
    there = all((folder / name).is_file() for name in NEEDED)
    if there and not replace and given_weights.digest(folder / run_folder.MODEL, "model") == given_weights.digest(
            source / run_folder.MODEL, "model"):
        print(f"add: {folder} is there already", flush=True)
    elif taken_in.put_in(brought, results, functools.partial(copy, source), replace) is None:
        print(f"add: {folder} is there already, with as many steps or more", flush=True)
    else:
        revision = str(brought.environment.get("revision"))
        unknown = ", which is no commit of this repository," if environment.is_here(revision) is False else ""
        print(f"add: {brought.entry.name} at step {brought.steps:,}, trained at revision {revision}{unknown} on "
              f"{brought.environment.get('device_name')}: in {folder}", flush=True)
    return folder


def copy(source: Path, new: Path) -> None:
    """Copy what the train stage left.

    Raises:
        BadInput: it was written to meanwhile.
    """
    (new / run_folder.MODEL).mkdir(parents=True)
    for name in run_folder.FILES:
        shutil.copyfile(source / name, new / name)
    for path in (source / run_folder.MODEL).iterdir():
        if path.is_file():
            shutil.copyfile(path, new / run_folder.MODEL / path.name)
    if any(sha256(source / name) != digest for name, digest in run_folder.digests(new).items()):
        raise BadInput(f"{source} was written to while it was copied; let it end, then add it again")
