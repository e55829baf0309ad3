"""`scae bench --diff A.json B.json`: what changed between two revisions, from the numbers that each left.

Seconds of two calls are hardly comparable on a machine that does other things too, so that everything is
shown in two units: in milliseconds, and in multiples of the encoder's convolutions as the same call timed them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.support.values import BadInput


def read(path: str) -> dict[str, Any]:
    """The numbers of one call.

    Raises:
        BadInput: no such file, or not one that `scae bench --json` wrote.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"--diff {path}: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"--diff {path} is not JSON") from None
    if not isinstance(found, dict) or not isinstance(found.get("minima_s"), dict):
        raise BadInput(f"--diff {path}: not written by `scae bench --json`")
    return found


def rows(found: dict[str, Any]) -> dict[str, float]:
    """Seconds by name: every variant, then every part of the budget where `--floors` measured one."""
    seconds = {name: float(value) for name, value in found["minima_s"].items()}
    for part, row in ((found.get("floors") or {}).get("budget") or {}).items():
        seconds[f"part {part}"] = row["forward_s"] + row["backward_s"]
    return seconds


def unit(found: dict[str, Any]) -> float | None:
    """Seconds of the convolutions in that call."""
    floor = found.get("convolutions_floor_s")
    return floor if floor else None


def run(before: str, after: str) -> dict[str, float]:
    """Print what both files have, side by side.

    Args:
        before, after: files that `scae bench --json` wrote.

    Returns:
        After ÷ before by name, in multiples of the convolutions where both calls timed them.

    Raises:
        BadInput: a file that cannot be used, or two without a name in common.
    """
    one, other = read(before), read(after)
    first, second = rows(one), rows(other)
    shared = [name for name in first if name in second]
    if not shared:
        raise BadInput(f"--diff: {before} and {after} have nothing in common")
    units = unit(one), unit(other)
    in_units = None not in units
    settings = [(name, one.get("options", {}).get(name), other.get("options", {}).get(name))
                for name in ("preset", "batch_size", "device")]
    settings.append(("threads", one.get("threads"), other.get("threads")))
    lines = [f"bench: {before} (1) against {after} (2)"]
    lines += [f"  note: {name} is {a} in the first and {b} in the second" for name, a, b in settings if a != b]
    lines.append(f"  {'':38}{'ms (1)':>10}{'ms (2)':>10}{'(2)/(1)':>9}"
                 + (f"{'x conv (1)':>12}{'x conv (2)':>12}{'(2)/(1)':>9}" if in_units else ""))
    ratios = {}
    for name in shared:
        a, b = first[name], second[name]
        line = f"  {name:38}{a * 1e3:10.3f}{b * 1e3:10.3f}{_over(b, a):>9}"
        if in_units:
            line += f"{a / units[0]:12.3f}{b / units[1]:12.3f}{_over(b / units[1], a / units[0]):>9}"
            a, b = a / units[0], b / units[1]
        lines.append(line)
        if a > 0:
            ratios[name] = b / a
    for which, missing in (("first", [n for n in first if n not in second]),
                           ("second", [n for n in second if n not in first])):
        if missing:
            lines.append(f"  only in the {which}: {', '.join(missing)}")
    print("\n".join(lines))
    return ratios


def _over(b: float, a: float) -> str:
    """b / a for a table; nothing where a is not positive, as the remainder of a busy machine can be."""
    return f"{b / a:.2f}" if a > 0 else ""
