"""Margins (error ÷ bound) as bars on a logarithmic axis, and the files behind an op, for the report.

    length(m) = 100 · log10(m / 1e-6) / log10(10 / 1e-6)     share of the bar's width, m cut to [1e-6, 10]

The bound itself, m = 1, lies at 85.7: what reaches beyond it failed.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

LOWEST, HIGHEST = 1e-6, 10.0
ROOT = Path(__file__).resolve().parents[2]
# What an op has under one path, and where.
PLACES = (("port", "port"), ("reference", "reference"), ("inputs", "parity_tests/registry"),
          ("oracle", "parity_tests/oracles"), ("planted bugs", "parity_tests/mutants"))


class Worst(NamedTuple):
    """The largest margin of a row, and what it is of."""

    margin: float
    what: str


def length(margin: float) -> float:
    """Share of the bar's width in percent; what is not finite fills it."""
    if not math.isfinite(margin):
        return 100.0
    cut = min(max(margin, LOWEST), HIGHEST)
    return round(100 * math.log10(cut / LOWEST) / math.log10(HIGHEST / LOWEST), 1)


def worst(row: dict) -> Worst | None:
    """Over forward and gradient and both types of an op's or a folder's row; None where nothing was measured."""
    found = [Worst(value, f"{side} {dtype}") for side in ("forward", "gradient")
             for dtype, value in row[side].items() if isinstance(value, int | float)]
    return max(found, key=lambda one: math.inf if math.isnan(one.margin) else one.margin, default=None)


def failed_first(rows: list[dict]) -> list[dict]:
    """The rows that failed, then the others, each in their order."""
    return sorted(rows, key=lambda row: row["verdict"] != "fail")


def files_of(room: str, results: str | os.PathLike) -> list[tuple[str, str]]:
    """(what, path relative to the page) of the files that are there; none where only the package is installed."""
    inside = f"{room.replace('.', '/')}.py"
    return [(words, Path(os.path.relpath(ROOT / place / inside, results)).as_posix())
            for words, place in PLACES if (ROOT / place / inside).is_file()]
