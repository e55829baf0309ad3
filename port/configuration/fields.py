"""Fields of a configuration: its error, its sections, and values converted to the type of their field."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterable, Sequence
from typing import Any

from port.configuration import limits, names


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


# Range of each number by its setting's name; the families add theirs as they define their sections.
LIMITS: dict[str, limits.Limits] = {}


class Section:
    """A section of a configuration, whose numbers lie in the ranges beside their fields."""

    def __post_init__(self) -> None:
        limits.check(self, ConfigError)


# Stands in a stored configuration for what nobody said and no shape shows; run with the default.
UNSET = "unset"


def as_json(arguments: dict[str, Any], unset: tuple[str, ...]) -> str:
    """Nested arguments as JSON, with "unset" at each `section.name` of `unset`."""
    for place in unset:
        section, _, name = place.partition(".")
        arguments[section][name] = UNSET
    return json.dumps(arguments, indent=1)


def unknown(what: str, given: Any, allowed: Iterable[Any]) -> str:
    """The message for a name that does not exist: the nearest one and all that do."""
    allowed = [str(a) for a in allowed]
    return (f"unknown {what} {given!r}: did you mean {names.meant(given, allowed)!r}? "
            f"Allowed: {', '.join(sorted(allowed))}")


def _in_range(key: str, number: float) -> float:
    words = LIMITS.get(key.rpartition(".")[2], limits.Limits()).refusal(number)
    if words:
        raise ConfigError(f"{key} {words}, {number:g} given")
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
