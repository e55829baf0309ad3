"""Charts as SVG: learning curves, confusion after matching, t-SNE, seeds beside the paper.

Colours are CSS variables with a fallback, so that a chart follows the light or dark scheme of the
page it stands in and can be looked at by itself.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from port.core import files
from port.data.dataset import DataError

# Stand-ins that matplotlib writes into the SVG, and the CSS variable each becomes.
INK, FAINT, FIRST, SECOND, THIRD, CELL = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
VARIABLES = {INK: "--ink-2, #5b5e63", FAINT: "--line, #e3e3de", FIRST: "--series-1, #2a6fbb",
             SECOND: "--series-2, #d9652b", THIRD: "--series-3, #178f6c", CELL: "--cell, #2a6fbb"}
# Ten classes told apart by hue and lightness, readable on white and on dark.
CLASSES = ("#2a78c4", "#e08a1e", "#3a9e4b", "#d0403c", "#8a63c9", "#9a6a52", "#d873b4", "#808080",
           "#a9ad2a", "#25b3c2")
# Measures beside the paper: name in the metrics, words.
SEEDS = (("posterior_kmeans", "clustering, posterior"), ("prior_kmeans", "clustering, prior"),
         ("posterior_probe", "probe, posterior"), ("prior_probe", "probe, prior"),
         ("accuracy", "test accuracy"))
CURVES = (
    ("Reconstruction log-likelihood", "nats per image", ("rec_ll", "held_out_rec_ll")),
    ("Object likelihood", "nats per image", ("log_prob", "held_out_log_prob")),
    ("Probes trained along", "share of held-out images right",
     ("held_out_posterior_probe", "held_out_prior_probe")),
    ("Loss", "as it is optimised", ("loss", "held_out_loss")),
    ("Accuracy", "share of images right", ("accuracy", "held_out_accuracy")),
    ("Dead hidden units", "share of a layer's units", tuple(f"dead_{name}" for name in (
        "conv0", "conv1", "conv2", "conv3", "capsules0", "capsules1", "capsules2", "capsules3"))),
    ("Effective number of objects", "exp of the entropy of mean presences",
     ("effective_objects_posterior", "effective_objects_prior")),
    ("Spread of votes over images", "standard deviation", ("vote_spread",)),
)
POINT_CURVES = (
    ("Segmentation", "share of points right", ("held_out_segmentation",)),
)
SEED_CURVES = (
    ("reconstruction", "nats per image", ("rec_ll", "held_out_rec_ll")),
    ("probes", "share of held-out images right",
     ("held_out_posterior_probe", "held_out_prior_probe")),
    ("loss", "as it is optimised", ("loss", "held_out_loss")),
    ("accuracy", "share of images right", ("accuracy", "held_out_accuracy")),
)
NAMES = {"rec_ll": "training", "held_out_rec_ll": "held out", "log_prob": "training",
         "held_out_log_prob": "held out", "held_out_posterior_probe": "posterior",
         "held_out_prior_probe": "prior", "held_out_segmentation": "held out", "loss": "training",
         "held_out_loss": "held out",
         "accuracy": "training", "held_out_accuracy": "held out", "vote_spread": "held out",
         "effective_objects_posterior": "posterior", "effective_objects_prior": "prior",
         **{f"dead_conv{i}": f"convolution {i + 1}" for i in range(4)},
         **{f"dead_capsules{i}": f"capsule MLP {i + 1}" for i in range(4)}}


def read_history(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each column of a history.csv as (steps, values), rows without a value left out."""
    columns = {}
    with _table(path) as rows:
        for name in rows[0] if rows else ():
            pairs = [(int(row["step"]), float(row[name])) for row in rows if row[name] != ""]
            columns[name] = tuple(np.array(values) for values in zip(*pairs))
    return columns


