"""Stage `aggregate`: the results of all seeds of a preset as one, with a verdict on the paper.

    python -m pipelines.aggregate --preset mnist
    python -m pipelines.aggregate --preset mnist --on affnist

Reads metrics.json, config.json and environment.json of results/train/<preset>/<seed>/ and
results/evaluate/<preset>/<seed>/ for every seed that is there, wherever it was trained, and
history.csv where there is one. Refuses seeds that are not of one configuration or of one origin: trained
on a CPU and on a GPU, or evaluated with other weights than those beside them. Leaves
results/aggregate/<preset>/ with metrics.json, curves.csv and plots/.

Per measure: the values of the seeds, mean, standard deviation over seeds (ddof 1; null with one
seed), an interval and a verdict. The interval is a bootstrap over seeds and examples
(`port.evaluation.clustering.seeds_interval` says exactly how); with one seed it is over its examples alone, and
`interval_over` says so. The verdict's rule stands in `pipelines.results.paper`.
"""

from __future__ import annotations

import csv
import math
import os
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipelines.results import paper, plots
from pipelines.support import sections, settings
from pipelines.support.command_line import Params, Preset, Program, Results, Set
from pipelines.support.identity import ROUNDING, differences, identity
from pipelines.support.measured import REASONS
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.checkpoints import run_files, run_folder
from port.core import files
from port.evaluation import clustering as evaluate

CURVES = ("rec_ll", "held_out_rec_ll", "held_out_posterior_probe", "held_out_prior_probe")
# Of a capsule classifier.
CLASSIFIER_CURVES = ("loss", "held_out_loss", "accuracy", "held_out_accuracy")
# What has to be there besides what everybody uses.
CONFIG = run_files.CONFIG | {"arguments": dict}
EVALUATION = run_files.EVALUATION | {"data": str, "trained_on": str, "preset": str}
UNLIKE = ("pcae", "constellation")  # kinds that are not evaluated by clusters and classifiers
CURVE_POINTS = 100  # rows kept of each seed's history


@dataclass(frozen=True)
class Run:
    """What one seed left."""

    seed: int
    train: dict
    evaluated: dict
    config: dict
    environment: dict
    history: Path


def run(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS,
        on: str | None = None) -> Path:
    """Aggregate all seeds of a preset.

    Raises:
        BadInput: no results, results of several configurations, or a value that is no number.
    """
    results = Path(results)
    name = settings.evaluation_name(preset.name, on)
    runs, missing = read_runs(preset.name, name, results)
    measured = summarise(runs, preset) | {"not_evaluated": missing}
    folder = settings.folder_of("aggregate", name, results=results)
    curves = read_curves(runs, folder / "curves.csv")
    write_json(folder / "metrics.json", measured)
    write_curves(folder / "curves.csv", curves)
    plots.save(folder / "plots", {"accuracy": plots.seeds_chart(measured),
                                  **dict(plots.curves_over_seeds(curves))})
    say(measured)
    return folder


# --------------------------------------------------------------------------------------------- reading

def read_runs(preset: str, name: str, results: Path) -> tuple[list[Run], list[int]]:
    """The seeds with an evaluation, in order, and those that are trained but not evaluated.

    Raises:
        BadInput: no evaluation, or a file that is missing or damaged.
        DataError: a seed's files are of several runs.
    """
    trained = seeds_in(settings.folder_of("train", preset, results=results))
    evaluated = seeds_in(settings.folder_of("evaluate", name, results=results))
    if not evaluated:
        raise BadInput(f"no evaluation in {settings.folder_of('evaluate', name, results=results)}"
                       f"; run the train and evaluate stages for a seed first")
    runs = []
    for seed in evaluated:
        at = settings.folder_of("train", preset, seed, results)
        beside = settings.folder_of("evaluate", name, seed, results)
        run_folder.check_whole(at)
        config = run_files.read(at / "config.json", CONFIG) | {
            "evaluate": run_files.read(beside / "config.json", run_files.EVALUATED_WITH)["evaluate"]}
        kind = config["arguments"].get("model", "scae")
        if kind in UNLIKE:
            raise BadInput(f"{beside}: models of kind {kind} have measures of their own, which are not aggregated; "
                           "look at the metrics.json of each seed")
        found = Run(seed, run_files.read(at / "metrics.json", run_files.METRICS),
                    run_files.read(beside / "metrics.json", EVALUATION), config,
                    run_files.read(at / "environment.json", run_files.ENVIRONMENT), at / "history.csv")
        steps = found.evaluated.get("steps")
        if steps != found.train["steps"]:
            raise BadInput(f"{beside} was measured at {steps} steps, {at} is trained for "
                           f"{found.train['steps']}; evaluate it again")
        measured, left = found.evaluated.get("weights"), found.environment.get("weights")
        if measured and left and measured != left:
            raise BadInput(f"{beside} was measured with other weights than {at} has ({measured}, not "
                           f"{left}); evaluate it again")
        runs.append(found)
    return runs, [seed for seed in trained if seed not in evaluated]


