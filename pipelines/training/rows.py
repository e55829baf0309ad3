"""The rows of an ablation: what each changes, and which of them are finished and belong beside each other."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.support import settings
from pipelines.support.values import BadInput, load_params
from port.checkpoints import run_files
from port.configuration.fields import from_mapping, unknown
from port.data.dataset import DataError
from port.training import loop as train

FILES = ("metrics.json", "config.json", "environment.json")  # of a row and seed, in its folder
METRICS = {"steps": run_files.count, "protocol": (str, type(None)), "seed": run_files.count,
           "parameters": run_files.count, "seconds": run_files.positive, "protocols": {"*": {"*": run_files.number}}}
CONFIG = {"model": dict, "train": dict}
TRAINED = "trained.json"  # beside the checkpoints of a row that is trained and waits to be measured


@dataclass(frozen=True)
class Row:
    """One row of section `ablation.changes`.

    Attributes:
        words: what is changed.
        set: overrides, as `--set` takes them; several of one row change together.
        preset: of which the row is; None is the section's.
        beside: the row that it is compared with; None is the preset's own, without changes.
        quirk: the quirk of the original that is repaired.
        protocol: what is repaired of the faithful evaluation: `noise`, `whole_batches`, `refit`.
    """

    words: str = ""
    set: list | None = None
    preset: str | None = None
    beside: str | None = None
    quirk: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Ablation:
    """Section `ablation`.

    Attributes:
        folder: of the rows, below the results; that of the table has `_table` after it.
        preset: that is changed.
        steps: updates of every row.
        seeds: of every row.
        rows: the rows there are stages of; a subset of `changes`.
        changes: row → `Row`.
    """

    folder: str = "ablation"
    preset: str = "digits"
    steps: int = 200
    seeds: list | None = None
    rows: list | None = None
    changes: dict | None = None

    def row(self, name: str) -> Row:
        """One row.

        Raises:
            BadInput: no row of this name.
            ConfigError: unknown settings in it.
        """
        if name not in (self.changes or {}):
            raise BadInput(unknown("row of the ablation", name, self.changes or {}))
        row = from_mapping(Row, self.changes[name] or {}, f"ablation.changes.{name}")
        if row.protocol not in (None, "noise", "whole_batches", "refit"):
            raise BadInput(f"ablation.changes.{name}: unknown protocol {row.protocol!r}; it is "
                           "noise, whole_batches or refit")
        if row.beside is not None and row.beside not in self.changes:
            raise BadInput(f"ablation.changes.{name}.beside: "
                           f"{unknown('row', row.beside, self.changes)}")
        return row


def section(params: str | os.PathLike = "params.yaml", steps: int | None = None,
            preset: str | None = None, name: str = "ablation") -> Ablation:
    """Section `ablation` of a params file, or another of its kind, with another length or preset if one is given.

    Raises:
        BadInput: no such section.
        ConfigError: unknown settings in it.
    """
    given = load_params(params).get(name)
    if not given:
        raise BadInput(f"{params} has no section {name}")
    if steps is not None:
        given = given | {"steps": steps}
    if preset is not None:
        given = given | {"preset": preset}
    found = from_mapping(Ablation, given, name)
    if found.steps < 1:
        raise BadInput(f"{name}: steps must be at least 1, not {found.steps}")
    for name in found.rows or []:
        found.row(name)
    return found


def preset_of(wanted: Ablation, row: Row, params: str | os.PathLike) -> settings.Preset:
    """The preset with a row's changes, at the ablation's length."""
    return settings.load_preset(row.preset or wanted.preset, [*(str(s) for s in row.set or []),
                                                             f"train.steps={wanted.steps}"], params)


def runs_of(wanted: Ablation, results: str | os.PathLike, params: str | os.PathLike
            ) -> dict[str, tuple[list[dict], dict[int, str]]]:
    """By row what `finished` gives, of one type of device."""
    return of_one_device({name: finished(wanted, name, results, params) for name in wanted.rows or []})


def finished(wanted: Ablation, name: str, results: str | os.PathLike, params: str | os.PathLike
             ) -> tuple[list[dict], dict[int, str]]:
    """What each seed of a row that was run with these settings left, and by seed why the others are not there.

    Each has `device` (its type) and `device_name` beside what stands in its metrics.json.
    """
    found, left_out = [], {}
    for seed in wanted.seeds or []:
        folder = settings.folder_of(wanted.folder, name, seed, results)
        why = why_not(wanted, name, seed, folder, params)
        if why is None:
            environment = read(folder / "environment.json", run_files.ENVIRONMENT) or {}
            found.append(read(folder / "metrics.json") | {
                "device": environment.get("device"), "device_name": environment.get("device_name")})
        else:
            left_out[seed] = why
    return found, left_out


def left_out(wanted: Ablation, runs: dict[str, tuple[list[dict], dict[int, str]]]) -> list[str]:
    """A line for each row that lacks seeds, with the reasons: `no noise (no_noise): not yet run (seeds 1, 2)`.

    Args:
        wanted: the ablation, which has the rows in words.
        runs: by row, as `finished` gives them.
    """
    return [f"{wanted.row(name).words} ({name}): " + "; ".join(
        f"{why} (seed{'s' if n > 1 else ''} {', '.join(str(seed) for seed, one in missing.items() if one == why)})"
        for why, n in Counter(missing.values()).items()) for name, (_, missing) in runs.items() if missing]


def why_not(wanted: Ablation, name: str, seed: int, folder: Path, params: str | os.PathLike) -> str | None:
    """Why a folder does not hold this row and seed, run with these settings; None where it does."""
    row = wanted.row(name)
    expected = preset_of(wanted, row, params)
    metrics, config = read(folder / "metrics.json", METRICS), read(folder / "config.json", CONFIG)
    if metrics is None or config is None:
        return "not yet run"
    if (metrics["steps"], metrics["protocol"], config["model"]) != (
            wanted.steps, row.protocol, as_json(expected.model)) or not same_loop(
            config["train"], expected.train(seed)[0]):
        return "run with other settings"
    return None


def of_one_device(runs: dict[str, tuple[list[dict], dict[int, str]]]
                  ) -> dict[str, tuple[list[dict], dict[int, str]]]:
    """The runs of the type of device that most were trained on; the others are named among what is left out.

    Generators of another type of device draw other numbers, so a difference between two would be one of samples too.

    Args:
        runs: by row, as `finished` gives them.
    """
    counted = Counter(one["device"] for found, _ in runs.values() for one in found)
    if len(counted) < 2:
        return runs
    (kept, _), *_ = counted.most_common()
    return {name: ([one for one in found if one["device"] == kept],
                   missing | {one["seed"]: f"trained on {one['device'] or 'an unknown device'}, "
                                           f"most others on {kept or 'an unknown one'}"
                              for one in found if one["device"] != kept})
            for name, (found, missing) in runs.items()}


def is_done(wanted: Ablation, name: str, seed: int, results: str | os.PathLike, params: str | os.PathLike) -> bool:
    """Whether a row was run with this seed and these settings."""
    return why_not(wanted, name, seed, settings.folder_of(wanted.folder, name, seed, results), params) is None


def any_done(wanted: Ablation, results: str | os.PathLike, params: str | os.PathLike) -> bool:
    """Whether there is a row at all to put side by side with others."""
    return any(is_done(wanted, name, seed, results, params)
               for name in wanted.rows or [] for seed in wanted.seeds or [])


def full_steps(wanted: Ablation, params: str | os.PathLike) -> int:
    """Updates that the preset itself asks for."""
    return settings.load_preset(wanted.preset, None, params).train(0)[0].steps


def beside(wanted: Ablation, name: str) -> str:
    """The row that a row is compared with: itself where it is the one without changes."""
    row = wanted.row(name)
    if row.beside is not None:
        return row.beside
    for other in wanted.changes:
        found = wanted.row(other)
        if not found.set and not found.protocol and found.preset == row.preset:
            return other
    return name


def same_loop(stored: dict, wanted: train.Settings) -> bool:
    """Whether a run was trained with these settings; one that it did not know had its default.

    What decides no number (how often it reports and saves, threads) may differ; the length is asked apart.
    """
    default = asdict(train.Settings())
    return all(stored.get(key, as_json(default[key])) == as_json(value)
               for key, value in asdict(wanted).items() if key not in train.NOT_IDENTITY)


def as_json(value):
    """As it comes back from a JSON file."""
    return json.loads(json.dumps(value))


def device_of(folder: Path) -> str | None:
    """The type of device that a row or soak was trained on; None where its files do not say, or cannot be read."""
    try:
        return run_files.read(folder / FILES[2], run_files.ENVIRONMENT, {}).get("device")
    except DataError:
        return None


def read(path: Path, form: Any = dict) -> dict | None:
    """A JSON file, None where there is none."""
    return run_files.read(path, form, {}) or None
