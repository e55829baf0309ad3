"""What a run and its evaluation leave as JSON, read in one place and checked for what everybody uses.

    metrics = run_files.read(folder / "metrics.json", run_files.METRICS)

A form says what a value has to be: a type, a function, a list of one form, a tuple of forms of which one has to fit,
or a mapping of keys to forms. In a mapping `key?` need not be there, and `*` is every other key; without it they may
be anything. Results come from other machines and older versions, so more is not asked for than is used.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import NoneType
from typing import Any

from port.data.dataset import DataError

MOST_DIGITS = 300  # of a whole number; one with more does not fit a float
MOST = 2**53  # that is counted


def number(value: Any) -> bool:
    """A finite number"""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def real(value: Any) -> bool:
    """A number"""
    return isinstance(value, int | float) and not isinstance(value, bool)


def count(value: Any) -> bool:
    """A whole number from 0"""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def positive(value: Any) -> bool:
    """A finite number from 0"""
    return number(value) and value >= 0


MAYBE_TEXT = (str, NoneType)
# Whether a measure is finite is asked by who counts with it, and says which seed it is of.
MEASURED = (NoneType, real, {"value": (real, NoneType), "low?": (real, NoneType), "high?": (real, NoneType),
                             "n?": count})
MOMENT = {"*": MEASURED}
# Of a run.
ROW = {"*": (real, NoneType)}
METRICS = ROW | {"steps": count, "seconds?": (positive, NoneType), "steps_per_second?": (positive, NoneType)}
CONFIG = {"preset": str, "prepare": {"options?": (dict, NoneType)}, "train": {"seed?": count}, "evaluate": dict,
          "model": dict, "arguments?": dict}
ENVIRONMENT = {"packages?": ({"*": MAYBE_TEXT}, NoneType), "weights?": MAYBE_TEXT, "files?": (dict, NoneType),
               "device?": MAYBE_TEXT, "device_name?": MAYBE_TEXT, "threads?": (positive, NoneType)}
# Of an evaluation.
EVALUATION = {"steps?": (count, NoneType), "weights?": MAYBE_TEXT, "data?": str, "trained_on?": str, "preset?": str,
              "model?": str, "level?": number, "protocols": {"*": {"initial?": MOMENT, "final": MOMENT}},
              "baseline?": ({"*": {"*": MEASURED}}, NoneType), "not_measured?": {"*": str}}
EVALUATED_WITH = {"evaluate": dict}


def read(path: Path, form: Any = dict, missing: Any = None) -> Any:
    """What a file of results holds.

    Args:
        path: of the file.
        form: of what it has to hold.
        missing: what stands for a file that is not there; None refuses it.

    Raises:
        DataError: it is not there, no JSON, or something in it has another form; says which file and key.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole)
    except FileNotFoundError:
        if missing is not None:
            return missing
        raise DataError(f"{path} is missing: bring all of metrics.json, config.json and environment.json of a "
                        "run") from None
    except RecursionError:
        raise DataError(f"{path} cannot be read: it is no JSON file of results, nested too deeply") from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read: it is no JSON file ({error})") from None
    check(found, form, str(path))
    return found


def check(value: Any, form: Any, where: str) -> None:
    """Refuse a value of another form.

    Raises:
        DataError: says where, what it is and what it has to be.
    """
    wrong = _wrong(value, form, "")
    if wrong:
        key, words = wrong
        raise DataError(f"{where}{': ' if key else ''}{key} {words}; put back what the stage left there, or run that "
                        "stage again")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _wrong(value: Any, form: Any, key: str) -> tuple[str, str] | None:
    """The first key whose value has another form, with what is wrong in words; None where all is well."""
    if isinstance(form, tuple):
        found = [_wrong(value, one, key) for one in form]
        if None in found:
            return None
        inner = [one for one in found if one and one[0] != key]  # the right kind, wrong within
        return inner[0] if inner else (key, f"is {_shown(value)}, not {' or '.join(map(_named, form))}")
    if isinstance(form, list):
        if not isinstance(value, list):
            return key, f"is {_shown(value)}, not a list"
        return next((wrong for i, one in enumerate(value) if (wrong := _wrong(one, form[0], f"{key}[{i}]"))), None)
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return key, f"is {_shown(value)}, not keys and values"
        return _wrong_within(value, form, key)
    fits = isinstance(value, form) if isinstance(form, type) else form(value)
    return None if fits else (key, f"is {_shown(value)}, not {_named(form)}")


def _wrong_within(value: dict, form: dict, key: str) -> tuple[str, str] | None:
    below = f"{key}." if key else ""
    named = {name.removesuffix("?"): one for name, one in form.items() if name != "*"}
    for name in form:
        if name != "*" and not name.endswith("?") and name not in value:
            return f"{below}{name}", "is missing"
    for name, one in value.items():
        wanted = named.get(name, form.get("*"))
        if wanted is not None and (wrong := _wrong(one, wanted, f"{below}{name}")):
            return wrong
    return None


def _named(form: Any) -> str:
    if isinstance(form, dict | list):
        return "keys and values" if isinstance(form, dict) else "a list"
    if isinstance(form, type):
        return {str: "text", dict: "keys and values", NoneType: "null", bool: "true or false"}.get(form, form.__name__)
    words = str(form.__doc__)
    return words[0].lower() + words[1:]


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
