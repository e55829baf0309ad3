"""Weights that a run starts from in place of drawn ones: which, what tells them apart, how they go in.

Three keys of section `train` name them: `start_from` (another trained preset), `parts` (the part capsules
of another model, `pipelines.training.given_parts`) and `continue_from` (a converted checkpoint or a run, with its
optimizer and step, `pipelines.training.continued`).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from pipelines.support import settings
from pipelines.support.values import BadInput
from port.checkpoints import run_folder
from port.checkpoints.model_folder import slot_files

KEYS = ("start_from", "parts", "continue_from")
WEIGHTS = "model.safetensors"


def named(preset: settings.Preset) -> dict[str, str]:
    """The keys that a preset gives, with what they name."""
    section = preset.sections["train"]
    return {key: section[key] for key in KEYS if section.get(key)}


def refuse(preset: settings.Preset, who: str) -> None:
    """Refuse a preset that starts from given weights, where every run has to start from drawn ones.

    Raises:
        BadInput: names the setting; `who` says what asks, as `a soak`.
    """
    given = list(named(preset))
    if given:
        raise BadInput(f"preset {preset.name}: {who} begins with weights that are drawn; train.{given[0]} must not be "
                       "set")
    if preset.config().kind == "ocae":
        raise BadInput(f"preset {preset.name}: {who} begins with weights that are drawn, and objects alone (ocae) need "
                       "given parts; choose another preset")


def in_words(preset: settings.Preset) -> str:
    """For the model card: where the weights were before the first step."""
    given = named(preset)
    return " and ".join(f"{key} {given[key]}" for key in given) or "from scratch"


def model_folder(name: str, seed: int, results: str | os.PathLike) -> Path:
    """Where a name leads: a path to the model there, a preset to that of its run with the same seed."""
    if not is_path(name):
        return settings.folder_of("train", name, seed, results) / "model"
    try:
        folder = run_folder.located(name)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return folder / run_folder.MODEL if run_folder.is_run(folder) else folder


def is_path(name: str) -> bool:
    """Whether a name is that of a folder, and not of a preset: it has a separator, or the folder holds a model."""
    return os.sep in name or (Path(name) / WEIGHTS).is_file() or run_folder.is_run(name)


def check_there(folder: Path, key: str) -> None:
    """Refuse a folder without weights.

    Raises:
        BadInput: there is no model; `key` says which setting named it.
    """
    if not (folder / WEIGHTS).is_file():
        raise BadInput(f"train.{key}: {folder} holds no {WEIGHTS}; give the folder that scae convert or "
                       "the train stage wrote")


def digest(folder: Path, key: str, optimizer: bool = False) -> str:
    """Of a folder's weights (and optimizer state): part of what decides a run.

    Raises:
        BadInput: as `check_there`, or a file of the optimizer state is missing.
    """
    check_there(folder, key)
    found = hashlib.sha256()
    try:
        slots = slot_files(folder) if optimizer else []
    except ValueError as error:
        raise BadInput(f"train.{key}: {error}") from None
    for path in (folder / WEIGHTS, *slots):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def put_in(model: torch.nn.Module, folder: Path, key: str, whole: bool) -> None:
    """Give a model the weights in a folder.

    Args:
        model: receives them.
        folder: of another model.
        key: the setting that named it, for the message.
        whole: both must have the same tensors; else the model keeps what the other lacks.

    Raises:
        BadInput: a tensor does not fit, or the folder cannot be read.
    """
    other = settings.load_model(folder)
    theirs, own = other.state_dict(), model.state_dict()
    strange = [name for name, value in theirs.items() if name not in own or own[name].shape != value.shape]
    if whole:
        strange += [name for name in own if name not in theirs]
    if strange or (whole and other.config.kind != model.config.kind):
        raise BadInput(f"train.{key}: {folder} is another model than the preset's"
                       + (f" ({strange[0]} does not fit)" if strange else "")
                       + "; give the preset the sizes in its config.json")
    model.load_state_dict(own | theirs)
