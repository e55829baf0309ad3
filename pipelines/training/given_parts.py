"""Part capsules that are given to a model in place of drawn ones.

`train.parts` names where they come from: a preset of the same results and seed, or a folder of a model. A preset of
kind `ocae` needs it; any other image model starts from those parts.
"""

from __future__ import annotations

import os
from dataclasses import asdict

import torch

import port
from pipelines.support import settings
from pipelines.support.values import BadInput
from pipelines.training import given_weights

SECTIONS = ("part_encoder", "part_decoder")
SHARED = ("canvas", "channels", "cnn", *SECTIONS)


def build(preset: settings.Preset, seed: int, results: str | os.PathLike
          ) -> tuple[torch.nn.Module, str]:
    """The model of a preset with its initial weights, and a digest of parts that were given ("" for none).

    Raises:
        BadInput: parts are needed and not named, not there, or of another shape.
    """
    given = named(preset)
    model = port.build(preset.config(), seed)
    if not given:
        return model, ""
    folder = given_weights.model_folder(given, seed, results)
    copy(settings.load_model(folder), model, str(folder))
    return model, given_weights.digest(folder, "parts")


def named(preset: settings.Preset) -> str | None:
    """Where a preset's part capsules come from; None where they are drawn.

    Raises:
        BadInput: they have to be given and are not, or its model's settings cannot be used.
    """
    given, kind = preset.sections["train"].get("parts"), preset.config().kind
    if not given and kind == "ocae":
        raise BadInput(f"preset {preset.name}: object capsules are trained on the part capsules "
                       "of a given run; set train.parts to its preset or model folder"
                       " (on the command line --parts)")
    return given


def copy(source: torch.nn.Module, model: torch.nn.Module, where: str) -> None:
    """Put the part capsules of one model into another.

    Raises:
        BadInput: one of them has none, or their settings differ.
    """
    for owner in (source, model):
        if not hasattr(owner, "part_encoder"):
            raise BadInput(f"train.parts: {where}: a model of kind {owner.config.kind} has no "
                           "part capsules")
    for name in SHARED:
        theirs, ours = getattr(source.config, name), getattr(model.config, name)
        if theirs != ours:
            raise BadInput(f"train.parts: {where} has {name} {_shown(theirs, ours)}; give both "
                           "the same settings")
    for name in SECTIONS:
        getattr(model, name).load_state_dict(getattr(source, name).state_dict())


def _shown(theirs, ours) -> str:
    """The first difference of two settings."""
    if not hasattr(theirs, "__dataclass_fields__"):
        return f"{theirs}, the preset {ours}"
    one, other = asdict(theirs), asdict(ours)
    key = next(key for key in one if one[key] != other[key])
    return f"with {key} {one[key]}, the preset {other[key]}"


def initial(final: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The weights a run started from; frozen parts are those of the trained model."""
    model = port.build(final.config, seed)
    if final.config.kind == "ocae":
        copy(final, model, "the trained model")
    return model
