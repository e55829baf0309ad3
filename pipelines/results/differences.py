"""`scae report --diff A B`: what is different between two parity JSONs, or between two runs.

A parity that got worse past its bound (a margin above 1 that was not, or a failure that was none) makes the
command end with 1. Smaller changes and checks that only one side has are named and allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines import report
from pipelines.support import settings
from pipelines.support.values import BadInput, CheckFailed
from port.checkpoints import run_files, run_folder

MARGINS = ("worst_forward_margin", "worst_gradient_margin")
PARITY = "parity.json"
FACTOR = 2.0  # a margin that changed by less is not listed
FLOOR = 0.01  # nor one that stays below on both sides


@dataclass
class ParityDiff:
    """Two parity reports: lines to print, and the checks that got worse past their bound."""

    lines: list[str] = field(default_factory=list)
    worse: list[str] = field(default_factory=list)


def run(one: str | os.PathLike, other: str | os.PathLike) -> None:
    """Print what is different.

    Args:
        one: a parity JSON, or a run's folder.
        other: the same kind.

    Raises:
        BadInput: neither, or one of each.
        CheckFailed: a parity of `other` is worse than that of `one`, past its bound.
    """
    sides = [load(path) for path in (one, other)]
    if sides[0][0] != sides[1][0]:
        raise BadInput(f"{one} is a {sides[0][0]}, {other} a {sides[1][0]}: give two of a kind")
    if sides[0][0] == "run":
        for line in between_runs(sides[0][1], sides[1][1]):
            print(line)
        return
    found = between_parities(sides[0][1], sides[1][1])
    for line in found.lines or ["no check is different"]:
        print(line)
    if found.worse:
        raise CheckFailed(f"{len(found.worse)} of the parity checks got worse past their bound: "
                          + "; ".join(found.worse[:3]) + ("; …" if len(found.worse) > 3 else ""))


def load(path: str | os.PathLike) -> tuple[str, dict]:
    """`run` or `parity report`, and its content.

    Raises:
        BadInput: neither.
    """
    path = Path(path)
    if path.is_dir() and (path / PARITY).is_file():
        path = path / PARITY
    try:
        path = run_folder.located(path)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if path.is_dir() and (path / "config.json").is_file():
        return "run", read_run(path)
    if path.is_file():
        found = report.read(path, object)
        if isinstance(found, dict) and all(
                isinstance(found.get(key), list) and all(isinstance(row, dict) for row in found[key])
                for key in ("ops", "goldens")):
            return "parity report", found
    raise BadInput(f"{path}: neither a parity JSON (of pytest or the parity stage) nor the folder "
                   "of a run, as results/train/digits/0")


def read_run(folder: Path) -> dict:
    """What a run left, and its evaluation where that lies beside it (results/evaluate/…)."""
    preset, seed = settings.preset_of_run(folder)
    found = {"name": str(folder), "preset": preset.name, "seed": seed, "folder": folder}
    found |= {name: run_files.read(folder / f"{name}.json", form, {}) for name, form in (
        ("config", run_files.CONFIG), ("metrics", run_files.METRICS), ("environment", run_files.ENVIRONMENT))}
    found["environment"].pop("files", None)  # their digests tell no condition
    evaluated = folder.resolve().parents[2] / "evaluate" / preset.name / str(seed)
    beside = folder.resolve().parents[1].name == "train"
    found["evaluated"] = run_files.read(evaluated / "metrics.json", run_files.EVALUATION, {}) if beside else {}
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `section.key`."""
    if not isinstance(values, Mapping) or not values:
        return {prefix: values} if prefix else {}
    found = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def settings_that_differ(configs: list[dict]) -> dict[str, list[Any]]:
    """Setting → its value in each configuration, of those that are not the same in all.

    The resolved class arguments repeat the model's flat keys and are left out where those are there.
    """
    each = [flat({k: v for k, v in config.items() if k not in ("arguments", "preset")})
            for config in configs]
    names = dict.fromkeys(name for one in each for name in one)
    values = {name: [one.get(name) for one in each] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found[1:])}


