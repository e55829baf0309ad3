"""The report's first section in words, and its bars of margins, on made-up tables of parity."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY
from pipelines import report
from pipelines.results import margin_bars
from pipelines.support import sections


def parity_of(*verdicts: str) -> dict:
    """A table with an op for each verdict, whose largest margin is 2 where it failed and 0.5 elsewhere."""
    return {"ops": [{"op": f"core.warp.op_{i}", "room": "core.warp", "examples": 6, "verdict": verdict,
                     "worst_forward_margin": {"float32": 2.0 if verdict == "fail" else 0.5, "float64": 1e-3},
                     "worst_gradient_margin": {"float32": 0.1, "float64": 0.0}}
                    for i, verdict in enumerate(verdicts)],
            "goldens": [{"golden": "options/made_up", "kind": "taps", "worst_margin": 0.2, "verdict": "pass"}]}


def page(folder: Path, parity: dict) -> str:
    """The report over these results alone."""
    (folder / "parity").mkdir()
    (folder / "parity" / "parity.json").write_text(json.dumps(parity))
    return report.run(sections.Report(), folder).read_text()


@pytest.mark.parametrize(("margin", "percent"), [
    (0.0, 0.0), (1e-9, 0.0), (1e-6, 0.0), (1e-3, 42.9), (1.0, 85.7), (10.0, 100.0), (1e9, 100.0), (math.inf, 100.0),
    (math.nan, 100.0)])
def test_bars_are_logarithmic(margin: float, percent: float) -> None:
    assert margin_bars.length(margin) == percent


def test_the_largest_margin_is_named() -> None:
    row = {"forward": {"float32": 0.2, "float64": None}, "gradient": {"float32": 0.1, "float64": 0.7}}
    assert margin_bars.worst(row) == (0.7, "gradient float64")
    assert margin_bars.worst({"forward": {}, "gradient": {}}) is None
    row["forward"]["float64"] = math.nan
    assert margin_bars.worst(row).what == "forward float64"


def test_agreement_is_said_in_words(tmp_path: Path) -> None:
    text = " ".join(page(tmp_path, parity_of("pass", "pass")).split())
    assert "Yes, as far as was compared here." in text and "2 of 2 functions and modules agree" in text
    assert "No, not everywhere" not in text and 'class="bad"' not in text
    assert text.count("Not asked yet") == 3  # planted bugs, training, conversion
    assert "<th>" not in text and "<th " in text  # every header of a table says what it heads


def test_what_failed_comes_first(tmp_path: Path) -> None:
    text = " ".join(page(tmp_path, parity_of("pass", "fail", "pass")).split())
    assert "No, not everywhere.</b> The first difference is in <code>core.warp.op_1</code>; 1 comparison failed" in text
    assert "Yes, as far as was compared" not in text and 'class="bad" style="width:90.0%"' in text
    assert text.index("<code>core.warp.op_1</code><br>") < text.index("<code>core.warp.op_0</code><br>")


def test_the_files_of_an_op_are_linked_where_they_are(tmp_path: Path) -> None:
    found = dict(margin_bars.files_of("core.warp", REPOSITORY / "results"))
    assert found["port"] == "../port/core/warp.py" and set(found) >= {"reference", "inputs", "oracle", "planted bugs"}
    assert all((REPOSITORY / "results" / path).resolve().is_file() for path in found.values())
    assert margin_bars.files_of("no.such", tmp_path) == []
