"""params.yaml: presets and stage sections, with overrides; every unknown name is refused.

The settings of a stage are its section at the top level, overlaid by the section of the same name
in the preset: `train` below `presets.mnist.train`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass, fields
from pathlib import Path

import port
from port import train

STAGES = ("prepare", "train", "evaluate", "parity", "convert", "equivariance", "report", "ablation",
          "capsnet_dimensions", "capsnet_reconstruction")
PRESET_SECTIONS = ("prepare", "model", "train", "evaluate")
RESULTS = Path("results")
WANDB = ("none", "offline", "online")
# Keys of section `train` that are no settings of the loop, with their types: who follows it, where
# weights come from (`start_from`, `pipelines.parts`, `pipelines.continued`), lengths in epochs
# (`pipelines.train.counted`).
BESIDE_LOOP = {"wandb": "str", "wandb_project": "str", "wandb_team": "str", "run_name": "str",
               "start_from": "str", "parts": "str", "continue_from": "str", "epochs": "int",
               "lr_decay_epochs": "int"}
TRAIN_EXTRAS = ("device", *BESIDE_LOOP)


class BadInput(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class CheckFailed(Exception):
    """A result does not meet what the stage requires."""


@dataclass(frozen=True)
class Prepare:
    """Section `prepare`: where the images come from.

    Attributes:
        source: a name in `port.sources.SOURCES`.
        data_root: folder looked at first; the variable SCAE_DATA wins.
        download: fetch what is missing.
        options: arguments of the source.
    """

    source: str = "digits"
    data_root: str = "data"
    download: bool = True
    options: dict | None = None


@dataclass(frozen=True)
class Evaluate:
    """Section `evaluate`.

    Attributes:
        batch_size: images at a time; the faithful protocol uses whole batches only.
        seed: of shifts, noise, k-means and bootstrap.
        bootstrap_draws: samples behind an interval.
        level: share of the draws inside it.
        fit_images: training images at most, the first ones, that k-means of the clean protocol and
            the logistic probes are fitted to; 0 is all of them. The metrics say how many it was.
        baseline_images: training images at most that the fits on raw pixels use.
        tsne_images: test images at most in the t-SNE of the presences, drawn by `seed`; 0 is none.
        n_pictures: images shown with their reconstruction.
        require_learning: fail unless the run has learned.
        standard_errors: by how many the probes must beat their values at step 0.
        clean_shift: shift the images in the clean protocol too; False puts them in the middle.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 leaves the libraries' choice.
    """

    batch_size: int = 128
    seed: int = 0
    bootstrap_draws: int = 2000
    level: float = 0.95
    fit_images: int = 0
    baseline_images: int = 10_000
    tsne_images: int = 1000
    n_pictures: int = 16
    require_learning: bool = False
    standard_errors: float = 3.0
    clean_shift: bool = True
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class CapsnetDimensions:
    """Section `capsnet_dimensions`: what each number of a class capsule draws.

    Attributes:
        delta: step of a number.
        steps: l; each number goes from -l·δ to +l·δ about its own value.
    """

    delta: float = 0.05
    steps: int = 5

    def __post_init__(self):
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0, not {self.delta}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


@dataclass(frozen=True)
class CapsnetReconstruction:
    """Section `capsnet_reconstruction`: decoders side by side.

    Attributes:
        n_images: test images shown, the first ones.
        batch_size: images at a time.
    """

    n_images: int = 16
    batch_size: int = 250


@dataclass(frozen=True)
class Parity:
    """Section `parity`: which tier of the suite runs, and in how many processes."""

    tier: str = "smoke"
    workers: int = 0


@dataclass(frozen=True)
class Convert:
    """Section `convert`: an original checkpoint, and the recording it is verified against."""

    checkpoint: str = "parity_tests/fixtures/goldens/options/enc_linear/checkpoint"
    golden: str = "parity_tests/fixtures/goldens/options/enc_linear"


@dataclass(frozen=True)
class Equivariance:
    """Section `equivariance`: how test images are moved.

    Attributes:
        images: test images at most, the first ones.
        shifts: in pixels, each to all four sides.
        degrees: of turns about the middle, each both ways.
        batch_size: images at a time.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 leaves the library's choice.
    """

    images: int = 450
    shifts: list | tuple = (1, 2)
    degrees: list | tuple = (10, 20)
    batch_size: int = 128
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("shifts", "degrees"):
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in getattr(self, name)):
                raise ValueError(f"{name} must be a list of numbers, not {getattr(self, name)!r}")
        if not (self.shifts or self.degrees) or self.images < 1 or self.batch_size < 1:
            raise ValueError("give at least one shift or turn, one image and a batch of one")


@dataclass(frozen=True)
class Report:
    """Section `report`: which run the page shows."""

    preset: str = "digits"
    seed: int = 0
    title: str = "Stacked Capsule Autoencoders"


@dataclass(frozen=True)
class Preset:
    """A preset with its overrides applied.

    Attributes:
        name: plain word.
        sections: `prepare`, `train`, `evaluate` as plain values.
        model: flat configuration keys, as the original's flags.
    """

    name: str
    sections: dict[str, dict]
    model: dict

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
        return build(Prepare, self.sections["prepare"], f"prepare of preset {self.name}")

    def train(self, seed: int) -> tuple[train.Settings, str]:
        """Settings of the training loop, and the device."""
        section = dict(self.sections["train"])
        where = f"train of preset {self.name}"
        device = _typed(section.pop("device", "auto"), "str", f"{where}: device")
        for name, kind in BESIDE_LOOP.items():
            _typed(section.pop(name, None), f"{kind} | None", f"{where}: {name}")
        if "seed" in section:
            raise BadInput(f"{where}: the seed is given with --seed")
        return build(train.Settings, section | {"seed": seed}, where, extra=TRAIN_EXTRAS), device

    def start_from(self) -> str | None:
        """The preset whose trained weights of the same seed training starts from, if any."""
        return _typed(self.sections["train"].get("start_from"), "str | None",
                      f"train of preset {self.name}: start_from")

    def wandb(self) -> str:
        """Whether Weights & Biases follows the training: none, offline or online."""
        value = self.sections["train"].get("wandb", "none")
        if value not in WANDB:
            raise BadInput(f"train of preset {self.name}: {unknown('value of wandb', value, WANDB)}")
        return value

    def evaluate(self) -> Evaluate:
        return build(Evaluate, self.sections["evaluate"], f"evaluate of preset {self.name}")

    def as_params(self) -> dict:
        """This preset as it would stand in a params file, overrides applied."""
        return {**self.sections, "model": self.model}

    def resolved(self) -> dict:
        """Everything that decides the results, as plain values."""
        return {"preset": self.name, **self.sections, "model": self.model}


def load_params(path: str | os.PathLike = "params.yaml") -> dict:
    """Read params.yaml (or a JSON file, which is YAML too).

    Raises:
        BadInput: the file is missing or cannot be read.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}; run from the repository root, or "
                       "name the file with --params") from None
    try:
        params = _parse_yaml(text)
    except ValueError as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(params, dict):
        raise BadInput(f"{path} holds no mapping")
    return params


