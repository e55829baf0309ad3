"""Configuration of the image model: frozen sections with the original's argument names.

Three spellings are read: the nested class arguments (`from_arguments`), the flat names of the
original's command-line flags (`from_flat`) and a recording's manifest (`from_manifest`). Every
unknown key or value is an error that names the nearest valid one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from port.quirks import MODEL_REPAIRS


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, what was given, what fits."""


CHOICES: dict[str, tuple[str, ...]] = {
    "encoder_type": ("linear", "conv", "conv_att"),
    "template_nonlin": ("relu1", "sigmoid"),
    "color_nonlin": ("relu1", "sigmoid"),
    "noise_type": ("uniform", "logistic", "normal"),
    "vote_type": ("enc", "soft", "hard"),
    "pres_type": ("enc", "soft", "hard"),
    "prior_sparsity_loss_type": ("l2", "entropy", "kl"),
    "posterior_sparsity_loss_type": ("l2", "entropy", "kl"),
    "paddings": ("VALID",),
}


@dataclass(frozen=True)
class CNN:
    """The part encoder's convolutions; a single kernel or stride serves all layers."""

    output_channels: tuple[int, ...] = (128, 128, 128, 128)
    kernel_shapes: tuple[int, ...] = (3,)
    strides: tuple[int, ...] = (2, 2, 1, 1)
    paddings: str = "VALID"
    activate_final: bool = True

    def output_side(self, canvas: int) -> int:
        """Side of the embedding grid for a square canvas; 0 or less when the canvas is too small."""
        n_layers = len(self.output_channels)
        kernels = self.kernel_shapes * (n_layers if len(self.kernel_shapes) == 1 else 1)
        strides = self.strides * (n_layers if len(self.strides) == 1 else 1)
        for kernel, stride in zip(kernels, strides, strict=True):
            canvas = (canvas - kernel) // stride + 1
        return canvas


@dataclass(frozen=True)
class PartEncoder:
    """Part capsules; `n_features` special features each."""

    n_caps: int = 16
    n_caps_dims: int = 6
    n_features: int = 16
    noise_scale: float = 4.0
    similarity_transform: bool = False
    encoder_type: str = "conv_att"


@dataclass(frozen=True)
class PartDecoder:
    """Templates and the pixel mixture."""

    template_size: tuple[int, ...] = (11, 11)
    n_channels: int = 1
    learn_output_scale: bool = False
    colorize_templates: bool = False
    template_nonlin: str = "relu1"
    color_nonlin: str = "relu1"
    use_alpha_channel: bool = False


@dataclass(frozen=True)
class ObjEncoder:
    """The set transformer."""

    n_layers: int = 3
    n_heads: int = 1
    n_dims: int = 16
    n_output_dims: int = 256
    n_outputs: int = 10
    layer_norm: bool = True
    dropout_rate: float = 0.0
    n_inducing_points: int = 0


@dataclass(frozen=True)
class ObjDecoder:
    """Object capsules: `n_hiddens` is one size or a list; `noise_type` None draws no noise."""

    n_caps: int = 10
    n_caps_dims: int = 2
    n_votes: int = 16
    n_caps_params: int = 32
    n_hiddens: int | tuple[int, ...] = 128
    learn_vote_scale: bool = True
    deformations: bool = True
    noise_type: str | None = "uniform"
    noise_scale: float = 4.0
    similarity_transform: bool = False
    caps_dropout_rate: float = 0.0


@dataclass(frozen=True)
class Autoencoder:
    """Loss weights, gradient stops and what feeds the loss decoder."""

    n_classes: int = 10
    dynamic_l2_weight: float = 10.0
    caps_ll_weight: float = 1.0
    vote_type: str = "enc"
    pres_type: str = "enc"
    stop_grad_caps_inpt: bool = True
    stop_grad_caps_target: bool = True
    prior_sparsity_loss_type: str = "l2"
    prior_within_example_sparsity_weight: float = 1.0
    prior_between_example_sparsity_weight: float = 1.0
    prior_within_example_constant: float = 0.0
    posterior_sparsity_loss_type: str = "entropy"
    posterior_within_example_sparsity_weight: float = 10.0
    posterior_between_example_sparsity_weight: float = 10.0
    primary_caps_sparsity_weight: float = 0.0
    weight_decay: float = 0.0
    feed_templates: bool = True
    probe: bool = True


SECTIONS = {"cnn": CNN, "part_encoder": PartEncoder, "part_decoder": PartDecoder,
            "obj_encoder": ObjEncoder, "obj_decoder": ObjDecoder, "autoencoder": Autoencoder}


