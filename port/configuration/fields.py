"""Fields of a configuration: its error, its sections, and values converted to the type of their field.

The one place where settings are checked, of models and of stages. pydantic would do as much, but not say what was
meant by a wrong name, and the port is imported with little more than torch and NumPy at hand.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from port.configuration import limits, names

Settings = TypeVar("Settings")
MOST_LISTED = 12  # names that a message lists; of more it gives the nearest alone


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
    """`unknown key 'batchsize'; did you mean 'batch_size'?`, and all names where they are few.

    Args:
        what: kind of the name, as `key` or `value of wandb`.
        given: the name that does not exist.
        allowed: those that do.
    """
    allowed = [str(a) for a in allowed]
    near = names.meant(given, allowed)
    if near is None:
        return f"unknown {what} {given!r}; there are none"
    listed = f" Allowed: {', '.join(sorted(allowed))}" if len(allowed) <= MOST_LISTED else ""
    return f"unknown {what} {given!r}; did you mean {near!r}?{listed}"


def refuse_unknown(given: Any, allowed: Collection[str], where: str) -> None:
    """Raise for what is no mapping, and for the first key that is not allowed.

    Args:
        given: as read from a file.
        allowed: names of keys.
        where: place of the mapping, for the message.

    Raises:
        ConfigError: says what, where, and the nearest key.
    """
    for key in mapping(where, given):
        if key not in allowed:
            raise ConfigError(f"{where}: {unknown('key', key, allowed)}")


def mapping(where: str, given: Any) -> Mapping[str, Any]:
    """What was read, where it is keys and values.

    Args:
        where: its place, for the message.
        given: as read from a file.

    Raises:
        ConfigError: something else, or a key that is no text.
    """
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: expected keys and values, found {str(given)[:60]!r}")
    for key in given:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: a key must be text, not {key!r}")
    return given


def word(given: Mapping[str, Any], key: str) -> str | None:
    """The text under a key, such as the name of a model, which is looked up before anything else is read.

    Raises:
        ConfigError: something else stands there.
    """
    return converted(key, str | None, given.get(key))


def converted(where: str, kind: Any, value: Any) -> Any:
    """A value in an annotated type; text is read as on a command line, and a list may stand for a tuple.

    Args:
        where: place of the value, for the message.
        kind: bool, int, float, str, list, dict, `tuple[T, ...]` or a tuple of so many, as `tuple[float, float]`; or
            a union of them, with None among them where nothing is a value too.
        value: as read.

    Raises:
        ConfigError: another type; says where and what fits.
    """
    for option in typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,):
        found = _as(where, option, value)
        if found is not _OTHER:
            return found
    raise ConfigError(f"{where} must be of type {kind.__name__ if isinstance(kind, type) else kind}, not {value!r}")


_OTHER = object()  # of another type


def _as(where: str, option: Any, value: Any) -> Any:
    """A value as one of the types of a union, or `_OTHER`."""
    if option is types.NoneType:
        return None if value in (None, "None", "none", "") else _OTHER
    if option is bool:
        word = str(value).lower() if isinstance(value, bool | str) else ""
        return word == "true" if word in ("true", "false") else _OTHER
    if option in (int, float):
        if isinstance(value, bool | list | tuple):
            return _OTHER
        try:
            number = option(value)
            return number if option is float or float(value) == number else _OTHER
        except (TypeError, ValueError, OverflowError):
            return _OTHER
    origin = typing.get_origin(option) or option
    if origin is not tuple:
        return value if isinstance(value, Mapping if origin is dict else origin) else _OTHER
    try:
        items = json.loads(value) if isinstance(value, str) and option is not tuple else value
    except (ValueError, RecursionError):
        return _OTHER
    if not isinstance(items, list | tuple):
        return _OTHER
    inner = typing.get_args(option)
    if not inner:
        return items
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(items)
    if len(items) != len(inner):
        return _OTHER
    return tuple(converted(where, kind, item) for kind, item in zip(inner, items))


def convert_value(key: str, kind: Any, value: Any) -> Any:
    """A model's setting in its annotated type, within the choices and the range that its name has.

    Args:
        key: the setting's flat name, with or without its section.
        kind: as `converted` takes it.
        value: as read.

    Raises:
        ConfigError: another type, no choice, or out of range.
    """
    name = key.rpartition(".")[2]
    nothing = value is None and types.NoneType in typing.get_args(kind)
    if name in CHOICES and not nothing and value not in CHOICES[name]:
        raise ConfigError(unknown(f"value of {key}", value, CHOICES[name]))
    found = converted(key, kind, value)
    for number in found if isinstance(found, tuple) else (found,):
        words = LIMITS.get(name, limits.Limits()).refusal(number) \
            if isinstance(number, int | float) and not isinstance(number, bool) else ""
        if words:
            raise ConfigError(f"{key} {words}, not {number:g}")
    return found


def from_mapping(kind: type[Settings], given: Any, where: str, extra: Collection[str] = ()) -> Settings:
    """A settings dataclass from keys and values: none unknown, none missing, each in its field's type.

    Args:
        kind: the dataclass, whose annotations are as `converted` takes them.
        given: as read; what is not there keeps its default.
        where: place of the mapping, for the message.
        extra: names that stand beside them elsewhere, to be offered for a wrong one.

    Raises:
        ConfigError: says which key, where, and what fits.
    """
    own = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    refuse_unknown(given, (*own, *extra), where)
    for name, field in own.items():
        if name not in given and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{where}: give {name}")
    hints = typing.get_type_hints(kind)
    values = {key: converted(f"{where}: {key}", hints[key], value) for key, value in given.items()}
    try:
        return kind(**values)
    except ValueError as error:  # of the class, which knows what its values mean together
        raise ConfigError(f"{where}: {error}") from None
