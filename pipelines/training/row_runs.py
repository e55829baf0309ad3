"""Rows of an ablation are trained: one alone, or all that are not there beside each other."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

import port
from pipelines import train as training
from pipelines.evaluation import row_measures as measures
from pipelines.prepare import dataset_for
from pipelines.support import children, console, environment, locks, settings
from pipelines.support.values import BadInput
from pipelines.training import beside, rows
from port.data.streams import Examples
from port.training import ensemble, sound
from port.training import loop as train


@dataclass(frozen=True)
class Run:
    """One row with one seed, its settings looked at.

    Attributes:
        wanted: the section.
        name: of the row.
        row: what it changes.
        preset: with that change.
        loop: settings of its training.
        place: that it trains on.
        results: folder of the results.
        runs: of the checkpoints.
    """

    wanted: rows.Ablation
    name: str
    row: rows.Row
    preset: settings.Preset
    loop: train.Settings
    place: torch.device
    results: str | os.PathLike
    runs: Path

    @classmethod
    def make(cls, wanted: rows.Ablation, name: str, seed: int, results: str | os.PathLike, params: str | os.PathLike,
             device: str | None = None, runs: Path | None = None) -> Run:
        """A row of a section.

        Raises:
            BadInput: unknown settings, or a preset that no row can be of.
        """
        row = wanted.row(name)
        preset = rows.preset_of(wanted, row, params)
        measures.check(preset)
        loop, place = training.check(preset, seed, device)
        return cls(wanted, name, row, preset, loop, place, results, runs or training.RUNS)

    @property
    def among_others(self) -> Run:
        """The same, to be trained beside others."""
        return replace(self, loop=beside.settings_of(self.loop, self.place.type))

    @property
    def says(self) -> str:
        """Its name, for messages."""
        return f"{self.name}, seed {self.loop.seed}"

    @property
    def folder(self) -> Path:
        """Of its results."""
        return settings.folder_of(self.wanted.folder, self.name, self.loop.seed, self.results)

    @functools.cached_property
    def checkpoints(self) -> Path:
        """Where its training keeps the state."""
        identity = train.identity(self.preset.config().to_arguments(), asdict(self.loop),
                                  self.preset.sections["prepare"], {"device": self.place.type})
        return self.runs / f"ablation-{self.name}-{self.loop.seed}-{identity}"

    @property
    def trained(self) -> bool:
        """Whether nothing is left to do but to measure it; one of another length is another row."""
        return measures.steps_of(self.checkpoints) == self.loop.steps

    def begin(self, dataset: Examples) -> ensemble.Start:
        """Build it; it goes on from its checkpoint, if there is one.

        Raises:
            BadInput: nothing could be measured on these data, or a longer run of the row waits to be measured.
        """
        measures.check_labels(dataset, self.preset)
        waiting = measures.steps_of(self.checkpoints)
        if waiting is not None and waiting > self.loop.steps:
            raise BadInput(f"{self.says}: one of {waiting:,} steps is trained and not measured yet, and would be "
                           f"lost; measure it first with python -m pipelines.ablation --measure {self.checkpoints}, or "
                           "take another --runs")
        (self.checkpoints / rows.TRAINED).unlink(missing_ok=True)  # of another length: that one is no longer the last
        sound.clear(self.checkpoints.parent, self.checkpoints.name)
        model = port.build(self.preset.config(), self.loop.seed).to(self.place)
        return ensemble.Start(model, dataset, self.loop, {"folder": self.checkpoints})

    def ended(self, trained: train.Trained) -> None:
        """Leave beside its last checkpoint what its results will say of the training."""
        row = self.row
        measures.write(self.checkpoints, self.wanted.folder, self.name, row, self.preset, {
            "seed": self.loop.seed,
            "metrics": {
                "row": self.name, "words": row.words, "quirk": row.quirk, "preset": self.preset.name,
                "seed": self.loop.seed, "beside": row.beside, "steps": trained.step,
                "seconds": round(trained.seconds, 1), "set": [str(change) for change in row.set or []],
                "protocol": row.protocol, "last": trained.history[-1]},
            "config": self.preset.resolved() | {"train": asdict(self.loop)},
            "environment": environment.describe(self.place, seed=self.loop.seed, rung=trained.rung,
                                                **trained.precision)})

    def measure(self) -> Path:
        """Measure it in this process; its folder is the caller's alone."""
        return measures.measure_trained(self.checkpoints, self.results, alone=False)


