"""Soak: a preset trained long and at a multiple of its rate, to see whether and why numbers stop being finite.

    python -m pipelines.soak --preset mnist_small --factor 3 --seed 0 --steps 50000 --unless-done
    python -m pipelines.soak --preset mnist_small --summary

A run leaves results/soak/<preset>/x<factor>/<seed>/ with metrics.json, config.json and environment.json: whether
everything stayed finite, else the step and the first cause as `port.training.diagnose` finds it, and what was alive at
the looks before. It ends with 0 either way, for either is a result. One that was stopped goes on with the same command;
the last good state of one that broke stays in runs/. The summary says it in a sentence for each factor and writes
results/soak/<preset>/metrics.json.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import port
from pipelines import train as training
from pipelines.prepare import dataset_for
from pipelines.support import console, environment, locks, run_folders, settings
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.training import loop, resume, sound

SETTINGS = "config.json"
LOOKS = 50  # at most kept of a run


def folder_of(preset: str, factor: float, seed: int, results: Path) -> Path:
    """results/soak/<preset>/x<factor>/<seed>."""
    return settings.folder_of("soak", preset, results=results) / f"x{factor:g}" / str(seed)


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
    preset = faster(preset, factor)
    wanted, place = training.check(preset, seed, device)
    folder = folder_of(preset.name, factor, seed, results)
    with locks.held(folder, "trains"):
        dataset = dataset_for(preset, results)
        model = port.build(preset.config(), seed).to(place)
        decides = [model.config.to_arguments(), asdict(wanted), preset.sections["prepare"], {"device": place.type}]
        checkpoints = run_folders.checkpoints(training.RUNS, f"soak_{preset.name}", seed, decides, dataset, False)
        rows: list[dict[str, float]] = []
        told = broken(resume.checkpoints(checkpoints))
        with console.progress(wanted.steps, f"soak {preset.name} x{factor:g}, seed {seed}:") as bar:
            try:
                trained = loop.train(model, dataset.to(place), wanted, checkpoints, bar.step,
                                     training.both(bar.row, rows.append))
                found = {"finite": True, "step": trained.step, "cause": None, "says": None}
                rows, seconds = trained.history, trained.seconds
                sound.discard(checkpoints)
            except resume.NonFiniteLoss as error:
                found = {"finite": False, **cause_of(str(error))}
                state = broken(resume.checkpoints(checkpoints)) or told
                rows = [*[row for row in state["history"] if not rows or row["step"] < rows[0]["step"]], *rows]
                seconds = state["seconds"]
        write_json(folder / "metrics.json", {
            "preset": preset.name, "factor": factor, "lr": wanted.lr, "seed": seed, "steps": wanted.steps, **found,
            "seconds": round(seconds, 1), "largest_loss": max((row["loss"] for row in rows), default=None),
            "looks": looks(rows)})
        write_json(folder / SETTINGS, preset.resolved() | {"train": asdict(wanted)})
        write_json(folder / "environment.json", environment.describe(place, seed=seed))
    print(f"soak: {sentence_of([json.loads((folder / 'metrics.json').read_text())])}", flush=True)
    return folder


def faster(preset: settings.Preset, factor: float) -> settings.Preset:
    """The preset at a multiple of its rate.

    Raises:
        BadInput: the factor is no positive number.
    """
    if not (math.isfinite(factor) and factor > 0):
        raise BadInput(f"--factor must be a number above 0, not {factor}")
    return settings.overridden(preset, [f"train.lr={factor * preset.train(0)[0].lr:.9g}"])


def broken(checkpoints: list[Path]) -> dict:
    """History and seconds of the newest checkpoint; of none there is nothing."""
    state = json.loads((checkpoints[-1] / "state.json").read_text()) if checkpoints else {}
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
    folder = folder_of(preset.name, factor, seed, results)
    try:
        found, config = (json.loads((folder / name).read_text()) for name in ("metrics.json", SETTINGS))
    except (OSError, ValueError):
        return False
    wanted = asdict(faster(preset, factor).train(seed)[0])
    kept = {name: value for name, value in wanted.items() if name not in loop.NOT_IDENTITY}
    same = all(config["train"].get(name) == value for name, value in json.loads(json.dumps(kept)).items())
    return same and config["model"] == json.loads(json.dumps(preset.resolved()["model"])) and (
        found["steps"] >= wanted["steps"] or not found["finite"])


def summary(preset: str, results: Path = settings.RESULTS) -> dict:
    """Every finished run of a preset, and a sentence for each factor; also written to metrics.json beside them.

    Raises:
        BadInput: there is none.
    """
    place = settings.folder_of("soak", preset, results=results)
    runs = [json.loads(path.read_text()) for path in place.glob("x*/*/metrics.json")]
    if not runs:
        raise BadInput(f"no run in {place}; python -m pipelines.soak --preset {preset} --factor 3 --seed 0 makes one")
    runs.sort(key=lambda one: (one["factor"], one["seed"]))
    by_factor: dict[float, list[dict]] = {}
    for one in runs:
        by_factor.setdefault(one["factor"], []).append(one)
    found = {"preset": preset, "runs": [{k: v for k, v in one.items() if k != "looks"} for one in runs],
             "sentences": [sentence_of(each) for each in by_factor.values()]}
    write_json(place / "metrics.json", found)
    return found


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
            steps: Annotated[int, typer.Option(help="Updates at most.")] = 50_000, overrides: Set = None,
            unless_done: Annotated[bool, typer.Option(
                "--unless-done", help="Leave it alone where it ended with these settings.")] = False,
            summarise: Annotated[bool, typer.Option(
                "--summary", help="Only say what the finished runs came to.")] = False,
            device: Device = None, params: Params = "params.yaml", results: Results = str(settings.RESULTS)) -> None:
    """Train long at a multiple of the rate, and name the first cause where a loss leaves the finite numbers."""
    if summarise:
        print("\n".join(summary(preset, Path(results))["sentences"]))
        return
    chosen = settings.load_preset(preset, [*(overrides or []), f"train.steps={steps}"], params)
    if unless_done and done(chosen, factor, seed, Path(results)):
        return
    run(chosen, factor, seed, Path(results), device)


main = Program("python -m pipelines.soak", command)


if __name__ == "__main__":
    raise SystemExit(main())
