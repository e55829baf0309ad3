"""The sections of a configuration: frozen dataclasses with the original's argument names.

`port.config` reads them from flags, arguments and manifests, and re-exports them.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.core.quirks import MODEL_REPAIRS


class ConfigError(ValueError):
    """A configuration that cannot be used; the message says which key, what was given, what fits."""


CHOICES: dict[str, tuple[str, ...]] = {
    "encoder_type": ("linear", "conv", "conv_att"),
    "template_nonlin": ("relu1", "sigmoid"),
    "color_nonlin": ("relu1", "sigmoid"),
    "noise_type": ("uniform", "logistic", "normal"),
    "vote_type": ("enc", "soft", "hard"),
    "pres_type": ("enc", "soft", "hard"),
    "target": ("image", "sobel"),
    "object_encoder": ("set_transformer", "mlp"),
    "prior_sparsity_loss_type": ("l2", "entropy", "kl"),
    "posterior_sparsity_loss_type": ("l2", "entropy", "kl"),
    "paddings": ("VALID",),
    "klass": ("ConstellationCapsule", "ConstellationDecoder"),
    "pdf": ("normal", "student"),
}


# The least a number may be; below, layers would be empty or draws undefined.
AT_LEAST = dict.fromkeys(
    ("canvas", "channels", "output_channels", "kernel_shapes", "strides", "n_caps", "n_caps_dims",
     "n_votes", "template_size", "n_channels", "n_heads", "n_dims", "n_output_dims", "n_outputs",
     "n_caps_params", "n_hiddens", "n_classes"), 1) | dict.fromkeys(
    ("n_features", "n_layers", "n_inducing_points", "noise_scale", "dropout_rate", "caps_dropout_rate"), 0)
BELOW_ONE = ("dropout_rate", "caps_dropout_rate")


@dataclass(frozen=True)
class CNN:
    """The part encoder's convolutions; a single kernel or stride serves all layers.

    `residual_blocks` of two 3x3 convolutions each follow every convolution (ours; the original has none).
    """

    output_channels: tuple[int, ...] = (128, 128, 128, 128)
    kernel_shapes: tuple[int, ...] = (3,)
    strides: tuple[int, ...] = (2, 2, 1, 1)
    paddings: str = "VALID"
    activate_final: bool = True
    residual_blocks: int = 0

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
    """Templates and the pixel mixture.

    With `inverse_space_transform` false a pose maps the canvas to the template (the ML@B port's option).
    """

    template_size: tuple[int, ...] = (11, 11)
    n_channels: int = 1
    learn_output_scale: bool = False
    colorize_templates: bool = False
    template_nonlin: str = "relu1"
    color_nonlin: str = "relu1"
    use_alpha_channel: bool = False
    inverse_space_transform: bool = True


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
    """Object capsules: `n_hiddens` is one size or a list; `noise_type` None draws no noise.

    With `n_caps_params` None the features are the parameters (Q39).
    """

    n_caps: int = 10
    n_caps_dims: int = 2
    n_votes: int = 16
    n_caps_params: int | None = 32
    n_hiddens: int | tuple[int, ...] = 128
    learn_vote_scale: bool = True
    deformations: bool = True
    noise_type: str | None = "uniform"
    noise_scale: float = 4.0
    similarity_transform: bool = False
    caps_dropout_rate: float = 0.0


@dataclass(frozen=True)
class Autoencoder:
    """Loss weights, gradient stops, what feeds the loss decoder and what it has to reconstruct.

    `object_encoder` is the set transformer or, in its place, an MLP of `n_layers` hidden layers of `n_dims`
    over poses, presences and features of all parts.

    The last three weigh the part capsules' own terms, as the ML@B port does; the original has only the
    likelihood, with weight 1.
    """

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
    target: str = "image"
    object_encoder: str = "set_transformer"
    rec_ll_weight: float = 1.0
    template_l1_weight: float = 0.0
    mse_weight: float = 0.0


# What the original does not have is said only where it is used: its recordings and the identity of a
# run know nothing of it.
OURS = {"cnn": ("residual_blocks",), "part_decoder": ("inverse_space_transform",),
        "autoencoder": ("rec_ll_weight", "template_l1_weight", "mse_weight")}

# Stands in a stored configuration for what nobody said and no shape shows; run with the default.
UNSET = "unset"

SECTIONS = {"cnn": CNN, "part_encoder": PartEncoder, "part_decoder": PartDecoder,
            "obj_encoder": ObjEncoder, "obj_decoder": ObjDecoder, "autoencoder": Autoencoder}


class Written:
    """How a configuration with part capsules is written down."""

    def to_arguments(self) -> dict[str, Any]:
        """Nested plain dictionary in the original's argument names, as `reference` takes it."""
        arguments = plain(self)
        arguments["part_decoder"]["output_size"] = [self.canvas, self.canvas]
        return arguments

    def to_json(self) -> str:
        """The configuration as JSON, unset settings as "unset"; `from_arguments` reads it back."""
        return to_json(self)


@dataclass(frozen=True)
class Config(Written):
    """The image model: `canvas` pixels a side, `channels` colours, six sections, chosen repairs.

    `unset` names the settings (as `section.name`) of a converted checkpoint that neither it nor its
    converter told; they hold the default. Two configurations that compute the same are equal.
    """

    kind: ClassVar[str] = "scae"
    canvas: int = 28
    channels: int = 1
    cnn: CNN = field(default_factory=CNN)
    part_encoder: PartEncoder = field(default_factory=PartEncoder)
    part_decoder: PartDecoder = field(default_factory=PartDecoder)
    obj_encoder: ObjEncoder = field(default_factory=ObjEncoder)
    obj_decoder: ObjDecoder = field(default_factory=ObjDecoder)
    autoencoder: Autoencoder = field(default_factory=Autoencoder)
    repairs: tuple[str, ...] = ()
    unset: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for repair in self.repairs:
            if repair not in MODEL_REPAIRS:
                raise ConfigError(unknown("repair", repair, MODEL_REPAIRS))
        for name, left, right in (
                ("obj_decoder.n_votes and part_encoder.n_caps", self.obj_decoder.n_votes,
                 self.part_encoder.n_caps),
                ("obj_encoder.n_outputs and obj_decoder.n_caps", self.obj_encoder.n_outputs,
                 self.obj_decoder.n_caps)):
            if left != right:
                raise ConfigError(f"{name} must agree: {left} and {right} given")
        if self.part_encoder.n_caps_dims != 6 or self.obj_decoder.n_caps_dims != 2:
            raise ConfigError("a part pose has 6 numbers and an object capsule 2 dimensions: "
                              f"n_caps_dims {self.part_encoder.n_caps_dims} and "
                              f"{self.obj_decoder.n_caps_dims} given")
        if self.autoencoder.object_encoder == "mlp" and (
                self.obj_encoder.dropout_rate or self.obj_encoder.n_inducing_points):
            raise ConfigError("object_encoder mlp has no attention: set dropout_rate and "
                              "n_inducing_points to 0")
        check_canvas(self)

    @property
    def feeds_templates(self) -> bool:
        """Whether the object encoder sees templates; an MLP gets none, as the original would call it."""
        return self.autoencoder.feed_templates and self.autoencoder.object_encoder == "set_transformer"

def plain(config: Any, whole: bool = False) -> dict[str, Any]:
    """Nested plain arguments of an image model; what the original does not have only where used.

    Args:
        config: any configuration with parts.
        whole: say everything.
    """
    arguments = json.loads(json.dumps(dataclasses.asdict(config)))
    del arguments["unset"]
    for section, names in OURS.items():
        if whole or (config.kind == "pcae" and section == "autoencoder"):
            continue
        for name in names:
            if arguments[section][name] == SECTIONS[section].__dataclass_fields__[name].default:
                del arguments[section][name]
    return arguments if config.kind == Config.kind else {"model": config.kind} | arguments


def to_json(config: Any, whole: bool = False) -> str:
    """An image model's configuration as JSON, unset settings as "unset"; `whole` as for `plain`."""
    return as_json(plain(config, whole), config.unset)


def as_json(arguments: dict[str, Any], unset: tuple[str, ...]) -> str:
    """Nested arguments as JSON, with "unset" at each `section.name` of `unset`."""
    for place in unset:
        section, _, name = place.partition(".")
        arguments[section][name] = UNSET
    return json.dumps(arguments, indent=1)


def check_canvas(config: Any) -> None:
    """Refuse convolutions that leave nothing of the canvas, and colours without features.

    Raises:
        ConfigError: the message names the settings.
    """
    if config.part_decoder.n_channels != config.channels:
        raise ConfigError("part_decoder.n_channels and channels must agree: "
                          f"{config.part_decoder.n_channels} and {config.channels} given")
    if config.part_decoder.colorize_templates and not config.part_encoder.n_features:
        raise ConfigError("colorize_templates takes the colour from the special features: set "
                          "n_part_special_features above 0 or colorize_templates to false")
    if config.cnn.output_side(config.canvas) < 1:
        raise ConfigError(f"canvas_size {config.canvas} is too small for the convolutions "
                          f"(strides {config.cnn.strides})")
    if config.cnn.residual_blocks < 0:
        raise ConfigError(f"residual_blocks must not be negative, {config.cnn.residual_blocks} given")


def unknown(what: str, given: Any, allowed: Iterable[Any]) -> str:
    """The message for a name that does not exist: the nearest one and all that do."""
    allowed = [str(a) for a in allowed]
    nearest = difflib.get_close_matches(str(given), allowed, n=1, cutoff=0.0)
    return (f"unknown {what} {given!r}: did you mean {nearest[0]!r}? "
            f"Allowed: {', '.join(sorted(allowed))}")


def _in_range(key: str, number: float) -> float:
    name = key.rpartition(".")[2]
    if not math.isfinite(number):
        raise ConfigError(f"{key} must be a finite number, {number} given")
    if number < AT_LEAST.get(name, number):
        raise ConfigError(f"{key} must be at least {AT_LEAST[name]}, {number:g} given")
    if name in BELOW_ONE and number >= 1:
        raise ConfigError(f"{key} must be below 1, {number:g} given: nothing would be left")
    return number


def convert_value(key: str, kind: Any, value: Any) -> Any:
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
                return _in_range(key, number)
        elif option is str and isinstance(value, str):
            if name in CHOICES and value not in CHOICES[name]:
                raise ConfigError(unknown(f"value of {key}", value, CHOICES[name]))
            return value
        elif typing.get_origin(option) is tuple and isinstance(value, Sequence):
            inner = typing.get_args(option)[0]
            try:
                items = json.loads(value) if isinstance(value, str) else value
            except ValueError:
                continue
            if not isinstance(items, Sequence):
                continue
            return tuple(convert_value(key, inner, item) for item in items)
    if name in CHOICES:
        raise ConfigError(unknown(f"value of {key}", value, CHOICES[name]))
    expected = getattr(kind, "__name__", str(kind)) if not typing.get_args(kind) else str(kind)
    raise ConfigError(f"{key}: expected {expected}, got {value!r}")