def run(wanted: rows.Ablation, name: str, seed: int, results: str | os.PathLike = settings.RESULTS,
        params: str | os.PathLike = "params.yaml", device: str | None = None, runs: Path | None = None) -> Path:
    """Train one row with one seed and measure it.

    Args:
        wanted: from `rows.section`.
        name: of the row.
        seed: of weights, batches and noise.
        results: folder of the results.
        params: file of presets.
        device: auto, cpu or cuda; None is the preset's.
        runs: folder of the checkpoints.

    Returns:
        The row's folder.

    Raises:
        BadInput: unknown settings.
        NonFiniteLoss: a number is not finite.
    """
    one = Run.make(wanted, name, seed, results, params, device, runs)
    with locks.held(one.folder, "trains"):
        if not one.trained:
            model, dataset, loop, more = one.begin(dataset_for(one.preset, results).to(one.place))
            with console.progress(loop.steps, f"ablation {one.says}:") as bar:
                one.ended(train.train(model, dataset, loop, **more, on_step=bar.step, on_row=bar.row))
        return one.measure()


def run_all(wanted: rows.Ablation, results: str | os.PathLike, params: str | os.PathLike, device: str | None = None,
            options: beside.Options | None = None) -> None:
    """Every row and seed that is not there yet with these settings.

    Args:
        wanted: from `rows.section`.
        results: folder of the results.
        params: file of presets.
        device: auto, cpu or cuda; None is the preset's.
        options: how many beside each other, and until when.

    Raises:
        BadInput: unknown settings.
        Interrupted: a signal came; the states are saved.
        CheckFailed: runs failed; the others are there.
    """
    options = options or beside.Options()
    runs = [Run.make(wanted, name, seed, results, params, device, options.runs).among_others
            for name in wanted.rows or [] for seed in wanted.seeds or []
            if not rows.is_done(wanted, name, seed, results, params)]
    if not runs:
        return
    place = runs[0].place.type
    if options.has_to_follow(place):
        options.in_fresh_processes(results, params, place)
        return
    failed = beside.failed_before(options.failed)
    runs = [one for one in runs if one.says not in failed]
    processes = options.processes if options.processes is not None else children.cores() - 1 if place == "cuda" else 0
    data: dict[str, Examples] = {}

    def begin(one: Run) -> ensemble.Start:
        key = json.dumps([one.preset.sections["prepare"], one.preset.config().kind], sort_keys=True)
        if key not in data:  # once, and shared
            data[key] = dataset_for(one.preset, results).to(one.place)
        return one.begin(data[key])

    with contextlib.closing(children.Crew(processes)) as crew:
        def measure(one: Run) -> None:
            if processes:
                crew.add(one.says, ["-m", "pipelines.ablation", "--measure", str(one.checkpoints), "--results",
                                    str(results)])
            else:
                one.measure()

        def ended(one: Run, trained: train.Trained) -> None:
            one.ended(trained)
            measure(one)

        for one in (one for one in runs if one.trained):  # before this process began
            with locks.held(one.folder, "measures"):
                measure(one)
        outcome = beside.run(
            [beside.Work(one.says, one.loop, functools.partial(locks.held, one.folder, "trains"),
                         functools.partial(begin, one), functools.partial(ended, one))
             for one in runs if not one.trained and not rows.is_done(wanted, one.name, one.loop.seed, results, params)],
            options.most(len(runs), place), options.seconds, crew.look)
        if not outcome.spent and outcome.stopped in (0, beside.TIME_OVER):
            crew.finish()
        outcome.failed |= failed | {name: f"measuring it ended with code {code}"
                                    for name, code in crew.codes.items() if code}
    beside.conclude(outcome, [
        one.says for one in runs if one.says not in outcome.failed
        and not rows.is_done(wanted, one.name, one.loop.seed, results, params)], options.failed)
