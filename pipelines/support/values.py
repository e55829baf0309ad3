"""Values from files and command lines: read, checked, and refused with the nearest valid name."""

from __future__ import annotations

import difflib
import os
from dataclasses import fields
from pathlib import Path


class BadInput(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class CheckFailed(Exception):
    """A result does not meet what the stage requires."""


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
        values[key] = typed(value, wanted, f"{where}: {key}")
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


def typed(value, wanted: str, where: str):
    """A value of a kind, with what YAML may have written for a number: an int for a float, 1e-4 as a word.

    Args:
        value: as read.
        wanted: int, float, bool, str, dict or list, with ` | None` where nothing is a value too.
        where: for the message.

    Raises:
        BadInput: another type.
    """
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


def parse_value(text: str):
    """What a word of `--set` means, as in YAML, with 1e-4 as a number."""
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
        # The same in C where PyYAML was built with it: params.yaml in a seventh of the time.
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def write_text(path: str | Path, text: str) -> None:
    """A file, whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadInput(f"{path} cannot be written: {error.strerror}") from None
