"""Configurations of the routing ancestors, CapsNet and matrix capsules, and how they are spelled.

A flat name is the setting's own (`port.capsnet.settings.Settings`, `port.em.settings.Network`); of
matrix capsules `routing.<name>` and `class_routing.<name>` reach one kind of layer, a plain `<name>` of a
routing both. `program` starts from a public program's settings (`paper`, `official`, `xg`, `ibm`), which
the others overlay. `port.config` reads every configuration and hands those with `model: capsnet` or
`model: em` to this file.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from port.capsnet import settings as capsnet_settings
from port.em import losses as em_losses
from port.em import settings as em_settings
from port.scae.config import ConfigError, convert_value, unknown


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON would hold it: lists for tuples."""
    return json.loads(json.dumps(values))


def _network(network: em_settings.Network) -> dict[str, Any]:
    """A network's settings without the programs' learning rates, for which there is section `train`."""
    return {name: value for name, value in dataclasses.asdict(network).items() if name not in _TRAINING}


_TRAINING = ("lr", "lr_decay", "lr_decay_steps")


class _Routing:
    """What both configurations share: plain values, and nothing unset or repaired."""

    kind: ClassVar[str]
    repairs: ClassVar[tuple[str, ...]] = ()
    unset: ClassVar[tuple[str, ...]] = ()

    def to_arguments(self) -> dict[str, Any]:
        """Every setting as plain values; `from_arguments` reads it back."""
        raise NotImplementedError

    def to_json(self) -> str:
        """The configuration as JSON."""
        return json.dumps(self.to_arguments(), indent=1)


@dataclass(frozen=True)
class CapsNetConfig(_Routing):
    """A capsule network with dynamic routing."""

    kind: ClassVar[str] = "capsnet"
    settings: capsnet_settings.Settings = field(default_factory=capsnet_settings.Settings)

    @property
    def canvas(self) -> int:
        """Side of the images in pixels."""
        return self.settings.canvas

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.settings.channels

    @property
    def n_classes(self) -> int:
        """Class capsules."""
        return self.settings.classes

    def to_arguments(self) -> dict[str, Any]:
        return _plain({"model": self.kind} | dataclasses.asdict(self.settings))


