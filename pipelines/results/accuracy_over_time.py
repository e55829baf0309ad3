"""Accuracy over time: how right the probes of each preset are on images it does not train on, by time or by step.

    python -m pipelines.results.accuracy_over_time mnist_small usps digits
    python -m pipelines.results.accuracy_over_time mnist_small --x steps --out steps.png

Reads results/train/<preset>/<seed>/history.csv of every seed that is there; where none lies, as in a clone,
results/aggregate/<preset>/curves.csv with the time that the whole run took. Writes one picture of two panels,
posterior and prior presences: a thin line a seed, a thick one for their mean over the steps that all of them have.
Prints what the picture is of, for the text beside it.

    minutes: seconds of the clock × threads / 60, with whatever else the machine did meanwhile
    pace:    step × threads / 60 × seconds a step, of the fastest tenth of the rows of the history; without a history
             those of the preset's fastest seed, from its first to its last step

The latter comes near to what an idle machine of that kind would take.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipelines.results import plots
from pipelines.support import settings
from pipelines.support.command_line import Program, among, to_write
from pipelines.support.values import BadInput
from port.checkpoints import run_files
from port.core import files

PANELS = (("held_out_posterior_probe", "by posterior presences"), ("held_out_prior_probe", "by prior presences"))
AXES = {"minutes": "core-minutes", "pace": "core-minutes at the fastest pace seen", "steps": "thousand steps"}
LOOKS = {"train?": {"validation_images?": run_files.count, "held_out_images?": (run_files.count, type(None))}}
FASTEST = 0.1  # share of the rows that tell the pace
INK, FAINT = "#33363a", "#d9d9d4"


@dataclass(frozen=True)
class Curve:
    """One seed: its number, and for each panel's column steps, core-minutes (None where unknown) and shares."""

    seed: int
    columns: dict[str, tuple[np.ndarray, np.ndarray | None, np.ndarray]]
    looks: str


@dataclass(frozen=True)
class Preset:
    """The seeds of a preset."""

    name: str
    curves: list[Curve]

    def in_words(self) -> str:
        """`mnist_small: seeds 0, 1, 2, 100,000 steps, read on 1,024 training images kept out`."""
        steps = max(int(steps[-1]) for curve in self.curves for steps, _, _ in curve.columns.values())
        looks = "; ".join(dict.fromkeys(curve.looks for curve in self.curves))
        seeds = ", ".join(str(curve.seed) for curve in self.curves)
        return f"{self.name}: seed{'s' * (len(self.curves) > 1)} {seeds}, {steps:,} steps, read on {looks}"


def read(name: str, x: str, results: Path) -> Preset:
    """Every seed of a preset that has curves.

    Raises:
        BadInput: no seed, or none with probes and, where asked for, times.
    """
    folders = sorted((path.parent for path in settings.folder_of("train", name, results=results).glob("*/history.csv")
                      if path.parent.name.isdigit()), key=lambda folder: int(folder.name))
    curves = [of_run(folder, x == "pace") for folder in folders]
    curves += of_aggregate(settings.folder_of("aggregate", name, results=results) / "curves.csv",
                           {curve.seed for curve in curves}, x)
    curves = sorted((curve for curve in curves if curve.columns), key=lambda curve: curve.seed)
    if not curves:
        raise BadInput(f"{name}: no history.csv with probes in "
                       f"{settings.folder_of('train', name, results=results)}; train "
                       "a seed with held_out_every above 0" + ("" if x == "steps" else ", or take --x steps"))
    return Preset(name, curves)