def load_preset(name: str, overrides: list[str] | None = None,
                path: str | os.PathLike = "params.yaml", config: str | None = None) -> Preset:
    """A preset of params.yaml.

    Args:
        name: of the preset.
        overrides: `section.key=value`, as in `train.lr=1e-4` or `model.n_part_caps=24`.
        path: of params.yaml.
        config: a JSON or YAML file of flat model keys that overlays the preset's.

    Raises:
        BadInput: an unknown preset, section or key; the message names the nearest valid one.
    """
    params = load_params(path)
    refuse_unknown(params, (*STAGES, "matrix", "presets"), str(path))
    presets = params.get("presets") or {}
    if name not in presets:
        raise BadInput(unknown("preset", name, presets))
    given = presets[name] or {}
    refuse_unknown(given, PRESET_SECTIONS, f"preset {name}")
    sections = {stage: {**(params.get(stage) or {}), **(given.get(stage) or {})}
                for stage in ("prepare", "train", "evaluate")}
    model = dict(given.get("model") or {})
    if config is not None:
        model |= load_model_keys(config)
    return overridden(Preset(name, sections, model), overrides)


def overridden(preset: Preset, overrides: list[str] | None) -> Preset:
    """A preset with `section.key=value` in place of what stood there.

    Raises:
        BadInput: another form, or an unknown section.
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
        target[key] = _parse_value(value)
    return Preset(preset.name, sections, model)


def preset_of_run(folder: str | os.PathLike) -> tuple[Preset, int]:
    """Preset and seed of a run, from the config.json in its folder alone.

    Raises:
        BadInput: it is no run's folder.
    """
    try:
        found = port.run_folder.settings_of(folder)
    except ValueError as error:
        raise BadInput(str(error)) from None
    wanted = {"preset": str, "prepare": dict, "train": dict, "evaluate": dict, "model": dict}
    missing = [key for key, kind in wanted.items() if not isinstance(found.get(key), kind)]
    if missing:
        raise BadInput(f"{Path(folder) / 'config.json'} is no run's: it has no {missing[0]}; name the "
                       "folder that the train stage wrote, as results/train/digits/0")
    sections = {name: dict(found[name]) for name in ("prepare", "train", "evaluate")}
    seed = sections["train"].pop("seed", 0)
    return Preset(found["preset"], sections, dict(found["model"])), int(seed)


def equivariance(path: str | os.PathLike = "params.yaml") -> Equivariance:
    """Section `equivariance` of a params file; the defaults where neither is there.

    Raises:
        BadInput: unknown settings in it.
    """
    section = (load_params(path).get("equivariance") or {}) if Path(path).exists() else {}
    return build(Equivariance, section, "equivariance")


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
    """A model from a folder that the train stage (or `port.save`) wrote, in evaluation mode.

    Raises:
        BadInput: no model there, or it cannot be read.
    """
    folder = Path(folder)
    inside = folder / port.run_folder.MODEL if port.run_folder.is_run(folder) else folder
    if not all((inside / name).exists() for name in ("config.json", "model.safetensors")):
        raise BadInput(f"no model in {folder}; run the train stage first, or name a folder with "
                       "config.json and model.safetensors")
    try:
        return port.load(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"the model in {folder} cannot be read: "
                       f"{' '.join(str(error).split())[:300]}") from None


def build(kind: type, given: dict, where: str, extra: tuple[str, ...] = ()):
    """A settings dataclass from a mapping, with types checked.

    Raises:
        BadInput: unknown key, wrong type or refused value.
    """
    known = {field.name: field for field in fields(kind)}
    refuse_unknown(given, (*known, *extra), where)
    values = {}
    for key, value in given.items():
        wanted = known[key].type.split(" |")[0]
        values[key] = _typed(value, wanted, f"{where}: {key}")
    try:
        return kind(**values)
    except ValueError as error:
        raise BadInput(f"{where}: {error}") from None


def refuse_unknown(given: dict, allowed, where: str) -> None:
    """Raise for the first key that is not allowed."""
    if not isinstance(given, dict):
        raise BadInput(f"{where}: expected keys and values, found {given!r}")
    for key in given:
        if key not in allowed:
            raise BadInput(f"{where}: {unknown('key', key, allowed)}")


def unknown(what: str, name: str, allowed) -> str:
    """`unknown key 'batchsize'; did you mean 'batch_size'?`"""
    near = difflib.get_close_matches(str(name), [str(a) for a in allowed], 1, 0.0)
    return f"unknown {what} {name!r}; did you mean {near[0]!r}?" if near else \
        f"unknown {what} {name!r}; there are none"


def folder_of(stage: str, preset: str, seed: int | None = None,
              results: str | os.PathLike = RESULTS) -> Path:
    """results/<stage>/<preset>[/<seed>]."""
    folder = Path(results) / stage / preset
    return folder if seed is None else folder / str(seed)


def evaluation_name(preset: str, on: str | None = None) -> str:
    """What results of a preset are called that was tested on another data source."""
    return preset if on is None else f"{preset}_on_{on}"


def _typed(value, wanted: str, where: str):
    """Accept what YAML may have written for a number (an int for a float, '1e-4' as a string)."""
    kinds = {"int": int, "float": float, "bool": bool, "str": str, "dict": dict, "list": list}
    if wanted.endswith(" | None"):
        if value is None:
            return None
        wanted = wanted.removesuffix(" | None")
    kind = kinds[wanted]
    if value is None and kind in (dict, list):
        return value
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    raise BadInput(f"{where} must be of type {wanted}, not {value!r}")


def _parse_value(text: str):
    value = _parse_yaml(text)
    if isinstance(value, str):
        try:
            return float(value)  # YAML 1.1 takes 1e-4 for a string
        except ValueError:
            pass
    return value


def _parse_yaml(text: str):
    """PyYAML, or what DVC brings; one of them is there wherever a pipeline runs."""
    try:
        import yaml
    except ImportError:
        try:
            from ruamel.yaml import YAML
            from ruamel.yaml.error import YAMLError
        except ImportError:
            raise BadInput("reading params.yaml needs PyYAML; install pyyaml") from None
        try:
            return YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            raise ValueError(str(error)) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
