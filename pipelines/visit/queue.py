"""The runs that wait for a machine, in order (`queue.yaml`), and which of them is next."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.support import settings
from pipelines.support.run_folders import run_of
from pipelines.support.values import BadInput, load_params
from port.configuration.fields import from_mapping, refuse_unknown
from port.training import resume

QUEUE = Path(__file__).with_name("queue.yaml")


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        preset: of params.yaml.
        seed: of the run.
        minutes: expected, for whoever reads; 0 is not known.
        steps: in place of the preset's; 0 is the preset's.
        data: what must lie in the data root.
        overrides: further `section.key=value`.
    """

    preset: str
    seed: int = 0
    minutes: float = 0.0
    steps: int = 0
    data: list | None = None
    overrides: list | None = None

    @property
    def name(self) -> str:
        """`preset-seed`."""
        return f"{self.preset}-{self.seed}"

    def chosen(self, params: str | os.PathLike = "params.yaml") -> settings.Preset:
        """Its preset with what the entry changes.

        Raises:
            BadInput: an unknown preset or setting.
        """
        changed = list(self.overrides or []) + ([f"train.steps={self.steps}"] if self.steps else [])
        return settings.load_preset(self.preset, changed, params)


def read(path: str | os.PathLike = QUEUE, params: str | os.PathLike = "params.yaml") -> list[Entry]:
    """The queue, every preset and setting of it checked.

    Raises:
        BadInput: no such file, an unknown preset, or a run that stands there twice.
        ConfigError: an unknown key or setting.
    """
    given = load_params(path)
    refuse_unknown(given, ("runs",), str(path))
    if not isinstance(given.get("runs"), list):
        raise BadInput(f"{path}: no list of runs")
    found = [from_mapping(Entry, one, f"{path}: run {i + 1}") for i, one in enumerate(given["runs"])]
    for entry in found:
        entry.chosen(params).config()
        if sum(other.name == entry.name for other in found) > 1:
            raise BadInput(f"{path}: {entry.name} stands there twice")
    return found


def waiting(entries: list[Entry], work: Path, results: str | os.PathLike, device: str,
            params: str | os.PathLike = "params.yaml") -> list[Entry]:
    """Those that are not done, the ones with a checkpoint first.

    Args:
        entries: the queue.
        work: of the visit; holds what it and those before it left here.
        results: that travelled along.
        device: `cpu` or `cuda`; what another one trained is another run.
        params: the file of presets.
    """
    left = []
    for entry in entries:
        steps = entry.chosen(params).train(entry.seed)[0].steps
        if not any(is_done(Path(place), entry, steps, device) for place in (results, work / "results")):
            left.append(entry)
    return sorted(left, key=lambda entry: newest(work, entry) is None)


def together(entries: list[Entry], most: int) -> list[list[Entry]]:
    """The runs in their order, those that differ in their seed alone beside each other, so many at most."""
    groups: list[list[Entry]] = []
    for entry in entries:
        for group in groups:
            if len(group) < most and replace(group[0], seed=entry.seed) == entry:
                group.append(entry)
                break
        else:
            groups.append([entry])
    return groups


def is_done(results: Path, entry: Entry, steps: int, device: str) -> bool:
    """Whether a results folder holds this run at its full length, trained on this type of device."""
    folder = settings.folder_of("train", entry.preset, entry.seed, results)
    try:
        found, environment = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
                              for name in ("metrics", "environment"))
        return found["steps"] >= steps and environment["device"] == device
    except (OSError, ValueError, KeyError):
        return False


def checkpoints_of(work: Path, entry: Entry) -> list[Path]:
    """Folders of this run's checkpoints, of whatever configuration."""
    place = work / "checkpoints"
    return sorted(path for path in place.iterdir() if run_of(path) == entry.name
                  ) if place.is_dir() else []


def newest(work: Path, entry: Entry) -> Path | None:
    """The checkpoint that was written last, if there is one."""
    found = [resume.checkpoints(folder)[-1] for folder in checkpoints_of(work, entry)
             if resume.checkpoints(folder)]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
