"""Configuration of the image model: frozen sections with the original's argument names.

Three spellings are read: the nested class arguments (`from_arguments`), the flat names of the
original's command-line flags (`from_flat`) and a recording's manifest (`from_manifest`). Every
unknown key or value is an error that names the nearest valid one.
"""

from __future__ import annotations

import json
import typing
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from port.capsnet import config as capsnet_config
from port.capsnet.config import CapsNetConfig
from port.configuration.fields import (
    CHOICES,
    UNSET,
    ConfigError,
    convert_value,
    converted,
    mapping,
    refuse_unknown,
    unknown,
    word,
)
from port.configuration.plain import PlainConfig, Spelling
from port.constellation import config as config_constellation
from port.constellation.config import ConstellationConfig
from port.em import config as em_config
from port.em.config import EMConfig
from port.scae.config import (
    CNN,
    SECTIONS,
    Autoencoder,
    Config,
    ObjDecoder,
    ObjEncoder,
    PartDecoder,
    PartEncoder,
    to_json,
)
from port.scae.config_modes import (
    CONFIGS,
    FLATS,
    SECTIONS_OF,
    HierarchyConfig,
    ObjectConfig,
    PartConfig,
    kind_of,
)

__all__ = ["CHOICES", "CNN", "FLAT", "SECTIONS", "TRAINING_FLAGS", "UNSET", "AnyConfig", "Autoencoder",
           "CapsNetConfig", "Config", "ConfigError", "ConstellationConfig", "EMConfig", "HierarchyConfig",
           "ObjDecoder", "ObjEncoder", "ObjectConfig", "PartConfig", "PartDecoder", "PartEncoder",
           "explicit", "flat_name", "from_arguments", "from_flat", "from_manifest", "is_complete",
           "parse_flags", "read", "to_flat", "training_flags"]


AnyConfig = Config | PartConfig | ConstellationConfig | PlainConfig
# The families whose configuration is one of plain values: how each is spelled.
SPELLINGS: dict[str, Spelling] = {CapsNetConfig.kind: capsnet_config.SPELLING, EMConfig.kind: em_config.SPELLING}


def _section(name: str, values: Any, sections: Mapping[str, type] = SECTIONS) -> Any:
    cls = sections[name]
    hints = typing.get_type_hints(cls)
    refuse_unknown(values, hints, name)
    return cls(**{key: convert_value(f"{name}.{key}", hints[key], value)
                  for key, value in values.items()})


def from_arguments(arguments: Mapping[str, Any]) -> AnyConfig:
    """Configuration from nested class arguments; what is not given keeps its default.

    Args:
        arguments: `canvas`, `channels`, `repairs` and the sections, or those of a constellation
            model (`port.constellation.config`); a value "unset" is the default and is remembered as
            unset.

    Raises:
        ConfigError: unknown key or value, or a contradiction between sections.
    """
    model = word(mapping("a configuration", arguments), "model")
    if model in SPELLINGS:
        return SPELLINGS[model].read(arguments)
    constellation = config_constellation.is_constellation(arguments)
    cls = ConstellationConfig if constellation else CONFIGS[kind_of(arguments)]
    kinds = config_constellation.SECTIONS if constellation else SECTIONS_OF[cls.kind]
    top = {"n_points": 11} if constellation else {"canvas": 28, "channels": 1}
    allowed = (*(("model",) if "model" in arguments else ()), *top, "repairs", *kinds)
    for key in arguments:
        if key not in allowed:
            raise ConfigError(unknown("section", key, allowed))
    sections = {name: dict(mapping(name, arguments.get(name, {}))) for name in kinds}
    sections.get("part_decoder", {}).pop("output_size", None)
    unset = tuple(f"{section}.{name}" for section, values in sections.items() for name in values
                  if values[name] == UNSET)
    sections = {section: {name: value for name, value in values.items() if value != UNSET}
                for section, values in sections.items()}
    return cls(
        **{name: convert_value(name, int, arguments.get(name, default)) for name, default in top.items()},
        **{name: _section(name, values, kinds) for name, values in sections.items()},
        repairs=_repairs(arguments.get("repairs", ())), unset=unset)


def _repairs(given: Any) -> tuple[str, ...]:
    return converted("repairs", tuple[str, ...], given)


FLAT = FLATS[Config.kind]
# Flags that set one thing in two places.
_FLAGS_OF_TWO = ("n_channels", "n_part_caps", "n_obj_caps", "n_upper_caps")
# The original's command line: what is not given there has the default of the class arguments here.
FLAGS = ("canvas_size", "n_channels", "n_part_caps", "n_part_caps_dims", "n_part_special_features",
         "n_obj_caps", "n_obj_caps_params", "template_size", "colorize_templates", "use_alpha_channel",
         "template_nonlin", "color_nonlin", "prior_within_example_sparsity_weight",
         "prior_between_example_sparsity_weight", "posterior_within_example_sparsity_weight",
         "posterior_between_example_sparsity_weight")
