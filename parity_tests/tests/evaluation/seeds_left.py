"""Seeds as the stages leave them, with chosen accuracies, for the tests of what is made of them."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict

from pipelines import aggregate
from pipelines.support import settings

N = {"clean": 10_000, "faithful": 9_984}
MEASURES = ("posterior_kmeans", "prior_kmeans", "posterior_probe", "posterior_logistic")


def accuracy(value: float, n: int) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01, "standard_error": 0.003,
            "n": n}


def write_seed(folder, preset, seed: int, value=0.9, steps=None, data="mnist", on=None,
               history=True, train=None, origin=None, weights=None) -> None:
    """What the stages would leave of one seed whose every accuracy is `value`."""
    wanted, _ = preset.train(seed)
    config = preset.resolved() | {"train": asdict(wanted) | (train or {}),
                                  "arguments": preset.config().to_arguments()}
    steps = wanted.steps if steps is None else steps
    at = settings.folder_of("train", preset.name, seed, folder)
    beside = settings.folder_of("evaluate", settings.evaluation_name(preset.name, on), seed, folder)
    environment = {"device_name": "a processor", "revision": "0123456789",
                   "packages": {"torch": "2.15.0"}, "seed": seed} | (origin or {"device": "cpu"})
    protocols = {protocol: {moment: {
        "test_images": n, "fit_images": 60_000, "rec_ll": -1400.0, "log_prob": 20.0,
        **{name: accuracy(0.1 if moment == "initial" else value, n) for name in MEASURES}}
        for moment in ("initial", "final")} for protocol, n in N.items()}
    evaluated = {"preset": preset.name, "seed": seed, "steps": steps, "data": data,
                 "trained_on": "mnist", "level": 0.95, "protocols": protocols, "baseline": {},
                 "checks": [], "learned": True} | ({"weights": weights} if weights else {})
    for path, content in (
            (at / "config.json", config), (at / "environment.json", environment),
            (at / "metrics.json", {"steps": steps, "seconds": 60.0, "steps_per_second": 10.0}),
            (beside / "metrics.json", evaluated), (beside / "environment.json", environment),
            (beside / "config.json", {"preset": preset.name, "on": on,
                                      "evaluate": asdict(preset.evaluate())})):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    if history:
        with open(at / "history.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "rec_ll", "held_out_posterior_probe"])
            for i in range(1, 301):
                writer.writerow([100 * i, -1500 + 0.1 * i + seed, value * i / 300 if i % 10 == 0
                                 else ""])


def summarised(folder, preset) -> dict:
    """What metrics.json would say; drawing the charts takes longer than all the rest."""
    runs, missing = aggregate.read_runs(preset.name, preset.name, folder)
    return aggregate.summarise(runs, preset) | {"not_evaluated": missing}


def five(folder, preset, values=(0.90, 0.91, 0.92, 0.93, 0.94), **more) -> dict:
    for seed, value in enumerate(values):
        write_seed(folder, preset, seed, value, **more)
    return summarised(folder, preset)


def written(folder, preset, values, **more) -> None:
    five(folder, preset, values, **more)
    aggregate.run(preset, folder)
