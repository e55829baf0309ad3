"""`scae report RUN…`: runs side by side on one page.

    scae report results/train/digits/0 results/train/digits/1

Settings and conditions that differ, numbers of training and evaluation, learning curves over each other,
pictures where the evaluation left any. Reads the folders alone; the page is results/runs.html or --out.
"""

from __future__ import annotations

import os
from pathlib import Path

from pipelines import report
from pipelines.results import differences, plots
from pipelines.support import settings
from pipelines.support.values import BadInput

WORDS = {name: words for name, words, _ in report.ROWS} | {
    "rec_ll": "reconstruction log-likelihood, nats", "log_prob": "object log-likelihood, nats",
    "segmentation": "segmentation", "mse": "squared error of the mean picture",
    "logistic": "logistic probe, poses and presences", "accuracy": "test accuracy"}
# What is a share of test images or points; everything else of an evaluation is a number.
SHARES = {name for name, _, _ in report.ROWS} | {"segmentation", "logistic", "accuracy"}
COUNTS = ("test_images", "fit_images", "test_examples")


def run(folders: list[str | os.PathLike], results: str | os.PathLike = settings.RESULTS,
        out: str | os.PathLike | None = None) -> Path:
    """Write the page.

    Args:
        folders: of runs, as the train stage leaves them.
        results: folder the page goes to.
        out: the page; None is runs.html in the results.

    Raises:
        BadInput: no run's folder, or a missing package.
    """
    found = []
    for folder in folders:
        kind, content = differences.load(folder)
        if kind != "run":
            raise BadInput(f"{folder} is a {kind}; give folders of runs, or --diff A B")
        found.append(content)
    page = report.render("runs.html", gather(found))
    return report.write(Path(out or Path(results) / "runs.html"), page)


def gather(found: list[dict]) -> dict:
    """Everything the template shows."""
    names = labels(found)
    for one, name in zip(found, names, strict=True):
        one["label"] = name
    histories = {one["label"]: plots.read_history(one["folder"] / "history.csv") for one in found
                 if (one["folder"] / "history.csv").is_file()}
    return {"title": "Runs side by side", "runs": found, "measures": rows(found),
            "settings": differences.settings_that_differ([one["config"] for one in found]),
            "conditions": differences.settings_that_differ([one["environment"] for one in found]),
            "curves": plots.curves_of_runs(histories), "without_curves": [
                one["label"] for one in found if one["label"] not in histories],
            "pictures": [(one["label"], shown) for one in found if (shown := pictures(one))]}


def labels(found: list[dict]) -> list[str]:
    """Preset and seed of each run; its folder too where two would be the same."""
    short = [f"{one['preset']}, seed {one['seed']}" for one in found]
    return [name if short.count(name) == 1 else f"{name} ({one['name']})"
            for name, one in zip(short, found, strict=True)]


def rows(found: list[dict]) -> list[dict]:
    """Each number that a run has, with its value in every run; shares and likelihoods apart."""
    each = [differences.measures(one) for one in found]
    shown = []
    for name in dict.fromkeys(name for one in each for name in one):
        group, _, measure = name.partition(".")
        values = [one.get(name) for one in each]
        if measure in COUNTS:
            continue
        share = group != "train" and measure in SHARES
        best = max((v for v in values if v is not None), default=None) if share else None
        shown.append({"group": group, "name": WORDS.get(measure, measure.replace("_", " ")),
                      "values": values, "share": share, "best": best})
    return shown


def pictures(one: dict) -> list[dict]:
    """Pictures that the evaluation of a run left."""
    folder = one["folder"].resolve().parents[2] / "evaluate" / one["preset"] / str(one["seed"]) / "pictures"
    return report.pictures(folder) if one["evaluated"] else []