@dataclass(frozen=True)
class Config:
    """The image model: `canvas` pixels a side, `channels` colours, six sections, chosen repairs."""

    canvas: int = 28
    channels: int = 1
    cnn: CNN = field(default_factory=CNN)
    part_encoder: PartEncoder = field(default_factory=PartEncoder)
    part_decoder: PartDecoder = field(default_factory=PartDecoder)
    obj_encoder: ObjEncoder = field(default_factory=ObjEncoder)
    obj_decoder: ObjDecoder = field(default_factory=ObjDecoder)
    autoencoder: Autoencoder = field(default_factory=Autoencoder)
    repairs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for repair in self.repairs:
            if repair not in MODEL_REPAIRS:
                raise ConfigError(_unknown("repair", repair, MODEL_REPAIRS))
        for name, left, right in (
                ("obj_decoder.n_votes and part_encoder.n_caps", self.obj_decoder.n_votes,
                 self.part_encoder.n_caps),
                ("obj_encoder.n_outputs and obj_decoder.n_caps", self.obj_encoder.n_outputs,
                 self.obj_decoder.n_caps),
                ("part_decoder.n_channels and channels", self.part_decoder.n_channels,
                 self.channels)):
            if left != right:
                raise ConfigError(f"{name} must agree: {left} and {right} given")
        if self.part_encoder.n_caps_dims != 6 or self.obj_decoder.n_caps_dims != 2:
            raise ConfigError("a part pose has 6 numbers and an object capsule 2 dimensions: "
                              f"n_caps_dims {self.part_encoder.n_caps_dims} and "
                              f"{self.obj_decoder.n_caps_dims} given")
        if self.part_decoder.colorize_templates and not self.part_encoder.n_features:
            raise ConfigError("colorize_templates takes the colour from the special features: set "
                              "n_part_special_features above 0 or colorize_templates to false")
        if self.cnn.output_side(self.canvas) < 1:
            raise ConfigError(f"canvas_size {self.canvas} is too small for the convolutions "
                              f"(strides {self.cnn.strides})")

    def to_arguments(self) -> dict[str, Any]:
        """Nested plain dictionary in the original's argument names, as `reference` takes it."""
        arguments = json.loads(self.to_json())
        arguments["part_decoder"]["output_size"] = [self.canvas, self.canvas]
        return arguments

    def to_json(self) -> str:
        """The configuration as JSON; `from_arguments(json.loads(…))` reads it back."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    def to_flat(self) -> dict[str, Any]:
        """Every setting under its flat name; `from_flat` reads it back."""
        return {name: _get(self, places[0]) for name, places in FLAT.items()}


def _unknown(what: str, given: Any, allowed: Iterable[Any]) -> str:
    allowed = [str(a) for a in allowed]
    nearest = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.0)
    return (f"unknown {what} {given!r}: did you mean {nearest[0]!r}? "
            f"Allowed: {', '.join(sorted(allowed))}")


def _get(config: Config, place: tuple[str, str]) -> Any:
    section, name = place
    return getattr(getattr(config, section) if section else config, name)


def _convert(key: str, kind: Any, value: Any) -> Any:
    """`value` as the annotated type, or a ConfigError; strings are read as on a command line."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    name = key.rpartition(".")[2]
    for option in options:
        if option is types.NoneType and value in (None, "None", "none", ""):
            return None
        if option is bool:
            if isinstance(value, bool):
                return value
            if str(value).lower() in ("true", "false"):
                return str(value).lower() == "true"
        elif option in (int, float) and not isinstance(value, bool | list | tuple):
            try:
                number = option(value)
            except (TypeError, ValueError):
                continue
            if option is float or float(value) == number:
                return number
        elif option is str and isinstance(value, str):
            if name in CHOICES and value not in CHOICES[name]:
                raise ConfigError(_unknown(f"value of {key}", value, CHOICES[name]))
            return value
        elif typing.get_origin(option) is tuple and isinstance(value, Sequence):
            inner = typing.get_args(option)[0]
            items = json.loads(value) if isinstance(value, str) else value
            return tuple(_convert(key, inner, item) for item in items)
    if name in CHOICES:
        raise ConfigError(_unknown(f"value of {key}", value, CHOICES[name]))
    raise ConfigError(f"{key}: {value!r} is not of type {kind}")


def _section(name: str, values: Mapping[str, Any]) -> Any:
    cls = SECTIONS[name]
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(_unknown(f"key of {name}", key, hints))
    return cls(**{key: _convert(f"{name}.{key}", hints[key], value)
                  for key, value in values.items()})


def from_arguments(arguments: Mapping[str, Any]) -> Config:
    """Configuration from nested class arguments; what is not given keeps its default.

    Args:
        arguments: `canvas`, `channels`, `repairs` and the sections.

    Raises:
        ConfigError: unknown key or value, or a contradiction between sections.
    """
    allowed = ("canvas", "channels", "repairs", *SECTIONS)
    for key in arguments:
        if key not in allowed:
            raise ConfigError(_unknown("section", key, allowed))
    sections = {name: dict(arguments.get(name, {})) for name in SECTIONS}
    sections["part_decoder"].pop("output_size", None)
    return Config(_convert("canvas", int, arguments.get("canvas", 28)),
                  _convert("channels", int, arguments.get("channels", 1)),
                  **{name: _section(name, values) for name, values in sections.items()},
                  repairs=tuple(arguments.get("repairs", ())))