def measures(found: dict) -> dict[str, float]:
    """The numbers of a run: training's last row, then the evaluation's values by protocol."""
    shown = {f"train.{name}": value for name, value in found["metrics"].items()
             if isinstance(value, int | float)}
    for protocol, moments in (found["evaluated"].get("protocols") or {}).items():
        for name, value in (moments.get("final") or {}).items():
            value = value.get("value") if isinstance(value, Mapping) else value
            if isinstance(value, int | float):
                shown[f"{protocol}.{name}"] = value
    return shown


def between_runs(one: dict, other: dict) -> list[str]:
    """Settings, conditions and numbers that differ, as lines."""
    lines = [f"A {one['name']}: preset {one['preset']}, seed {one['seed']}",
             f"B {other['name']}: preset {other['preset']}, seed {other['seed']}"]
    for title, key in (("settings", "config"), ("conditions", "environment")):
        changed = settings_that_differ([one[key], other[key]])
        lines += [f"{title}:"] + [f"  {name}: {a} -> {b}" for name, (a, b) in changed.items()]
        lines[-1:] = lines[-1:] if changed else [f"{title}: the same"]
    ours, theirs = measures(one), measures(other)
    lines.append("measures:" if ours != theirs else "measures: the same")
    for name in dict.fromkeys((*ours, *theirs)):
        a, b = ours.get(name), theirs.get(name)
        if a is None or b is None:
            lines.append(f"  {name}: only in {'A' if b is None else 'B'}, {a if b is None else b:.6g}")
        elif a != b:
            lines.append(f"  {name}: {a:.6g} -> {b:.6g} ({b - a:+.4g})")
    return lines


def checks_of(parity: dict) -> dict[str, dict]:
    """Check → its margins by kind and its verdict, over ops and recordings."""
    found = {}
    for row in parity["ops"]:
        margins = {f"{key.split('_')[1]} {dtype}": value for key in MARGINS
                   for dtype, value in (row.get(key) or {}).items()}
        found[str(row.get("op"))] = {"margins": margins, "verdict": row.get("verdict")}
    for row in parity["goldens"]:
        found[f"{row.get('golden')}, {row.get('kind')}"] = {
            "margins": {"margin": row.get("worst_margin")}, "verdict": row.get("verdict")}
    return found


def between_parities(one: dict, other: dict) -> ParityDiff:
    """Checks that only one side has, verdicts that changed, margins that moved by more than `FACTOR`."""
    before, after = checks_of(one), checks_of(other)
    found = ParityDiff()
    for title, names in (("only in A", before.keys() - after.keys()), ("only in B", after.keys() - before)):
        found.lines += [f"{title}: {name} ({(before | after)[name]['verdict']})" for name in sorted(names)]
    for name, now in after.items():
        was = before.get(name, {"margins": {}, "verdict": None})
        if now["verdict"] != was["verdict"] and name in before:
            found.lines.append(f"{name}: {was['verdict']} -> {now['verdict']}")
        beyond = []
        for kind, value in now["margins"].items():
            if not isinstance(value, int | float):
                continue
            old = was["margins"].get(kind)
            known = isinstance(old, int | float)
            if not value <= 1.0 and not (known and not old <= 1.0 and value <= old):
                beyond.append(f"{kind} {'not there' if not known else f'{old:.3g}'} -> {value:.3g}")
            elif known and max(value, old) > FLOOR and not (old / FACTOR <= value <= old * FACTOR):
                found.lines.append(f"{name}: {kind} {old:.3g} -> {value:.3g}")
        if not beyond and now["verdict"] == "fail" and was["verdict"] != "fail":
            beyond.append(f"{was['verdict'] or 'not there'} -> fail")
        if beyond:
            found.worse.append(f"{name}: {', '.join(beyond)}")
    found.lines += [f"WORSE, past its bound: {line}" for line in found.worse]
    return found