@dataclass(frozen=True)
class EMConfig(_Routing):
    """Matrix capsules with EM routing.

    Attributes:
        canvas: side of the images in pixels; the network takes any that its windows fit.
        margin: schedule of the spread loss, of `em_losses.MARGINS`.
        margin_ramp: updates of the schedule `linear`.
        network: everything else.
    """

    kind: ClassVar[str] = "em"
    canvas: int = 32
    margin: str = "sigmoid"
    margin_ramp: int = 10_000
    network: em_settings.Network = field(default_factory=em_settings.Network)

    def __post_init__(self) -> None:
        if self.margin not in em_losses.MARGINS:
            raise ValueError(f"margin must be one of {', '.join(em_losses.MARGINS)}, not {self.margin!r}")
        if self.margin_ramp < 1:
            raise ValueError(f"margin_ramp must be at least 1, not {self.margin_ramp}")
        network, side = self.network, self.canvas
        steps = [(network.conv_kernel, network.conv_stride, network.conv_padding),
                 *((kernel, stride, network.padding)
                   for kernel, stride in zip(network.kernels, network.strides))]
        for kernel, stride, padding in steps:
            side = -(-side // stride) if padding == "SAME" else (side - kernel) // stride + 1
            if side < 1:
                raise ValueError(f"canvas: {self.canvas} pixels are too few for the kernels "
                                 f"{[step[0] for step in steps]} with strides "
                                 f"{[step[1] for step in steps]}")

    @property
    def channels(self) -> int:
        """Of the images."""
        return self.network.image_channels

    @property
    def n_classes(self) -> int:
        """Class capsules."""
        return self.network.classes

    def to_arguments(self) -> dict[str, Any]:
        return _plain({"model": self.kind, **{name: getattr(self, name) for name in _EM_OWN},
                       **_network(self.network)})


RoutingConfig = CapsNetConfig | EMConfig
_EM_OWN = ("canvas", "margin", "margin_ramp")
_SECTIONS = ("routing", "class_routing")
_ROUTING = typing.get_type_hints(em_settings.Routing)


class _Kind(typing.NamedTuple):
    """How one of the models is spelled: names with types, programs, and what builds it."""

    hints: dict[str, Any]
    programs: Mapping[str, Mapping[str, Any]]
    build: Callable[[dict[str, Any]], RoutingConfig]


def _build_em(values: dict[str, Any]) -> EMConfig:
    own = {name: values.pop(name) for name in _EM_OWN if name in values}
    return EMConfig(**own, network=em_settings.Network(**{
        name: em_settings.Routing(**value) if name in _SECTIONS else value
        for name, value in values.items()}))


_KINDS = {
    CapsNetConfig.kind: _Kind(
        typing.get_type_hints(capsnet_settings.Settings),
        {name: dataclasses.asdict(capsnet_settings.preset(name)) for name in capsnet_settings.PRESETS},
        lambda values: CapsNetConfig(capsnet_settings.Settings(**values))),
    EMConfig.kind: _Kind(
        {name: hint for name, hint in {
            **{name: typing.get_type_hints(EMConfig)[name] for name in _EM_OWN},
            **typing.get_type_hints(em_settings.Network)}.items() if name not in _TRAINING},
        {name: _network(network) for name, network in em_settings.PRESETS.items()},
        _build_em),
}
KINDS = tuple(_KINDS)


def is_routing(settings: Mapping[str, Any]) -> bool:
    """Whether nested or flat settings name one of these models."""
    return settings.get("model") in KINDS


def nested(settings: Mapping[str, Any], ignored: Collection[str] = ()) -> dict[str, Any]:
    """Flat settings with `routing` and `class_routing` as sections, and a `program` spelled out.

    Args:
        settings: flat names, `model` among them; sections may be there already.
        ignored: names that belong to training.

    Raises:
        ConfigError: a name or a program that does not exist.
    """
    kind = _KINDS[settings["model"]]
    arguments: dict[str, Any] = {"model": settings["model"]}
    if "program" in settings:
        if settings["program"] not in kind.programs:
            raise ConfigError(unknown("program", settings["program"], kind.programs))
        arguments |= _plain(kind.programs[settings["program"]])
    # A plain name of a routing reaches both sections; the dotted one is applied last.
    for key, value in sorted(settings.items(), key=lambda pair: "." in pair[0]):
        section, dot, name = key.rpartition(".")
        if key in ("model", "program") or key in ignored:
            continue
        if not dot and key in kind.hints:
            if key in _SECTIONS and isinstance(value, Mapping):
                value = arguments.get(key, {}) | value
            arguments[key] = value
        elif (name if dot else key) in _ROUTING and "routing" in kind.hints and (
                not dot or section in _SECTIONS):
            for place in (section,) if dot else _SECTIONS:
                arguments[place] = arguments.get(place, {}) | {name: value}
        else:
            names = [*kind.hints, *(_ROUTING if "routing" in kind.hints else ()), "program", *ignored]
            raise ConfigError(unknown("key", key, [each for each in names if each not in _SECTIONS]))
    return arguments


def said(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What nested arguments say, by flat name and in the settings' types.

    Raises:
        ConfigError: an unknown name, or a value of another type.
    """
    hints = _KINDS[arguments["model"]].hints
    found: dict[str, Any] = {}
    for key, value in arguments.items():
        if key == "model":
            continue
        if key not in hints:
            raise ConfigError(unknown("key", key, hints))
        if key in _SECTIONS:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key}: expected keys and values, got {value!r}")
            for name, inner in value.items():
                if name not in _ROUTING:
                    raise ConfigError(unknown(f"key of {key}", name, _ROUTING))
                found[f"{key}.{name}"] = convert_value(f"{key}.{name}", _ROUTING[name], inner)
        else:
            found[key] = convert_value(key, hints[key], value)
    return found


def said_outright(arguments: Mapping[str, Any], source: Mapping[str, Any]) -> dict[str, Any]:
    """`said`, without what a `program` has in common with all others of its kind, such as its sizes.

    Of a program there remains what makes it that program; the rest are defaults that a checkpoint of
    another size does not contradict.

    Args:
        arguments: nested, a `program` spelled out.
        source: the settings as they were given, flat or nested.

    Raises:
        ConfigError: as `said`.
    """
    found = said(arguments)
    if source.get("program") is None:
        return found
    programs = [said({"model": arguments["model"]} | _plain(values))
                for values in _KINDS[arguments["model"]].programs.values()]

    def given(key: str) -> bool:
        section, _, name = key.rpartition(".")
        inner = source.get(section)
        return key in source or name in source or (isinstance(inner, Mapping) and name in inner)
    return {key: value for key, value in found.items()
            if given(key) or any(each[key] != programs[0][key] for each in programs)}


def from_arguments(arguments: Mapping[str, Any]) -> RoutingConfig:
    """The configuration from nested arguments; what is not given keeps its default.

    Raises:
        ConfigError: an unknown name, a value of another type or one that is not allowed.
    """
    values: dict[str, Any] = {}
    for key, value in said(nested(arguments)).items():
        section, dot, name = key.rpartition(".")
        if dot:
            values.setdefault(section, {})[name] = value
        else:
            values[key] = value
    try:
        return _KINDS[arguments["model"]].build(values)
    except ValueError as error:
        raise ConfigError(f"model {arguments['model']}: {error}") from None


def to_flat(config: RoutingConfig) -> dict[str, Any]:
    """Every setting under its flat name; `port.config.from_flat` reads it back."""
    return {"model": config.kind} | said(config.to_arguments())
