"""Soak: a preset trained long and at a multiple of its rate, to see whether and why numbers stop being finite.

    python -m pipelines.soak --preset mnist_small --factor 3 --seed 0 --steps 50000 --unless-done
    python -m pipelines.soak --preset mnist_small --factors 3 10 --seeds 0 1 2 3 4 --device cuda --seconds 400
    python -m pipelines.soak --preset mnist_small --summary

A run leaves results/soak/<preset>/x<factor>/<seed>/ with metrics.json, config.json and environment.json: whether
everything stayed finite, else the step and the first cause as `port.training.diagnose` finds it, and what was alive at
the looks before. It ends with 0 either way, for either is a result. One that was stopped goes on with the same command;
the last good state of one that broke stays in runs/. Several are trained beside each other
(`pipelines.training.beside`). The summary says it in a sentence for each factor and writes
results/soak/<preset>/metrics.json.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Annotated

import torch
import typer

import port
from pipelines import train as training
from pipelines.prepare import dataset_for
from pipelines.support import children, console, environment, locks, run_folders, settings
from pipelines.support.command_line import (
    Device,
    Failed,
    Params,
    Preset,
    Program,
    Results,
    Runs,
    Seconds,
    Seed,
    Set,
    Together,
    several,
)
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.training import beside, given_weights
from port.checkpoints import run_files
from port.data.streams import Examples
from port.training import ensemble, loop, resume, sound

SETTINGS = "config.json"
LOOKS = 50  # at most kept of a run
RUN = {"preset": str, "factor": run_files.positive, "lr": run_files.positive, "seed": run_files.count,
       "steps": run_files.count, "finite": bool, "step": (run_files.count, NoneType), "cause": run_files.MAYBE_TEXT,
       "largest_loss": (run_files.real, NoneType), "looks": [run_files.ROW]}


def folder_of(preset: str, factor: float, seed: int, results: Path) -> Path:
    """results/soak/<preset>/x<factor>/<seed>."""
    return settings.folder_of("soak", preset, results=results) / f"x{factor:g}" / str(seed)


@dataclass(frozen=True)
class Soak:
    """A preset at a multiple of its rate, with one seed.

    Attributes:
        preset: at that rate, with the number of steps wanted.
        factor: on the learning rate.
        wanted: settings of its training.
        place: that it trains on.
        results: folder of the results.
        runs: of the checkpoints.
        rows: of the history, as they come.
    """

    preset: settings.Preset
    factor: float
    wanted: loop.Settings
    place: torch.device
    results: Path
    runs: Path
    rows: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def make(cls, preset: settings.Preset, factor: float, seed: int, results: Path, device: str | None = None,
             runs: Path | None = None) -> Soak:
        """A run at `factor` times the preset's rate.

        Raises:
            BadInput: settings that cannot be used, or a factor that is no positive number.
        """
        preset = faster(preset, factor)
        given_weights.refuse(preset, "a soak")
        wanted, place = training.check(preset, seed, device)
        return cls(preset, factor, wanted, place, results, runs or training.RUNS)

    @property
    def says(self) -> str:
        """Its name, for messages."""
        return f"soak {self.preset.name} x{self.factor:g}, seed {self.wanted.seed}"

    @property
    def folder(self) -> Path:
        """Of its results."""
        return folder_of(self.preset.name, self.factor, self.wanted.seed, self.results)

    def checkpoints(self, dataset: Examples) -> Path:
        """Where its training keeps the state."""
        decides = [self.preset.config().to_arguments(), asdict(self.wanted), self.preset.sections["prepare"],
                   {"device": self.place.type}]
        return run_folders.checkpoints(self.runs, f"soak_{self.preset.name}", self.wanted.seed, decides, dataset, False)

    def begin(self, dataset: Examples) -> ensemble.Start:
        """Build it; it goes on from its checkpoint, if there is one. The data are on its device."""
        model = port.build(self.preset.config(), self.wanted.seed).to(self.place)
        return ensemble.Start(model, dataset, self.wanted, {"folder": self.checkpoints(dataset),
                                                          "on_row": self.rows.append})

    def ended(self, checkpoints: Path, trained: loop.Trained) -> Path:
        """Every number was finite."""
        sound.discard(checkpoints)
        return self.write({"finite": True, "step": trained.step, "cause": None, "says": None}, trained.history,
                          trained.seconds)

    def broke(self, checkpoints: Path, error: resume.NonFiniteLoss) -> Path:
        """A number was not finite; the last good state stays."""
        state = state_of(resume.checkpoints(checkpoints))
        rows = [*[row for row in state["history"] if not self.rows or row["step"] < self.rows[0]["step"]], *self.rows]
        return self.write({"finite": False, **cause_of(str(error))}, rows, state["seconds"])

    def write(self, found: dict, rows: list[dict[str, float]], seconds: float) -> Path:
        """What became of it, as its results."""
        write_json(self.folder / "environment.json", environment.describe(self.place, seed=self.wanted.seed))
        write_json(self.folder / SETTINGS, self.preset.resolved() | {"train": asdict(self.wanted)})
        told = {"preset": self.preset.name, "factor": self.factor, "lr": self.wanted.lr, "seed": self.wanted.seed,
                "steps": self.wanted.steps, **found, "seconds": round(seconds, 1),
                "largest_loss": max((row["loss"] for row in rows), default=None), "looks": looks(rows)}
        write_json(self.folder / "metrics.json", told)
        print(f"soak: {sentence_of([told])}", flush=True)
        return self.folder


def run(preset: settings.Preset, factor: float, seed: int, results: Path = settings.RESULTS,
        device: str | None = None) -> Path:
    """Train a preset at `factor` times its rate and record what became of it.

    Args:
        preset: with the number of steps wanted.
        factor: on the learning rate.
        seed: of weights, batches and noise.
        results: folder of the results.
        device: auto, cpu or cuda; None is the preset's.

    Returns:
        The run's folder.

    Raises:
        BadInput: settings that cannot be used, or a factor that is no positive number.
    """
    one = Soak.make(preset, factor, seed, results, device)
    with locks.held(one.folder, "trains"):
        model, dataset, wanted, more = one.begin(dataset_for(one.preset, results).to(one.place))
        with console.progress(wanted.steps, f"{one.says}:") as bar:
            try:
                trained = loop.train(model, dataset, wanted, more["folder"], bar.step,
                                     training.both(bar.row, more["on_row"]))
            except resume.NonFiniteLoss as error:
                return one.broke(more["folder"], error)
        return one.ended(more["folder"], trained)


def run_all(preset: settings.Preset, factors: Sequence[float], seeds: Sequence[int], results: Path,
            params: str, device: str | None, options: beside.Options) -> None:
    """Every factor with every seed that has not ended yet, beside each other.

    Args:
        preset: with the number of steps wanted.
        factors: on the learning rate.
        seeds: of weights, batches and noise.
        results: folder of the results.
        params: file of presets.
        device: auto, cpu or cuda; None is the preset's.
        options: how many beside each other, and until when.

    Raises:
        BadInput: settings that cannot be used, or a factor that is no positive number.
        Interrupted: a signal came; the states are saved.
        CheckFailed: runs could not be made; the others are there.
    """
    failed = beside.failed_before(options.failed)
    runs = [Soak.make(preset, factor, seed, results, device, options.runs) for factor in factors for seed in seeds
            if not done(preset, factor, seed, results)]
    runs = [replace(one, wanted=beside.settings_of(one.wanted, one.place.type)) for one in runs
            if one.says not in failed]
    if runs and options.has_to_follow(runs[0].place.type):
        options.in_fresh_processes(results, params, runs[0].place.type)
        return
    data: list[Examples] = []

    def begin(one: Soak) -> ensemble.Start:
        if not data:
            data.append(dataset_for(preset, results).to(one.place))
        return one.begin(data[0])

    def work(one: Soak) -> beside.Work:
        return beside.Work(one.says, one.wanted, functools.partial(locks.held, one.folder, "trains"),
                           functools.partial(begin, one), lambda trained: one.ended(one.checkpoints(data[0]), trained),
                           lambda error: one.broke(one.checkpoints(data[0]), error))
    outcome = beside.run([work(one) for one in runs],
                         options.most(len(runs), runs[0].place.type) if runs else 1, options.seconds)
    outcome.failed |= failed
    beside.conclude(outcome, [one.says for one in runs if one.says not in (*outcome.failed, *outcome.done)],
                    options.failed)


def faster(preset: settings.Preset, factor: float) -> settings.Preset:
    """The preset at a multiple of its rate.

    Raises:
        BadInput: the factor is no positive number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise BadInput(f"--factor must be a number above 0, not {factor}")
    return settings.overridden(preset, [f"train.lr={factor * preset.train(0)[0].lr:.9g}"])


