"""params.yaml: presets and stage sections, with overrides; every unknown name is refused.

The settings of a stage are its section at the top level, overlaid by the section of the same name
in the preset: `train` below `presets.mnist.train`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

import port
from pipelines.support import fit_images
from pipelines.support.output import write_json
from pipelines.support.sections import Evaluate, Prepare
from pipelines.support.values import BadInput, load_params, parse_value, plain_word
from port.configuration.fields import converted, from_mapping, mapping, refuse_unknown, unknown
from port.training import loop as train

STAGES = ("prepare", "train", "evaluate", "parity", "convert", "equivariance", "report", "ablation",
          "ablation_small", "capsnet_dimensions", "capsnet_reconstruction")
PRESET_SECTIONS = ("prepare", "model", "train", "evaluate")
RESULTS = Path("results")
WANDB = ("none", "offline", "online")
# Keys of section `train` that are no settings of the loop, with their types: who follows it, where
# weights come from (`pipelines.training.given_weights`), lengths in epochs (`pipelines.train.counted`).
BESIDE_LOOP = {"wandb": str, "wandb_project": str, "wandb_team": str, "run_name": str, "start_from": str,
               "parts": str, "continue_from": str, "epochs": int, "lr_decay_epochs": int}
TRAIN_EXTRAS = ("device", *BESIDE_LOOP)


@dataclass(frozen=True)
class Preset:
    """A preset with its overrides applied.

    Attributes:
        name: plain word.
        sections: `prepare`, `train`, `evaluate` as plain values.
        model: flat configuration keys, as the original's flags.

    Raises:
        ConfigError: a section that is no mapping, a family that is no word, or options of the data's source that are no
            mapping.
    """

    name: str
    sections: dict[str, dict]
    model: dict

    def __post_init__(self) -> None:
        for name in ("prepare", "train", "evaluate"):
            mapping(f"preset {self.name}: {name}", self.sections.get(name))
        # Both are looked up by others long before all settings are read.
        converted(f"model of preset {self.name}: model", str | None, self.model.get("model"))
        converted(f"prepare of preset {self.name}: options", dict | None, self.sections["prepare"].get("options"))

    def config(self) -> port.Config:
        """The model's configuration.

        Raises:
            BadInput: an unknown key or value.
        """
        try:
            return port.config.from_flat(self.model)
        except port.config.ConfigError as error:
            raise BadInput(f"model of preset {self.name}: {error}") from None

    def prepare(self) -> Prepare:
        return from_mapping(Prepare, self.sections["prepare"], f"prepare of preset {self.name}")

    def train(self, seed: int) -> tuple[train.Settings, str]:
        """Settings of the training loop, and the device."""
        section = dict(self.sections["train"])
        where = f"train of preset {self.name}"
        device = converted(f"{where}: device", str, section.pop("device", "auto"))
        for name, kind in BESIDE_LOOP.items():
            converted(f"{where}: {name}", kind | None, section.pop(name, None))
        if "seed" in section:
            raise BadInput(f"{where}: the seed is given with --seed")
        return from_mapping(train.Settings, section | {"seed": seed}, where, extra=TRAIN_EXTRAS), device

    def wandb(self) -> str:
        """Whether Weights & Biases follows the training: none, offline or online."""
        value = self.sections["train"].get("wandb", "none")
        if value not in WANDB:
            raise BadInput(f"train of preset {self.name}: {unknown('value of wandb', value, WANDB)}")
        return value

    def evaluate(self) -> Evaluate:
        return from_mapping(Evaluate, self.sections["evaluate"], f"evaluate of preset {self.name}")

    def as_params(self) -> dict:
        """This preset as it would stand in a params file, overrides applied."""
        return {**self.sections, "model": self.model}

    def write(self, path: str | os.PathLike) -> None:
        """A params file of this preset alone, overrides applied; another process or a later day reads it.

        Raises:
            OSError: it cannot be written.
        """
        write_json(path, {"presets": {self.name: self.as_params()}})

    def resolved(self) -> dict:
        """Everything that decides the results, as plain values."""
        return {"preset": self.name, **self.sections, "model": self.model}


def load_preset(name: str, overrides: list[str] | None = None,
                path: str | os.PathLike = "params.yaml", config: str | None = None) -> Preset:
    """A preset of params.yaml.

    Args:
        name: of the preset.
        overrides: `section.key=value`, as in `train.lr=1e-4` or `model.n_part_caps=24`.
        path: of params.yaml.
        config: a JSON or YAML file of flat model keys that overlays the preset's.

    Raises:
        BadInput: an unknown preset, or a file that cannot be read.
        ConfigError: an unknown section or key; the message names the nearest valid one.
    """
    plain_word(name, "preset")
    params = load_params(path)
    refuse_unknown(params, (*STAGES, "matrix", "presets"), str(path))
    presets = params.get("presets") or {}
    for where, section in (("presets", presets), *((stage, params.get(stage) or {}) for stage in STAGES)):
        if not isinstance(section, dict):
            raise BadInput(f"{path}: {where}: expected keys and values, found {str(section)[:60]!r}")
    if name not in presets:
        raise BadInput(unknown("preset", name, presets))
    given = presets[name] or {}
    refuse_unknown(given, PRESET_SECTIONS, f"preset {name}")
    for section in PRESET_SECTIONS:
        keys = given.get(section) or {}
        if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys):
            raise BadInput(f"{section} of preset {name}: expected words and values, found "
                           f"{str(keys)[:60]!r}")
    sections = {stage: {**(params.get(stage) or {}), **(given.get(stage) or {})}
                for stage in ("prepare", "train", "evaluate")}
    model = dict(given.get("model") or {})
    if config is not None:
        model |= load_model_keys(config)
    return overridden(Preset(name, sections, model), overrides)


def overridden(preset: Preset, overrides: list[str] | None) -> Preset:
    """A preset with `section.key=value` in place of what stood there; steps stand in place of epochs too.

    What a preset with own images leaves open is taken from them (`pipelines.support.fit_images`).

    Raises:
        BadInput: another form, an unknown section, or own images that cannot be used.
    """
    sections, model = {name: dict(section) for name, section in preset.sections.items()}, dict(preset.model)
    for override in overrides or []:
        key, equals, value = override.partition("=")
        section, dot, key = key.partition(".")
        if not (equals and dot and key):
            raise BadInput(f"--set {override}: write section.key=value, as in train.lr=1e-4")
        if section not in PRESET_SECTIONS:
            raise BadInput(unknown("section", section, PRESET_SECTIONS))
        target = model if section == "model" else sections[section]
        target[key] = parse_value(value)
    Preset(preset.name, sections, model)  # looks at what `fit` reads
    said = {override.partition("=")[0] for override in overrides or []}
    for steps, epochs in (("steps", "epochs"), ("lr_decay_steps", "lr_decay_epochs")):
        if f"train.{steps}" in said and f"train.{epochs}" not in said:
            sections["train"].pop(epochs, None)  # the preset's, which would win
    return Preset(preset.name, *fit_images.fit(sections, model, preset.sections["prepare"], said))


def preset_of_run(folder: str | os.PathLike) -> tuple[Preset, int]:
    """Preset and seed of a run, from the config.json in its folder alone.

    Raises:
        BadInput: it is no run's folder, nor one that holds a single run.
    """
    try:
        folder = port.run_folder.located(folder)
        port.run_folder.check_whole(folder)
        found = port.run_folder.settings_of(folder)
    except ValueError as error:
        raise BadInput(str(error)) from None
    missing = [key for key in ("preset", "prepare", "train", "evaluate", "model") if key not in found]
    if missing:
        raise BadInput(f"{Path(folder) / 'config.json'} is no run's: it has no {missing[0]}; name the "
                       "folder that the train stage wrote, as results/train/digits/0")
    sections = {name: dict(found[name]) for name in ("prepare", "train", "evaluate")}
    seed = sections["train"].pop("seed", 0)
    name = plain_word(found["preset"], f"{Path(folder) / 'config.json'}: preset")
    return Preset(name, sections, dict(found["model"])), int(seed)


def results_of_run(folder: str | os.PathLike, results: str | os.PathLike | None = None) -> Path:
    """The folder of results that a run lies in, as runs/digits/1 of runs/digits/1/train/digits/0, unless one is given.

    What is made of a run belongs beside it: of a numbered run nothing goes to the results that git holds.
    """
    if results is not None:
        return Path(results)
    place = Path(os.path.abspath(port.run_folder.located(folder)))
    return Path(os.path.relpath(place.parents[2])) if place.parts[-3:-2] == ("train",) else Path(RESULTS)


def load_model_keys(path: str | os.PathLike) -> dict:
    """Flat model keys of a JSON or YAML file; a recording's manifest is taken as it is.

    Raises:
        BadInput: the file cannot be read or holds no configuration.
    """
    given = load_params(path)
    try:
        if "arguments" in given or "flags" in given or "cnn" in given:
            return port.config.to_flat(port.config.read(given))
    except port.config.ConfigError as error:
        raise BadInput(f"{path}: {error}") from None
    return given


def load_model(folder: str | os.PathLike):
    """A model from a folder that the train stage (or `port.save`) wrote, in evaluation mode and in float32.

    Images are measured in float32; weights that were saved in another precision are rounded, and that is said.

    Raises:
        BadInput: no model there, or it cannot be read.
    """
    try:
        folder = port.run_folder.located(folder)
    except ValueError as error:
        raise BadInput(str(error)) from None
    inside = folder / port.run_folder.MODEL if port.run_folder.is_run(folder) else folder
    if not all((inside / name).exists() for name in ("config.json", "model.safetensors")):
        raise BadInput(f"no model in {folder}; run the train stage first, or name a folder with "
                       "config.json and model.safetensors")
    try:
        model = port.load(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"the model in {folder} cannot be read: "
                       f"{' '.join(str(error).split())[:300]}") from None
    if model.dtype != torch.float32:
        print(f"the weights in {folder} are {str(model.dtype).removeprefix('torch.')}; used in float32", flush=True)
    return model.float()


def folder_of(stage: str, preset: str, seed: int | None = None,
              results: str | os.PathLike = RESULTS) -> Path:
    """results/<stage>/<preset>[/<seed>].

    Raises:
        BadInput: the preset's name would lead elsewhere.
    """
    folder = Path(results) / stage / plain_word(preset, "preset")
    return folder if seed is None else folder / str(seed)


def evaluation_name(preset: str, on: str | None = None) -> str:
    """What results of a preset are called that was tested on another data source."""
    return preset if on is None else f"{preset}_on_{on}"