@contextlib.contextmanager
def _table(path: Path) -> Iterator[list[dict[str, str]]]:
    """The rows of a CSV file, to be read within the block.

    Raises:
        DataError: a column is missing, or a cell is no number.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            yield list(csv.DictReader(file))
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is no table that its stage leaves ({error}); run that stage again") from None


def learning_curves(history: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, str]]:
    """(title, SVG) of each chart that the history has columns for."""
    charts = []
    for title, unit, columns in CURVES:
        shown = [name for name in columns if name in history]
        if shown and (shown != ["loss"] or "accuracy" in history):  # an autoencoder's has charts of its own
            charts.append((title, _chart(unit, {NAMES[name]: history[name] for name in shown})))
    return charts


def _chart(unit: str, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    figure, axes = _figure(4.4, 2.9)
    colours = (FIRST, SECOND) if len(series) <= 2 else CLASSES
    for colour, (name, (steps, values)) in zip(colours, series.items()):
        axes.plot(steps, values, color=colour, linewidth=1.8, label=name,
                  marker="o" if len(steps) <= 12 else None, markersize=3.5)
    axes.set_xlabel("step", color=INK, fontsize=9)
    axes.set_ylabel(unit, color=INK, fontsize=9)
    _show_most(axes, np.concatenate([pair[1] for pair in series.values()]))
    axes.legend(frameon=False, labelcolor=INK, loc="best", fontsize=9)
    return _svg(figure)


def _show_most(axes, values) -> None:
    """The first logged steps can be far off; the axis shows where the run spends its time."""
    low, high = np.quantile(values, [0.03, 1.0])
    margin = 0.06 * max(high - low, 1e-9)
    axes.set_ylim(low - margin, high + margin)


def seeds_chart(measured: dict) -> str:
    """Accuracy of each seed, mean and interval, beside the paper's figure, both protocols."""
    rows = [(measure, words, protocol) for measure, words in SEEDS
            for protocol in ("clean", "faithful")
            if measure in measured["protocols"].get(protocol, {})]
    figure, axes = _figure(6.4, 0.75 + 0.34 * len(rows))
    for place, (measure, _, protocol) in enumerate(rows):
        row = measured["protocols"][protocol][measure]
        colour = FIRST if protocol == "clean" else SECOND
        axes.plot([100 * row["low"], 100 * row["high"]], [place, place], color=colour, linewidth=2)
        axes.plot([100 * v for v in row["values"]], [place - 0.24] * len(row["values"]), "o",
                  color=colour, markersize=4, alpha=0.75, markeredgewidth=0)
        axes.plot([100 * row["mean"]], [place], "|", color=INK, markersize=13, markeredgewidth=1.8)
        if row["paper"] is not None:
            axes.plot([100 * row["paper"]] * 2, [place - 0.45, place + 0.45], color=THIRD,
                      linewidth=2, linestyle=(0, (2, 1.2)))
    axes.set_yticks(range(len(rows)), [f"{words}, {protocol}" for _, words, protocol in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of test images right", color=INK, fontsize=9)
    return _svg(figure)


def curves_over_seeds(rows: list[dict]) -> list[tuple[str, str]]:
    """(name, SVG) of each learning curve, one thin line a seed and their mean where all have it."""
    charts = []
    for name, unit, columns in SEED_CURVES:
        shown = [column for column in columns if any(row.get(column) for row in rows)]
        if not shown:
            continue
        figure, axes = _figure(4.4, 2.9)
        for colour, column in zip((FIRST, SECOND), shown):
            by_step: dict[int, list[float]] = {}
            seeds = sorted({int(row["seed"]) for row in rows if row.get(column)})
            for seed in seeds:
                points = [(int(row["step"]), float(row[column])) for row in rows
                          if int(row["seed"]) == seed and row.get(column)]
                axes.plot(*zip(*points), color=colour, linewidth=0.8, alpha=0.45)
                for step, value in points:
                    by_step.setdefault(step, []).append(value)
            mean = [(step, np.mean(values)) for step, values in sorted(by_step.items())
                    if len(values) == len(seeds)]
            axes.plot(*zip(*mean), color=colour, linewidth=2, label=NAMES[column])
        _show_most(axes, [float(row[column]) for row in rows for column in shown if row.get(column)])
        axes.set_xlabel("step", color=INK, fontsize=9)
        axes.set_ylabel(unit, color=INK, fontsize=9)
        axes.legend(frameon=False, labelcolor=INK, loc="best", fontsize=9)
        charts.append((name, _svg(figure)))
    return charts


def followed(motions: list[dict]) -> str:
    """Error of part poses for each motion: half of the parts on the line, its median, before and after."""
    figure, axes = _figure(6.4, 0.9 + 0.55 * len(motions))
    for place, row in enumerate(motions):
        for moment, colour, offset in (("initial", SECOND, 0.16), ("final", FIRST, -0.16)):
            error = row[moment]["error"]
            axes.plot([error["25"], error["75"]], [place + offset] * 2, color=colour, linewidth=3)
            axes.plot(error["50"], place + offset, "o", color=colour, markersize=6, markeredgewidth=0,
                      label={"initial": "untrained", "final": "trained"}[moment] if not place else None)
        axes.plot([row["final"]["required"]["50"]] * 2, [place - 0.4, place + 0.4], color=THIRD,
                  linewidth=2, linestyle=(0, (2, 1.2)), label=None if place else "a part that stays")
    axes.set_yticks(range(len(motions)), [row["motion"] for row in motions])
    axes.set_ylim(len(motions) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("distance of a part's corners from where the motion puts them, pixels", color=INK,
                    fontsize=9)
    axes.legend(frameon=False, labelcolor=INK, loc="best", fontsize=9)
    return _svg(figure)


def curves_of_runs(histories: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
                   ) -> list[tuple[str, str]]:
    """(title, SVG) of each column that a run's history has, one line a run."""
    charts = []
    for title, unit, columns in (*CURVES, *POINT_CURVES):
        for column in columns:
            shown = {name: history[column] for name, history in histories.items() if column in history}
            if not shown:
                continue
            figure, axes = _figure(4.4, 2.9)
            for i, (name, (steps, values)) in enumerate(shown.items()):
                axes.plot(steps, values, color=CLASSES[i % len(CLASSES)], linewidth=1.6, label=name,
                          marker="o" if len(steps) <= 12 else None, markersize=3.5)
            axes.set_xlabel("step", color=INK, fontsize=9)
            axes.set_ylabel(unit, color=INK, fontsize=9)
            _show_most(axes, np.concatenate([values for _, values in shown.values()]))
            axes.legend(frameon=False, labelcolor=INK, loc="best", fontsize=8)
            charts.append((f"{title}, {NAMES.get(column, column)}", _svg(figure)))
    return charts


def tsne(path: Path) -> list[tuple[str, str]]:
    """(kind of presence, SVG) of each map in a tsne.csv."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    charts = []
    for kind in dict.fromkeys(row["presence"] for row in rows):
        figure, axes = _figure(5.0, 4.6)
        chosen = [row for row in rows if row["presence"] == kind]
        for label in sorted({int(row["label"]) for row in chosen}):
            points = [(float(row["x"]), float(row["y"])) for row in chosen
                      if int(row["label"]) == label]
            axes.plot(*zip(*points), "o", color=CLASSES[label % len(CLASSES)], markersize=3.2,
                      markeredgewidth=0, alpha=0.85, label=str(label) if label >= 0 else "no label")
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.legend(frameon=False, labelcolor=INK, fontsize=8, ncol=10, loc="upper center",
                    bbox_to_anchor=(0.5, 0.0), handletextpad=0.0, columnspacing=0.8, markerscale=1.6)
        charts.append((kind, _svg(figure)))
    return charts


def save(folder: Path, charts: dict[str, str]) -> None:
    """Write charts as SVG files."""
    for name, chart in charts.items():
        files.write_text(folder / f"{name}.svg", chart)


def read_confusions(path: Path) -> dict[str, np.ndarray]:
    """Tables `[true, predicted]` by clustering; examples of unmatched clusters are left out."""
    tables: dict[str, dict[tuple[int, int], int]] = {}
    with _table(path) as rows:
        for row in rows:
            cell = int(row["actual"]), int(row["predicted"])
            tables.setdefault(row["clustering"], {})[cell] = int(row["count"])
    found = {}
    for name, cells in tables.items():
        n = max(true for true, _ in cells) + 1
        table = np.zeros((n, n), np.int64)
        for (true, predicted), count in cells.items():
            if predicted >= 0:
                table[true, predicted] = count
        found[name] = table
    return found


def confusion(table: np.ndarray) -> str:
    """A confusion matrix; the shade is the share of its row."""
    n = len(table)
    figure, axes = _figure(5.0, 5.0)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    for true in range(n):
        for predicted in range(n):
            axes.add_patch(_rectangle(predicted - 0.48, true - 0.48, 0.96, 0.96,
                                      share[true, predicted]))
            if table[true, predicted]:
                axes.text(predicted, true, str(table[true, predicted]), ha="center", va="center",
                          fontsize=8, color="#ffffff" if share[true, predicted] > 0.55 else INK)
    axes.set_xlim(-0.5, n - 0.5)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_xticks(range(n))
    axes.set_yticks(range(n))
    axes.set_aspect("equal")
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("class of the cluster", color=INK, fontsize=9)
    axes.set_ylabel("true class", color=INK, fontsize=9)
    return _svg(figure)


def _rectangle(x: float, y: float, width: float, height: float, shade: float):
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=CELL, alpha=0.05 + 0.95 * float(shade),
                     linewidth=0)


def _figure(width: float, height: float):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scae"  # the same chart gives the same bytes
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["font.family"] = "sans-serif"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(width, height))
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.grid(True, color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.locator_params(axis="x", nbins=6)
    return figure, axes


def _svg(figure) -> str:
    """The figure as inline SVG with CSS variables for colours and the page's font."""
    from matplotlib import pyplot

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True,
                   metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg"):]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font, sans-serif)", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