def state_of(checkpoints: list[Path]) -> dict:
    """History and seconds of the newest checkpoint; of none there is nothing."""
    state = json.loads((checkpoints[-1] / "state.json").read_text(encoding="utf-8")) if checkpoints else {}
    return {"history": state.get("history", []), "seconds": state.get("seconds", 0.0)}


def cause_of(message: str) -> dict:
    """Step and cause of what the loop raised: `… not finite between step 1 and 9; first non-finite tap: x (step 7)`."""
    cause = message.rpartition("; ")[2]
    step = re.search(r"\(step (\d+)\)", cause) or re.search(r"(\d+)(?!.*\d)", message)
    return {"step": int(step[1]) if step else None, "cause": cause, "says": message}


def looks(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The rows at which held-out images were looked at, the last row too, thinned."""
    kept = [row for row in rows if any(name.startswith(("held_out", "dead")) for name in row)]
    kept = kept[::max(1, math.ceil(len(kept) / LOOKS))]
    return kept + [row for row in rows[-1:] if row not in kept]


def done(preset: settings.Preset, factor: float, seed: int, results: Path) -> bool:
    """Whether this very run ended: with these settings and as many steps, or by a number that is not finite."""
    return ended_in(folder_of(preset.name, factor, seed, results), preset, factor, seed)


def ended_in(folder: Path, preset: settings.Preset, factor: float, seed: int) -> bool:
    """The same of a folder, wherever it lies."""
    try:
        found, config = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", SETTINGS))
    except (OSError, ValueError):
        return False
    wanted = asdict(faster(preset, factor).train(seed)[0])
    kept = {name: value for name, value in wanted.items() if name not in loop.NOT_IDENTITY}
    same = all(config["train"].get(name) == value for name, value in json.loads(json.dumps(kept)).items())
    return same and config["model"] == json.loads(json.dumps(preset.resolved()["model"])) and (
        found["steps"] >= wanted["steps"] or not found["finite"])


def summary(preset: str, results: Path = settings.RESULTS) -> dict:
    """Every finished run of a preset with its last look, and a sentence for each factor.

    Raises:
        BadInput: there is none.
        DataError: a file of results is damaged.
    """
    place = settings.folder_of("soak", preset, results=results)
    runs = [run_files.read(path, RUN) for path in place.glob("x*/*/metrics.json")]
    if not runs:
        raise BadInput(f"no run in {place}; python -m pipelines.soak --preset {preset} --factor 3 --seed 0 makes one")
    runs.sort(key=lambda one: (one["factor"], one["seed"]))
    by_factor: dict[float, list[dict]] = {}
    for one in runs:
        by_factor.setdefault(one["factor"], []).append(one)
    for one in runs:
        one["last_look"] = (one.pop("looks") or [{}])[-1]
    return {"preset": preset, "runs": runs, "sentences": [sentence_of(each) for each in by_factor.values()]}


def sentence_of(runs: list[dict]) -> str:
    """What runs at one factor came to."""
    first, bad = runs[0], [one for one in runs if not one["finite"]]
    lengths = " or ".join(f"{steps:,}" for steps in sorted({one["steps"] for one in runs}))
    head = (f"{first['preset']} at {first['factor']:g} times its rate ({first['lr']:g}), seed{'s' * (len(runs) > 1)} "
            f"{', '.join(str(one['seed']) for one in runs)}, {lengths} steps: ")
    if not bad:
        largest = max(one["largest_loss"] for one in runs)
        return head + f"every number stayed finite, the largest mean loss reported was {largest:.4g}."
    each = "; ".join(f"seed {one['seed']} at step {one['step']:,}, {one['cause']}" for one in bad)
    return head + f"{len(bad)} of {len(runs)} left the finite numbers: {each}."


def command(preset: Preset = "mnist_small",
            factor: Annotated[float, typer.Option(help="On the learning rate.")] = 3.0, seed: Seed = 0,
            factors: Annotated[list[float] | None, several(
                metavar="FACTOR", help="Several, each with every seed, in place of --factor.")] = None,
            seeds: Annotated[list[int] | None, several(
                metavar="N", help="Several, in place of --seed; what ended with these settings is left alone.")] = None,
            steps: Annotated[int, typer.Option(help="Updates at most.")] = 50_000, overrides: Set = None,
            unless_done: Annotated[bool, typer.Option(
                "--unless-done", help="Leave it alone where it ended with these settings.")] = False,
            summarise: Annotated[bool, typer.Option(
                "--summary", help="Only say what the finished runs came to.")] = False,
            together: Together = None, seconds: Seconds = None, runs: Runs = None, failed: Failed = None,
            device: Device = None, params: Params = "params.yaml", results: Results = str(settings.RESULTS)) -> None:
    """Train long at a multiple of the rate, and name the first cause where a loss leaves the finite numbers."""
    children.follow_parent()
    if summarise:
        found = summary(preset, Path(results))
        write_json(settings.folder_of("soak", preset, results=results) / "metrics.json", found)
        print("\n".join(found["sentences"]))
        return
    chosen = settings.load_preset(preset, [*(overrides or []), f"train.steps={steps}"], params)
    if factors or seeds:
        factors, seeds = factors or [factor], seeds or [seed]
        words = ["pipelines.soak", "--preset", preset, "--steps", str(steps),
                 "--factors", *map(str, factors), "--seeds", *map(str, seeds),
                 *(word for one in overrides or [] for word in ("--set", one))]
        run_all(chosen, factors, seeds, Path(results), params, device,
                beside.Options(together, seconds, None, runs, failed, words))
    elif not (unless_done and done(chosen, factor, seed, Path(results))):
        run(chosen, factor, seed, Path(results), device)


main = Program("python -m pipelines.soak", command)


if __name__ == "__main__":
    raise SystemExit(main())