def _flat_names() -> dict[str, tuple[tuple[str, str], ...]]:
    """Flat name → the places it sets; flags by their own names, the rest by the argument's name."""
    flags = {"canvas_size": (("", "canvas"),),
             "n_channels": (("", "channels"), ("part_decoder", "n_channels")),
             "n_part_caps": (("part_encoder", "n_caps"), ("obj_decoder", "n_votes")),
             "n_part_caps_dims": (("part_encoder", "n_caps_dims"),),
             "n_part_special_features": (("part_encoder", "n_features"),),
             "n_obj_caps": (("obj_decoder", "n_caps"), ("obj_encoder", "n_outputs")),
             "n_obj_caps_params": (("obj_decoder", "n_caps_params"),)}
    taken = {place for places in flags.values() for place in places}
    for section, cls in SECTIONS.items():
        for item in dataclasses.fields(cls):
            place = (section, item.name)
            if place not in taken:
                flags[f"{section}.{item.name}"] = (place,)
                flags[item.name] = (*flags.get(item.name, ()), place)
    flags["repairs"] = (("", "repairs"),)
    return flags


FLAT = _flat_names()
TRAINING_FLAGS = {"batch_size": int, "lr": float, "max_train_steps": int, "grad_value_clip": float,
                  "grad_norm_clip": float, "model": str, "dataset": str, "name": str}
_DROPPED = {"use_lr_schedule": "the original builds the decay and discards it (Q07)"}


def from_flat(settings: Mapping[str, Any]) -> Config:
    """Configuration from flat names: the original's flags, else the class argument's name.

    Args:
        settings: for instance `canvas_size`, `n_part_caps`, `template_nonlin`, `vote_type`;
            `part_encoder.noise_scale` reaches one section where a name stands in two. Training
            flags (`lr`, `batch_size`, …) are accepted and left to `training_flags`.

    Raises:
        ConfigError: unknown key or value.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in ("", *SECTIONS)}
    # A plain name reaches every section that has it; the dotted one is applied last.
    for key, value in sorted(settings.items(), key=lambda pair: "." in pair[0]):
        if key in _DROPPED:
            warnings.warn(f"{key} is dropped: {_DROPPED[key]}", stacklevel=2)
        elif key in TRAINING_FLAGS:
            if key == "model" and value not in ("scae", None):
                raise ConfigError(f"model {value!r}: this is the image model ('scae')")
        elif key not in FLAT:
            raise ConfigError(_unknown("key", key, [k for k in (*FLAT, *TRAINING_FLAGS) if "." not in k]))
        else:
            for section, name in FLAT[key]:
                sections[section][name] = ([int(value)] * 2 if name == "template_size"
                                           and not isinstance(value, list | tuple) else value)
    top = sections.pop("")
    if "n_caps" in sections["part_encoder"]:
        sections["obj_decoder"].setdefault("n_votes", sections["part_encoder"]["n_caps"])
    return from_arguments({**top, **sections})


def parse_flags(flags: Iterable[str]) -> dict[str, Any]:
    """`--name=value` strings to a flat dictionary, as the original's command line reads them.

    Raises:
        ConfigError: a string of another form.
    """
    settings = {}
    for flag in flags:
        key, sign, value = flag.lstrip("-").partition("=")
        if not sign or not flag.startswith("--"):
            raise ConfigError(f"flag {flag!r}: expected --name=value")
        if key == "prior_within_example_constant":
            warnings.warn(f"--{key} is dropped: the original defines no such flag (Q09)", stacklevel=2)
            continue
        settings[key] = value
    return settings


def training_flags(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training flags among flat settings, in their types."""
    return {key: kind(settings[key]) for key, kind in TRAINING_FLAGS.items() if key in settings}


def from_manifest(manifest: Mapping[str, Any] | str | Path) -> Config:
    """Configuration of a recording: its `arguments`, or its `flags` as a command line.

    Args:
        manifest: the content of a `manifest.json`, or its path (or its folder's).

    Raises:
        ConfigError: neither key is there, or the model is another one.
    """
    if isinstance(manifest, str | Path):
        path = Path(manifest)
        path = path / "manifest.json" if path.is_dir() else path
        manifest = json.loads(path.read_text())
    if "arguments" in manifest:
        return from_arguments(manifest["arguments"])
    if "flags" in manifest:
        return from_flat(parse_flags(manifest["flags"]))
    raise ConfigError("no configuration in the manifest: expected the key 'arguments' or 'flags'")


def read(source: Config | Mapping[str, Any] | str | Path | None) -> Config | None:
    """A configuration from whatever names one: itself, a manifest, nested or flat settings, a file."""
    if source is None or isinstance(source, Config):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        path = path / "manifest.json" if path.is_dir() else path
        source = json.loads(path.read_text())
    if "arguments" in source or "flags" in source:
        return from_manifest(source)
    if any(isinstance(source.get(name), Mapping) for name in SECTIONS):
        return from_arguments(source)
    return from_flat(source)
