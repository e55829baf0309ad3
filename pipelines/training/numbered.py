"""Runs outside DVC: `runs/<name>/<n>/`, numbered from 1, each with what it was started with.

A run's folder is a results folder like any other (`--results runs/digits/1` evaluates it); beside the
results lie its checkpoints and `params.json`, a params file with its one preset.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from pipelines.support import settings
from pipelines.support.values import BadInput, load_params, plain_word
from pipelines.training import given_weights
from port.training import loop as train

RUNS = Path("runs")
PARAMS = "params.json"
# What may change when a run is taken up again.
MAY_CHANGE = ("epochs", *train.NOT_IDENTITY, "device", "wandb", "wandb_project", "wandb_team", "run_name")


def numbers(name: str) -> list[int]:
    """Numbers of the runs of a name, in order."""
    folder = RUNS / plain_word(name, "run name")
    return sorted(int(path.name) for path in folder.glob("*")
                  if path.name.isdigit() and (path / PARAMS).is_file())


def begin(preset: settings.Preset, name: str) -> Path:
    """A new folder with the next number; two processes never get the same one.

    Raises:
        BadInput: the name is no plain word.
    """
    plain_word(name, "run name")
    number = max(numbers(name), default=0) + 1
    while True:
        folder = RUNS / name / str(number)
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    preset.write(folder / PARAMS)
    return folder


def has_begun(folder: Path) -> bool:
    """Whether a run has left a checkpoint or a model, with which it could go on or be of use."""
    return any(folder.glob("checkpoints/*/*/model*.safetensors")) or any(folder.glob("train/*/*/model"))


def latest(name: str | None) -> Path:
    """The newest run of a name; without one, that of the name under which the last run was begun.

    Raises:
        BadInput: there is none.
    """
    if name is None:
        begun = {path.parent.parent: path.stat().st_mtime for path in RUNS.glob(f"*/*/{PARAMS}")}
        if not begun:
            raise BadInput(f"--resume: no run in {RUNS}; start one without --resume")
        name = max(begun, key=begun.get).name
    found, place = numbers(name), RUNS / name
    if not found:
        raise BadInput(f"--resume: no run in {place}; start one without --resume")
    return place / str(found[-1])


def with_given_weights(preset: settings.Preset, seed: int) -> settings.Preset:
    """A preset that starts from runs already there: a results folder to come holds none yet.

    Raises:
        BadInput: one of `given_weights.KEYS` leads to no model.
    """
    for key, name in given_weights.named(preset).items():
        if not given_weights.is_path(name):
            runs = (settings.folder_of("train", name, seed, RUNS / name / str(n))
                    for n in reversed(numbers(name)))
            found = next((run for run in runs if (run / "model").is_dir()), None)
            if found is None:
                raise BadInput(f"train.{key}: no run of {name} with seed {seed} in {RUNS}; train one with "
                               f"scae train --preset {shlex.quote(name)} --seed {seed}, or name the folder of a run")
            preset = settings.overridden(preset, [f"train.{key}={json.dumps(str(found))}"])
            name = str(found)
        given_weights.check_there(given_weights.model_folder(name, seed, RUNS), key)
    return preset


def unfinished(preset: settings.Preset, name: str, seed: int) -> Path | None:
    """The latest run of a name, if it was stopped and is this very preset with this seed."""
    found = numbers(name)
    if not found:
        return None
    folder = RUNS / name / str(found[-1])
    stored_seed = seed_of(folder)  # None: stopped before its first checkpoint, so there is nothing to keep
    if stored_seed != seed or (folder / "train" / preset.name / str(seed) / "metrics.json").exists():
        return None
    before = stored(folder)
    same = before.name == preset.name and before.as_params() == preset.as_params()
    return folder if same else None


def stored(folder: Path) -> settings.Preset:
    """The preset a run was started with.

    Raises:
        BadInput: its file cannot be read.
    """
    params = load_params(folder / PARAMS)
    names = list(params.get("presets") or {})
    if len(names) != 1:
        raise BadInput(f"{folder / PARAMS} holds no preset of a run")
    return settings.load_preset(names[0], None, folder / PARAMS)


def seed_of(folder: Path) -> int | None:
    """The seed of a run, from the name of its checkpoints; None before there are any."""
    found = sorted(path for path in (folder / "checkpoints").glob("*-*-*")
                   if not path.name.startswith("."))  # a lock, or what a kill left
    return int(found[0].name.rsplit("-", 2)[1]) if found else None


def refuse_changes(before: settings.Preset, now: settings.Preset, folder: Path) -> None:
    """A run goes on with its own settings; only how long it is and how it reports may change.

    Raises:
        BadInput: naming the first other setting.
    """
    for section, old, new in (("model", before.model, now.model),
                              *((name, before.sections[name], now.sections[name])
                                for name in ("prepare", "train"))):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key) and not (section == "train" and key in MAY_CHANGE):
                raise BadInput(
                    f"--resume: {folder} was started with {section}.{key} {old.get(key)!r}, not "
                    f"{new.get(key)!r}; leave that out, or start a new run without --resume")
