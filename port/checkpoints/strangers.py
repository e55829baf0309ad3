"""A checkpoint of a changed program: other scopes, variables of its own, averages of weights.

What is renamed, left out or taken in another's place is said, so that a model card can list it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from port.checkpoints.programs import candidates, origin_of
from port.checkpoints.tensor_bundle.errors import printable
from port.core.variable_table import ConversionError

AVERAGE = "/ExponentialMovingAverage"


@dataclass(frozen=True)
class Choices:
    """What is to be done with the names of a checkpoint.

    Attributes:
        skip: patterns (`*` any characters, `/` too, `?` one) of names in the file that are left out.
        rename: `OLD=NEW`: OLD is a whole name, or a scope that names begin with (`model/=` takes it away).
        averages: the moving averages of the weights stand for the weights; optimizer slots, which are of
            the weights themselves, are left out.
    """

    skip: Sequence[str] = field(default=())
    rename: Sequence[str] = field(default=())
    averages: bool = False

    def __bool__(self) -> bool:
        return bool(self.skip or self.rename or self.averages)

    def as_json(self) -> dict:
        """Plain values; `Choices(**…)` is the way back."""
        return asdict(self) | {"skip": list(self.skip), "rename": list(self.rename)}


def choose(arrays: Mapping[str, np.ndarray], choices: Choices) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays under the original's names, and what was done as lines for a model card.

    Args:
        arrays: name → value as the file has them.
        choices: what is wanted; skipped first, then renamed, then averages taken.

    Raises:
        ConversionError: a choice that fits nothing, two arrays under one name, or an average is missing.
    """
    found, notes = dict(arrays), []
    for pattern in choices.skip:
        names = [name for name in found if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ConversionError(f"--skip {printable(pattern)}: no array of that name is in it")
        for name in names:
            del found[name]
        notes.append(f"left out (--skip {printable(pattern)}): {', '.join(map(printable, names))}")
    for rule in choices.rename:
        found, count = _renamed(found, rule)
        notes.append(f"renamed (--rename {printable(rule)}): {count} arrays")
    if choices.averages:
        found, used, dropped = _averaged(found)
        notes.append(f"the weights are moving averages (--averages): {', '.join(map(printable, used))}")
        if dropped:
            notes.append(f"left out, since they are not of the averages: {len(dropped)} optimizer slots")
    return found, notes


def _renamed(arrays: dict[str, np.ndarray], rule: str) -> tuple[dict[str, np.ndarray], int]:
    old, equals, new = rule.partition("=")
    if not equals or not old:
        raise ConversionError(f"--rename {printable(rule)}: expected OLD=NEW, names or scopes (model/=)")
    scope, to = old.rstrip("/") + "/", new.rstrip("/") + "/" * bool(new.rstrip("/"))
    found: dict[str, np.ndarray] = {}
    count = 0
    for name, array in arrays.items():
        target = new if name == old else to + name[len(scope):] if name.startswith(scope) else name
        count += target != name
        if not target or target in found:
            raise ConversionError(f"--rename {printable(rule)}: {printable(name)} would get "
                                  + (f"the name {printable(target)}, which another array has" if target
                                     else "no name"))
        found[target] = array
    if not count:
        raise ConversionError(f"--rename {printable(rule)}: no array of that name or scope is in it")
    return found, count


def _averaged(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """Weights by their averages; their names; the slots that are left out."""
    averages = {name.removesuffix(AVERAGE): name for name in arrays
                if name.endswith(AVERAGE) and name.removesuffix(AVERAGE) in arrays}
    if not averages:
        raise ConversionError(f"--averages: no weight has one (<name>{AVERAGE})")
    origin = origin_of(averages)
    slots = [name for name in arrays if name.rpartition("/")[2] in origin.slots
             and name.rpartition("/")[0] in arrays]
    found = {name: array for name, array in arrays.items()
             if name not in slots and name not in averages.values() and name not in origin.counters}
    for owner, name in averages.items():
        if arrays[name].shape != arrays[owner].shape or arrays[name].dtype != arrays[owner].dtype:
            raise ConversionError(f"{printable(name)} has another shape or type than {printable(owner)}")
        found[owner] = arrays[name]
    without = [name for name, array in found.items() if name not in averages and array.ndim
               and not name.endswith((f"{AVERAGE}/biased", f"{AVERAGE}/local_step"))]
    if without:
        raise ConversionError(f"--averages: {printable(without[0])} has none; nothing is mixed (--skip "
                              "leaves arrays out that are no weights)")
    return found, sorted(averages), slots


def hint(arrays: Mapping[str, np.ndarray], unknown: Sequence[str]) -> str:
    """What could be done about arrays that the original has not; empty where nothing suggests itself.

    Args:
        arrays: all that the checkpoint has.
        unknown: names among them.
    """
    averages = [name for name in unknown if name.endswith(AVERAGE) and name.removesuffix(AVERAGE) in arrays]
    if averages:
        return (f"; {len(averages)} are moving averages of weights: --averages takes them, --skip "
                f"'*{AVERAGE}' leaves them out")
    scopes = {name.partition("/")[0] for name in arrays if "/" in name}
    inside = [name.partition("/")[2] for name in unknown if "/" in name]
    if not candidates(list(arrays)) and candidates(inside):
        scope = next(name.partition("/")[0] for name in unknown if candidates([name.partition("/")[2]]))
        if scope in scopes:
            return f"; the names have a scope in front: --rename {printable(scope)}/="
    if 0 < len(unknown) <= 20 and candidates(list(arrays)):
        return "; --skip NAME leaves out what the model does not need, --rename OLD=NEW gives another name"
    return ""