def seeds_in(folder: Path) -> list[int]:
    """Names of the subfolders that are numbers and hold a metrics.json."""
    return sorted(int(path.parent.name) for path in folder.glob("*/metrics.json")
                  if path.parent.name.isdigit())


def refuse_mixtures(runs: list[Run]) -> None:
    """Raise unless all seeds are of one configuration, data set, length and origin.

    The origin is the type of device: generators of another one draw other numbers, so a seed there is
    another sample, and what travelled along with the repository must not be counted among what was
    measured elsewhere.

    Raises:
        BadInput: naming the first difference.
    """
    def settled(run: Run) -> dict:
        return identity(run.config) | {"data": run.evaluated.get("data"),
                                       "steps": run.train["steps"],
                                       "the device trained on": run.environment.get("device", "unknown")}
    first = settled(runs[0])
    for other in runs[1:]:
        for line in differences(settled(other), first):
            raise BadInput(f"seeds {runs[0].seed} and {other.seed} do not belong together: "
                           f"{line}; remove or repeat one of them")


# ------------------------------------------------------------------------------------------ statistics

def summarise(runs: list[Run], preset: settings.Preset) -> dict:
    """Everything of metrics.json but the seeds that are missing.

    Raises:
        BadInput: the seeds are not of one configuration, or a value is no number.
    """
    refuse_mixtures(runs)
    first, wanted = runs[0], preset.evaluate()
    steps, data = first.train["steps"], first.evaluated["data"]
    full, different, apart_from_rounding = against_preset(first, preset)
    obstacle = paper.obstacle_to(data, len(runs), steps, full, apart_from_rounding, first.evaluated["trained_on"])
    found = {"preset": preset.name, "model": first.evaluated.get("model", "scae"), "data": data,
             "trained_on": first.evaluated["trained_on"],
             "seeds": [run.seed for run in runs], "steps": steps, "full_steps": full,
             "finished": full is not None and steps >= full, "unlike_preset": different,
             "tf32": bool(first.config["train"].get("tf32")),
             "level": wanted.level, "bootstrap_draws": wanted.bootstrap_draws,
             "interval_over": "seeds and examples" if len(runs) > 1 else "examples",
             "protocols": {}, "baseline": baseline(first), "environments": environments(runs)}
    for protocol, moments in first.evaluated["protocols"].items():
        rows = {}
        for measure, value in moments["final"].items():
            if all(final(run, protocol).get(measure) is None for run in runs):
                found.setdefault(REASONS, {})[f"{protocol}.{measure}"] = reason_of(first, protocol, measure)
            elif isinstance(value, dict):
                rows[measure] = accuracy(runs, protocol, measure, wanted, obstacle)
            else:
                numbers = [number(run, protocol, measure) for run in runs]
                rows[measure] = value if measure.endswith("_images") else {
                    "mean": statistics.fmean(numbers), "std": spread(numbers)}
        found["protocols"][protocol] = rows
    return found


def against_preset(run: Run, preset: settings.Preset) -> tuple[int, list[str], list[str]]:
    """Full length of the preset as it stands in params.yaml, where a run's settings differ, and where they do so
    otherwise than in how products are rounded."""
    training = asdict(preset.train(run.seed)[0])
    stands = identity({"train": training, "prepare": preset.sections["prepare"],
                       "arguments": preset.config().to_arguments()})
    did = identity({key: run.config[key] for key in ("train", "prepare", "arguments")})
    length = ("train.steps",)
    return (training["steps"], differences(did, stands, without=length),
            differences(did, stands, without=(*length, *ROUNDING)))


def accuracy(runs: list[Run], protocol: str, measure: str, wanted: sections.Evaluate,
             obstacle: str) -> dict:
    """One measure over the seeds, with interval and verdict."""
    values = [number(run, protocol, measure) for run in runs]
    for run, value in zip(runs, values, strict=True):
        if not (0 <= value <= 1 and "n" in as_mapping(final(run, protocol).get(measure))):
            raise BadInput(f"seed {run.seed}: {protocol} {measure} is no share of examples with their number n; "
                           "evaluate it again or remove the seed")
    counts = [final(run, protocol)[measure]["n"] for run in runs]
    mean = statistics.fmean(values)
    low, high = evaluate.seeds_interval(values, counts, wanted.seed, wanted.bootstrap_draws,
                                        wanted.level)
    figure = paper.figure(runs[0].evaluated["data"], measure, runs[0].evaluated["preset"])
    says = paper.verdict(values, figure, obstacle)
    return {"mean": mean, "std": spread(values), "low": low, "high": high, "values": values,
            "initial": statistics.fmean(number(run, protocol, measure, "initial") for run in runs),
            "n": counts[0], "paper": None if figure is None else figure.value,
            "verdict": says.word, "reason": says.reason}


