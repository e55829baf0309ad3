"""Measures that an evaluation writes down: each a value, or null with its reason beside it.

    {"protocols": {"clean": {"final": {"posterior_kmeans": null, …}}}, …,
     "not_measured": {"protocols.clean.final.posterior_kmeans": "5 examples are fewer than 10 clusters"}}

One measure that cannot be computed must not cost the others, nor stand there as a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from port.evaluation.labels import NotMeasurable

REASONS = "not_measured"
NO_NUMBER = "no finite number; look at the weights and at history.csv"


def put(found: dict, name: str, work: Callable[[], Any]) -> Any:
    """found[name] = work(), or null with the reason in found["not_measured"][name].

    Returns:
        What stands there now.
    """
    try:
        found[name] = work()
    except NotMeasurable as error:
        found[name] = None
        found.setdefault(REASONS, {})[name] = str(error)
    return found[name]


def settled(measured: dict) -> dict:
    """The same measures without NaN, infinity and scattered reasons.

    Args:
        measured: plain values, nested.

    Returns:
        A copy: a number that is not finite is null, and so is a value with an interval, `{"value": …}`,
        that has none; each reason stands in `not_measured` at the top under the measure's path, joined by
        dots. Without reasons there is no such key.
    """
    reasons: dict[str, str] = {}
    found = _walk(measured, (), reasons)
    return found | {REASONS: reasons} if reasons else found


def _walk(value: Any, path: tuple[str, ...], reasons: dict[str, str]) -> Any:
    if isinstance(value, dict):
        for name, reason in value.get(REASONS, {}).items():
            reasons[".".join((*path, name))] = reason
        if "value" in value and isinstance(value["value"], float) and not math.isfinite(value["value"]):
            reasons[".".join(path)] = NO_NUMBER
            return None
        return {key: _walk(each, (*path, str(key)), reasons) for key, each in value.items()
                if key != REASONS}
    if isinstance(value, list | tuple):
        return [_walk(each, (*path, str(i)), reasons) for i, each in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        reasons.setdefault(".".join(path), NO_NUMBER)
        return None
    return value


def shown(value: dict | float | None, digits: int = 3) -> str:
    """A measure in a line of text."""
    value = value.get("value") if isinstance(value, dict) else value
    return "not measured" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def lines(measured: dict, most: int = 6) -> list[str]:
    """The reasons as lines, one a reason with how many measures it stands for."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in measured.get(REASONS, {}).items():
        by_reason.setdefault(reason, []).append(path.removeprefix("protocols."))
    found = [f"not measured: {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
             + f": {reason}" for reason, names in by_reason.items()]
    return found[:most] + ([f"… and {len(found) - most} more reasons"] if len(found) > most else [])
