"""The page over all presets of the paper: results/paper.html, one self-contained file.

    python -m pipelines.report --presets all
    python -m pipelines.report --presets mnist digits

Reads results/aggregate/<preset>/ (metrics.json, curves.csv) and, for the first seed that has them,
the confusion table and pictures of results/evaluate/<preset>/<seed>/. The committed aggregates are
enough; what is not there is named with the command that makes it. Below them the ablation, from
results/ablation_table/metrics.json.
"""

from __future__ import annotations

import csv
import os
import shlex
from pathlib import Path

from pipelines import report
from pipelines.results import paper, plots
from pipelines.results import table as results_table
from pipelines.support import settings
from pipelines.support.values import BadInput

WORDS = {name: words for name, words, _ in report.ROWS} | {"accuracy": "test accuracy"}


def run(presets: list[str], results: str | os.PathLike = settings.RESULTS,
        out: str | os.PathLike | None = None) -> Path:
    """Write the page.

    Args:
        presets: names below results/aggregate, or `all`.
        results: folder of the results.
        out: the page; None is paper.html in the results.

    Raises:
        BadInput: a preset without an aggregate, or a missing package.
    """
    results = Path(results)
    found = results_table.aggregates(results)
    if presets != ["all"]:
        for name in presets:
            if name not in found:
                raise BadInput(f"no aggregate of {name} in {results / 'aggregate'}; run "
                               f"python -m pipelines.aggregate --preset {shlex.quote(name)}")
        found = {name: found[name] for name in presets}
    page = report.render("paper.html", {
        "title": "Stacked Capsule Autoencoders: results over seeds",
        "table": summary(results, found), "sources": sources(),
        "presets": [section(name, measured, results) for name, measured in found.items()],
        "ablation": report.read(results / "ablation_table" / "metrics.json"),
        "min_seeds": paper.MIN_SEEDS})
    return report.write(Path(out or results / "paper.html"), page)


def summary(results: Path, shown: dict) -> list[dict]:
    """The first table by preset: what was measured, and what is not yet run."""
    presets: dict[str, dict] = {}
    for row in results_table.rows(results):
        measured = row["aggregate"]
        preset = presets.setdefault(row["name"], {
            "name": row["name"], "data": paper.name_of(row["data"]), "linked": row["name"] in shown,
            "runs": results_table.runs(measured) if measured else None, "rows": []})
        preset["rows"].append({"measure": row["measure"], "ours": row["ours"],
                               "paper": row["figure"] and row["figure"].value})
    return list(presets.values())


def sources() -> list[dict]:
    """The figures of the paper and where they come from."""
    return [{"data": paper.name_of(data), "measure": measure, "value": figure.value,
             "margin": figure.margin, "source": figure.source}
            for data, figures in paper.FIGURES.items() for measure, figure in figures.items()] + [
            {"data": paper.name_of(data), "measure": f"test accuracy, {preset}", "value": figure.value,
             "margin": figure.margin, "source": figure.source} for (preset, data), figure in paper.ANCESTORS.items()]


def section(name: str, measured: dict, results: Path) -> dict:
    """Everything shown of one preset."""
    folder = settings.folder_of("aggregate", name, results=results)
    return {"name": name, "measured": measured, "data": paper.name_of(measured["data"]),
            "rows": rows(measured), "accuracy": plots.seeds_chart(measured),
            "curves": curves(folder / "curves.csv"), "runs": results_table.runs(measured),
            "seeds": per_seed(measured), **looks(name, measured, results)}


def rows(measured: dict) -> list[dict]:
    """Each measure with its cell under each protocol."""
    protocols = measured["protocols"]
    return [{"name": words, "cells": [table.get(measure) for table in protocols.values()]}
            for measure, words in WORDS.items()
            if any(measure in table for table in protocols.values())]


def per_seed(measured: dict) -> list[dict]:
    """One row a seed: its accuracies and where it was trained."""
    return [environment | {"cells": [[cell and cell["values"][i] for cell in row["cells"]]
                                     for row in rows(measured)]}
            for i, environment in enumerate(measured["environments"])]


def curves(path: Path) -> list[tuple[str, str]]:
    """Learning curves over the seeds."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return plots.curves_over_seeds(list(csv.DictReader(file)))


def looks(name: str, measured: dict, results: Path) -> dict:
    """Confusion, t-SNE and pictures of the first seed that has any."""
    for seed in measured["seeds"]:
        folder = settings.folder_of("evaluate", name, seed, results)
        found = {"confusions": report.confusions(folder / "confusion.csv"),
                 "pictures": report.pictures(folder / "pictures"),
                 "tsne": report.tsne(folder / "pictures" / "tsne.csv")}
        if any(found.values()):
            return found | {"looked_at": seed}
    return {"confusions": [], "pictures": [], "tsne": [], "looked_at": None}
