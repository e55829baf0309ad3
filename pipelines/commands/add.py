"""`scae add RUN…`: finished runs that were trained elsewhere become results here, evaluated and aggregated.

A run is a folder as the train stage leaves it, of this revision or an earlier one: a numbered run (runs/NAME/N), a
results folder with one run in it, or the run's own folder. It is copied, never changed. Its environment.json keeps
the machine, the time and the revision of the training, and says in `imported_at` which revision read it. Weights
that do not fit its settings and data that are not those here are refused; settings unlike those of the preset as it
stands here are named, and named again by the aggregate, which refuses seeds that are unlike each other.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pipelines import aggregate, evaluate, prepare
from pipelines.support import environment, settings
from pipelines.support.identity import differences, identity
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from pipelines.training import given_weights
from pipelines.visit import bring_home, queue
from port.checkpoints import run_folder
from port.data import dataset as data
from port.data import standard_sets
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
    here = {name: settings.load_preset(name, path=params) for name in dict.fromkeys(
        brought.entry.preset for brought, _ in found)}
    wanted = [preset_here(brought.preset, here[brought.entry.preset]) for brought, _ in found]
    added = []
    for (brought, source), preset in zip(found, wanted, strict=True):
        for line in unlike_preset(brought, here[preset.name]):
            print(f"add: {source}: unlike preset {preset.name} of {params}: {line}", flush=True)
        print(f"add: {source}: {checked_data(source, preset, results)}", flush=True)
        added.append(put_in(brought, source, Path(results), replace))
    if measure:
        for (brought, _), preset in zip(found, wanted, strict=True):
            try:
                evaluate.run(preset, brought.entry.seed, results, "cpu")
            except CheckFailed as error:  # what was measured is written all the same
                print(f"add: {error}", flush=True)
        for preset in here.values():
            aggregate.run(preset, results)
    return added


def read(folder: str | os.PathLike) -> tuple[bring_home.Brought, Path]:
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
    facts = aggregate.read(source / run_folder.ENVIRONMENT)
    return bring_home.Brought(queue.Entry(preset.name, seed), preset, source, True, facts), source


def preset_here(trained: settings.Preset, here: settings.Preset) -> settings.Preset:
    """The preset a run was trained with, on the data that lie here and evaluated as that of its name here is."""
    places = {name: here.sections["prepare"][name] for name in ("data_root", "download")
              if name in here.sections["prepare"]}
    sections = trained.sections | {"prepare": trained.sections["prepare"] | places,
                                   "evaluate": here.sections["evaluate"]}
    return settings.Preset(trained.name, sections, trained.model)


def unlike_preset(brought: bring_home.Brought, here: settings.Preset) -> list[str]:
    """Where a run's settings differ from the preset's of its name, as the aggregate will say."""
    sides = [identity({"train": vars(one.train(brought.entry.seed)[0]), "prepare": one.sections["prepare"],
                       "arguments": one.config().to_arguments()}) for one in (brought.preset, here)]
    return differences(*sides)


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
    ours, theirs = standard_sets.digest_of(here), standard_sets.digest_of(data.read(path))
    if ours != theirs:
        raise BadInput(f"{source} was trained on other data than there are here ({theirs}, not {ours}; {path})")
    return f"trained on the data that are here ({ours})"


def put_in(brought: bring_home.Brought, source: Path, results: Path, replace: bool) -> Path:
    """Copy a run to results/train/<preset>/<seed>, whole or not at all.

    Raises:
        BadInput: another run is there.
    """
    entry = brought.entry
    folder = settings.folder_of("train", entry.preset, entry.seed, results)
    if folder.exists() and folder.resolve() == source.resolve():
        print(f"add: {source} lies where it belongs", flush=True)
        return folder
    weights = given_weights.digest(source / run_folder.MODEL, "model")
    steps = json.loads((source / "metrics.json").read_text())["steps"]
    if (folder / "metrics.json").exists() and not replace:
        same = (folder / run_folder.MODEL / "model.safetensors").is_file() and \
            given_weights.digest(folder / run_folder.MODEL, "model") == weights
        if same or not bring_home.is_earlier(brought, folder, steps):
            print(f"add: {folder} is there already" + ("" if same else ", with as many steps or more"), flush=True)
            return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / "run"
        (new / run_folder.MODEL).mkdir(parents=True)
        for name in run_folder.FILES:
            shutil.copyfile(source / name, new / name)
        for path in (source / run_folder.MODEL).iterdir():
            if path.is_file():
                shutil.copyfile(path, new / run_folder.MODEL / path.name)
        files = run_folder.digests(new)
        if any(sha256(source / name) != digest for name, digest in files.items()):
            raise BadInput(f"{source} was written to while it was copied; let it end, then add it again")
        write_json(new / run_folder.ENVIRONMENT, brought.environment | {
            "weights": weights, "files": files, "imported_at": environment.revision()})
        bring_home.forget_evaluations(entry, results, weights)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    print(f"add: {entry.name} at step {steps:,}, trained at revision {brought.environment.get('revision')} on "
          f"{brought.environment.get('device_name')}: in {folder}", flush=True)
    return folder