def final(run: Run, protocol: str) -> dict:
    """What a seed's evaluation measured at the end.

    Raises:
        BadInput: it has no such protocol.
    """
    protocols = run.evaluated["protocols"]
    if protocol not in protocols:
        raise BadInput(f"seed {run.seed}: protocol {protocol} is missing; evaluate it again or remove the seed")
    return protocols[protocol]["final"]


def as_mapping(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def reason_of(run: Run, protocol: str, measure: str, moment: str = "final") -> str | None:
    """Why a seed's evaluation has no such value, where it says so."""
    return run.evaluated.get(REASONS, {}).get(f"protocols.{protocol}.{moment}.{measure}")


def number(run: Run, protocol: str, measure: str, moment: str = "final") -> float:
    """A value of a seed's evaluation.

    Raises:
        BadInput: it is missing or not a finite number.
    """
    try:
        value = run.evaluated["protocols"][protocol][moment][measure]
        value = value["value"] if isinstance(value, dict) else value
    except KeyError:
        value = None
    if not isinstance(value, int | float) or not math.isfinite(value):
        reason = reason_of(run, protocol, measure, moment)
        raise BadInput(f"seed {run.seed}: {protocol} {measure} ({moment}) is {value}, not a number"
                       + (f" ({reason})" if reason else "") + "; evaluate it again or remove the seed")
    return float(value)


def spread(values: list[float]) -> float | None:
    """Standard deviation with ddof 1; None for a single value."""
    return statistics.stdev(values) if len(values) > 1 else None


def baseline(run: Run) -> dict:
    """Accuracies on raw pixels, as shares; they depend on the data and the evaluation's seed alone."""
    return {place: {name: row["value"] for name, row in rows.items() if isinstance(row, dict)}
            for place, rows in (run.evaluated.get("baseline") or {}).items()}


def environments(runs: list[Run]) -> list[dict]:
    """Where and with what each seed was trained."""
    return [{"seed": run.seed, "device": run.environment.get("device_name"),
             "revision": run.environment.get("revision"),
             "torch": (run.environment.get("packages") or {}).get("torch"),
             "seconds": run.train.get("seconds"),
             "steps_per_second": run.train.get("steps_per_second")} for run in runs]


# ---------------------------------------------------------------------------------------------- curves

def read_curves(runs: list[Run], kept: Path) -> list[dict]:
    """Thinned learning curves, one row per seed and step; `kept` serves seeds without a history."""
    old = []
    if kept.exists():
        with open(kept, newline="", encoding="utf-8") as file:
            old = list(csv.DictReader(file))
    rows = []
    for run in runs:
        if run.history.exists():
            rows += [{"seed": run.seed, **row} for row in thinned(plots.read_history(run.history))]
        else:
            rows += [row for row in old if int(row["seed"]) == run.seed]
    return rows


def thinned(history: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[dict]:
    """At most `CURVE_POINTS` steps of each curve, evenly spread, the last one always."""
    rows: dict[int, dict] = {}
    for name in CLASSIFIER_CURVES if "accuracy" in history else CURVES:
        if name in history:
            steps, values = history[name]
            for i in np.unique(np.linspace(0, len(steps) - 1, CURVE_POINTS).round().astype(int)):
                rows.setdefault(int(steps[i]), {})[name] = f"{values[i]:.6g}"
    return [{"step": step, **rows[step]} for step in sorted(rows)]


def write_curves(path: Path, rows: list[dict]) -> None:
    with files.whole(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        # Committed, so with git's own line ends: DVC would see another file after a checkout.
        columns = CLASSIFIER_CURVES if any("accuracy" in row for row in rows) else CURVES
        writer = csv.DictWriter(file, ["seed", "step", *columns], restval="", extrasaction="ignore",
                                lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def say(measured: dict) -> None:
    """The table on the terminal."""
    seeds = measured["seeds"]
    print(f"aggregate: {measured['preset']} on {paper.name_of(measured['data'])}, {len(seeds)} "
          f"seed(s), {measured['steps']:,} steps; interval over {measured['interval_over']}")
    for protocol, rows in measured["protocols"].items():
        for measure, row in rows.items():
            if isinstance(row, dict) and "values" in row:
                std = "" if row["std"] is None else f" ± {100 * row['std']:.2f}"
                print(f"  {protocol:8s} {measure:18s} {100 * row['mean']:6.2f}{std} % "
                      f"[{100 * row['low']:.2f}, {100 * row['high']:.2f}]  {row['verdict']}"
                      + (f" ({row['reason']})" if row["reason"] else ""))
    if measured["not_evaluated"]:
        print(f"  trained but not evaluated: seeds {measured['not_evaluated']}")


def command(preset: Preset = "digits", overrides: Set = None,
            on: Annotated[str | None, typer.Option(
                metavar="SOURCE", help="Results of `evaluate --on SOURCE`.")] = None,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """The results of all seeds of a preset as one, with a verdict on the paper."""
    run(settings.load_preset(preset, overrides, params), results, on)


main = Program("python -m pipelines.aggregate", command)


if __name__ == "__main__":
    raise SystemExit(main())