def of_run(folder: Path, pace: bool = False) -> Curve:
    """From a run's folder; `pace` counts every step as the fastest ones."""
    with open(folder / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    config = run_files.read(folder / "config.json", LOOKS, {})
    environment = run_files.read(folder / "environment.json", run_files.ENVIRONMENT, {})
    threads = environment.get("threads") or 1
    each = fastest(rows) if pace else 0.0
    columns = {}
    for column, _ in PANELS:
        kept = [(float(row["step"]), (float(row["step"]) * each if pace else float(row["seconds"])) * threads / 60,
                 float(row[column])) for row in rows if row.get(column)]
        if kept:
            columns[column] = tuple(np.array(values) for values in zip(*kept, strict=True))
    return Curve(int(folder.name), columns, looks_of(config.get("train") or {}))


def fastest(rows: list[dict]) -> float:
    """Seconds a step below which the fastest tenth of the rows lie."""
    steps, seconds = (np.array([0.0, *(float(row[name]) for row in rows)]) for name in ("step", "seconds"))
    return float(np.quantile(np.diff(seconds) / np.diff(steps), FASTEST))


def of_aggregate(path: Path, known: set[int], x: str) -> list[Curve]:
    """From the thinned curves of an aggregate: seeds without a history; by time if their run says how long it was."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs = path.parents[2] / "train" / path.parent.name
    seeds = sorted({int(row["seed"]) for row in rows})
    each = {seed: minutes_a_step(runs / str(seed)) for seed in seeds}
    if x == "pace":
        each = dict.fromkeys(seeds, min((minutes for minutes in each.values() if minutes), default=None))
    found = []
    for seed in [seed for seed in seeds if seed not in known and (x == "steps" or each[seed])]:
        columns = {}
        for column, _ in PANELS:
            kept = [(float(row["step"]), float(row[column])) for row in rows
                    if int(row["seed"]) == seed and row.get(column)]
            if kept:
                steps, shares = (np.array(values) for values in zip(*kept, strict=True))
                columns[column] = (steps, steps * each[seed] if each[seed] else None, shares)
        config = run_files.read(runs / str(seed) / "config.json", LOOKS, {})
        found.append(Curve(seed, columns, looks_of(config.get("train") or {})))
    return found


def minutes_a_step(folder: Path) -> float | None:
    """Core-minutes of a step, over a whole run; None where its metrics do not say."""
    told = run_files.read(folder / "metrics.json", run_files.METRICS, {})
    environment = run_files.read(folder / "environment.json", run_files.ENVIRONMENT, {})
    if not told or not told["steps"] or not told.get("seconds"):
        return None
    return told["seconds"] / told["steps"] * (environment.get("threads") or 1) / 60


def looks_of(training: dict) -> str:
    """On which images a run's probes are read (`port.data.validation`)."""
    if training.get("validation_images"):
        return f"{training['validation_images']:,} training images that were kept out"
    n = training.get("held_out_images")
    return "test images" if n is None else f"the first test images, {n:,} at most"


def mean(curves: Sequence[Curve], column: str, x: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the seeds at the steps that all of them have; by time, at the mean of their times there."""
    held = [curve.columns[column] for curve in curves if column in curve.columns]
    common = sorted(set.intersection(*(set(steps.tolist()) for steps, _, _ in held)))
    places = [np.searchsorted(steps, common) for steps, _, _ in held]
    across = np.array(common) if x == "steps" else np.mean(
        [minutes[place] for (_, minutes, _), place in zip(held, places, strict=True)], axis=0)
    return across, np.mean([shares[place] for (_, _, shares), place in zip(held, places, strict=True)], axis=0)


def draw(presets: Sequence[Preset], x: str, path: Path) -> None:
    """Write the picture, whole or not at all."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(8.6, 3.4), sharey=True)
    for axes, (column, words) in zip(both, PANELS, strict=True):
        for i, preset in enumerate(presets):
            colour = plots.CLASSES[i % len(plots.CLASSES)]
            held = [curve for curve in preset.curves if column in curve.columns]
            if not held:
                continue
            for curve in held:
                steps, minutes, shares = curve.columns[column]
                axes.plot(steps / 1000 if x == "steps" else minutes, 100 * shares, color=colour, linewidth=0.7,
                          alpha=0.45)
            across, shares = mean(held, column, x)
            axes.plot(across / 1000 if x == "steps" else across, 100 * shares, color=colour, linewidth=2,
                      label=preset.name)
        axes.set_title(words, fontsize=10, color=INK, loc="left")
        axes.set_xlabel(AXES[x], fontsize=9, color=INK)
        axes.set_xlim(left=0)
        axes.set_ylim(0, 100)
        axes.grid(True, color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8, length=0)
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(FAINT)
    both[0].set_ylabel("% of held-out images right", fontsize=9, color=INK)
    both[1].legend(frameon=False, fontsize=8, labelcolor=INK, loc="lower right")
    figure.tight_layout()
    with files.whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def command(presets: Annotated[list[str], typer.Argument(help="Names of trained presets.")],
            x: Annotated[str, typer.Option(
                callback=among(AXES), help=f"What lies across: {', '.join(AXES)}.")] = "minutes",
            results: Annotated[str, typer.Option(
                metavar="DIR", help="Folder the results lie in.")] = str(settings.RESULTS),
            out: Annotated[str, typer.Option(metavar="FILE", help="The picture.", callback=to_write)
                           ] = "results/readme/accuracy_over_time.png") -> None:
    """Accuracy over time: how right the probes of each preset are on images it does not train on."""
    found = [read(name, x, Path(results)) for name in dict.fromkeys(presets)]
    draw(found, x, Path(out))
    print(f"{out}: " + ". ".join(preset.in_words() for preset in found) + ".")


main = Program("python -m pipelines.results.accuracy_over_time", command)


if __name__ == "__main__":
    raise SystemExit(main())
