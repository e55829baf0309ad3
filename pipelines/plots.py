"""Charts of the report as SVG: learning curves and confusion after matching.

Colours are set through CSS variables of the page, so that a chart follows its light or dark scheme.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np

# Stand-ins that matplotlib writes into the SVG, and the CSS variable each becomes.
INK, FAINT, FIRST, SECOND, THIRD, CELL = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
VARIABLES = {INK: "--ink-2", FAINT: "--line", FIRST: "--series-1", SECOND: "--series-2",
             THIRD: "--series-3", CELL: "--cell"}
CURVES = (
    ("Reconstruction log-likelihood", "nats per image", ("rec_ll", "held_out_rec_ll")),
    ("Object likelihood", "nats per image", ("log_prob", "held_out_log_prob")),
    ("Probes trained along", "share of held-out digits right",
     ("held_out_posterior_probe", "held_out_prior_probe")),
)
NAMES = {"rec_ll": "training", "held_out_rec_ll": "held out", "log_prob": "training",
         "held_out_log_prob": "held out", "held_out_posterior_probe": "posterior",
         "held_out_prior_probe": "prior"}


def read_history(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each column of a history.csv as (steps, values), rows without a value left out."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {}
    for name in rows[0] if rows else ():
        pairs = [(int(row["step"]), float(row[name])) for row in rows if row[name] != ""]
        columns[name] = tuple(np.array(values) for values in zip(*pairs))
    return columns


def learning_curves(history: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[tuple[str, str]]:
    """(title, SVG) of each chart that the history has columns for."""
    charts = []
    for title, unit, columns in CURVES:
        shown = [name for name in columns if name in history]
        if shown:
            charts.append((title, _chart(unit, {NAMES[name]: history[name] for name in shown})))
    return charts


def _chart(unit: str, series: dict[str, tuple[np.ndarray, np.ndarray]]) -> str:
    figure, axes = _figure(4.4, 2.9)
    for colour, (name, (steps, values)) in zip((FIRST, SECOND), series.items()):
        axes.plot(steps, values, color=colour, linewidth=1.8, label=name,
                  marker="o" if len(steps) <= 12 else None, markersize=3.5)
    axes.set_xlabel("step", color=INK, fontsize=9)
    axes.set_ylabel(unit, color=INK, fontsize=9)
    values = np.concatenate([pair[1] for pair in series.values()])
    # The first logged steps can be far off; the axis shows where the run spends its time.
    low, high = np.quantile(values, [0.03, 1.0])
    margin = 0.06 * max(high - low, 1e-9)
    axes.set_ylim(low - margin, high + margin)
    axes.legend(frameon=False, labelcolor=INK, loc="best", fontsize=9)
    return _svg(figure)


def read_confusions(path: Path) -> dict[str, np.ndarray]:
    """Tables `[true, predicted]` by clustering; examples of unmatched clusters are left out."""
    tables: dict[str, dict[tuple[int, int], int]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
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
    axes.set_ylabel("digit", color=INK, fontsize=9)
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
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--font)", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)