TRAINING_FLAGS = {"batch_size": int, "lr": float, "max_train_steps": int, "grad_value_clip": float,
                  "grad_norm_clip": float, "model": str, "dataset": str, "name": str}
_DROPPED = {"use_lr_schedule": "the original builds the decay and discards it (Q07)"}


def to_flat(config: AnyConfig) -> dict[str, Any]:
    """Every setting under its flat name; `from_flat` reads it back."""
    if config.kind in SPELLINGS:
        return SPELLINGS[config.kind].written(config)
    if isinstance(config, ConstellationConfig):
        return {"model": config.kind} | {name: _value(config, *places[0])
                                         for name, places in config_constellation.FLAT.items()}
    named = {} if config.kind == Config.kind else {"model": config.kind}
    return named | {name: _value(config, *places[0]) for name, places in FLATS[config.kind].items()}


def from_flat(settings: Mapping[str, Any]) -> AnyConfig:
    """Configuration from flat names: the original's flags, else the class argument's name.

    Args:
        settings: for instance `canvas_size`, `n_part_caps`, `template_nonlin`, `vote_type`;
            `part_encoder.noise_scale` reaches one section where a name stands in two. Training
            flags (`lr`, `batch_size`, …) are accepted and left to `training_flags`.

    Raises:
        ConfigError: unknown key or value.
    """
    return from_arguments(_nested(mapping("settings", settings)))


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Flat settings as nested class arguments, nothing added but `n_votes`."""
    for key in _DROPPED.keys() & settings.keys():
        warnings.warn(f"{key} is dropped: {_DROPPED[key]}", stacklevel=3)
    model = word(settings, "model")
    if model in SPELLINGS:
        return SPELLINGS[model].nested(settings, (*TRAINING_FLAGS, *_DROPPED))
    if config_constellation.is_constellation(settings):
        return config_constellation.nested(settings, (*TRAINING_FLAGS, *_DROPPED))
    kind = kind_of(settings)
    flat, sections = FLATS[kind], {}
    # A plain name reaches every section that has it; the dotted one is applied last.
    for key, value in sorted(settings.items(), key=lambda pair: "." in pair[0]):
        if key in _DROPPED:
            continue
        if key in TRAINING_FLAGS:
            continue
        elif key not in flat:
            raise ConfigError(unknown("key", key, [k for k in (*flat, *TRAINING_FLAGS) if "." not in k]))
        else:
            for section, name in flat[key]:
                sections.setdefault(section, {})[name] = (
                    [value] * 2 if name == "template_size" and value != UNSET
                    and not isinstance(value, list | tuple) else value)
    top = sections.pop("", {})
    if "n_caps" in sections.get("part_encoder", {}) and kind != PartConfig.kind:
        sections.setdefault("obj_decoder", {}).setdefault("n_votes", sections["part_encoder"]["n_caps"])
    return ({} if kind == Config.kind else {"model": kind}) | {**top, **sections}


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
    """The training flags among flat settings, in their types.

    Raises:
        ConfigError: a value of another type.
    """
    return {key: converted(key, kind, settings[key]) for key, kind in TRAINING_FLAGS.items() if key in settings}


def from_manifest(manifest: Mapping[str, Any] | str | Path) -> AnyConfig:
    """Configuration of a recording: its `arguments`, or its `flags` as a command line.

    Args:
        manifest: the content of a `manifest.json`, or its path (or its folder's).

    Raises:
        ConfigError: neither key is there, the model is another one, or the file cannot be read.
    """
    manifest = _mapping(manifest)
    if "arguments" not in manifest and "flags" not in manifest:
        raise ConfigError("no configuration in the manifest: expected the key 'arguments' or 'flags'")
    return from_arguments(_spelled_out(manifest))


def read(source: AnyConfig | Mapping[str, Any] | str | Path | None) -> AnyConfig | None:
    """A configuration from whatever names one: itself, a manifest, nested or flat settings, a file.

    Raises:
        ConfigError: unknown key or value, a contradiction, or a file that cannot be read.
    """
    if source is None or isinstance(source, AnyConfig):
        return source
    return from_arguments(_spelled_out(_mapping(source)))


def _mapping(source: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    if not isinstance(source, str | Path):
        return mapping("a configuration", source)
    path = Path(source)
    try:
        path = path / "manifest.json" if path.is_dir() else path
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"no configuration in {path}: {error}") from None
    return mapping(str(path), found)


def _spelled_out(source: Mapping[str, Any], model: str | None = None) -> dict[str, Any]:
    """What a manifest, nested or flat settings say, as nested class arguments without defaults.

    `model` is the kind of those that do not name one.
    """
    if "arguments" in source:
        arguments = dict(mapping("arguments", source["arguments"]))
    elif "flags" in source:
        arguments = _nested(parse_flags(converted("flags", tuple[str, ...], source["flags"])))
    elif any(isinstance(source.get(name), Mapping) for name in SECTIONS_OF[HierarchyConfig.kind]):
        arguments = dict(source)
    else:
        named = "model" in source or model in (None, Config.kind)
        arguments = _nested(source if named else {**source, "model": model})
    if not isinstance(arguments.get("part_encoder", {}), Mapping):
        raise ConfigError("these are the arguments of another model; this is the image model ('scae')")
    return arguments


def flat_name(section: str, name: str, kind: str = Config.kind) -> str:
    """The flat name of a class argument: the original's flag, else the shortest name that is unique."""
    return _FLAT_NAMES[kind][section, name]


_FLAT_NAMES = {kind: {place: min((key for key, places in flat.items() if place in places
                                  and (len(places) == 1 or key in _FLAGS_OF_TWO)),
                                 key=lambda key: "." in key)
                      for places in flat.values() for place in places} for kind, flat in FLATS.items()}


def explicit(source: AnyConfig | Mapping[str, Any] | str | Path | None, model: str | None = None
             ) -> dict[str, Any]:
    """What a source says outright, by flat name and in the settings' types; defaults are left out.

    A command line says all flags of the original: one that is not given has the flag's default.

    Args:
        source: itself, a manifest, nested or flat settings, a file.
        model: the kind they must be, such as `scae`; None is any.

    Raises:
        ConfigError: as `read`; settings of another model; or two names of one thing with different
            values.
    """
    if source is None:
        return {}
    if isinstance(source, Config | PartConfig):
        stated = json.loads(to_json(source, True))
    else:
        stated = json.loads(source.to_json()) if isinstance(source, AnyConfig) else _mapping(source)
    arguments = _spelled_out(stated, model)
    constellation = config_constellation.is_constellation(arguments)
    named = word(arguments, "model")
    said_of = ConstellationConfig.kind if constellation else named if named in SPELLINGS else kind_of(arguments)
    if model not in (None, said_of):
        raise ConfigError(f"these are settings of the model {said_of!r}, the checkpoint's is {model!r}")
    if said_of in SPELLINGS:
        spelling = SPELLINGS[said_of]
        return spelling.outright(spelling.nested(arguments), stated)
    said = {}
    if "flags" in stated and "arguments" not in stated and not constellation:
        said = {flag: _value(Config(), *FLAT[flag][0]) for flag in FLAGS}
    given: dict[str, Any] = {}
    for section, name, value in _settings_of(arguments):
        key = config_constellation.flat_name(section, name) if constellation else flat_name(
            section, name, said_of)
        if key in given and given[key] != value:
            raise ConfigError(f"{key} is given twice, as {given[key]!r} and {value!r}")
        given[key] = value
    return said | given


def is_complete(source: AnyConfig | Mapping[str, Any] | str | Path | None) -> bool:
    """Whether a source leaves nothing open: a whole configuration or a recording's manifest."""
    if source is None or isinstance(source, AnyConfig):
        return source is not None and not source.unset
    return bool({"arguments", "flags"} & set(_mapping(source)))


def _settings_of(arguments: Mapping[str, Any]) -> Iterable[tuple[str, str, Any]]:
    """(section, name, value) of nested arguments that are said, in their types; not yet checked as one."""
    constellation = config_constellation.is_constellation(arguments)
    kinds = config_constellation.SECTIONS if constellation else SECTIONS_OF[kind_of(arguments)]
    top = ("n_points",) if constellation else ("canvas", "channels")
    for key, value in arguments.items():
        if key in top:
            yield "", key, convert_value(key, int, value)
        elif key == "repairs":
            yield "", key, _repairs(value)
        elif key in kinds:
            values = {name: v for name, v in mapping(key, value).items() if v != UNSET and name != "output_size"}
            section = _section(key, values, kinds)
            yield from ((key, name, getattr(section, name)) for name in values)
        elif key != "model":
            raise ConfigError(unknown("section", key, (*top, "repairs", *kinds)))


def _value(config: AnyConfig, section: str, name: str) -> Any:
    return getattr(getattr(config, section) if section else config, name)
