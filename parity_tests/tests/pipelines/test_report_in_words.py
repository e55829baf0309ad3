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


def test_the_table_of_accuracies() -> None:
    """At step 0, at the end, and on pixels that are clustered as the protocol clusters presences."""
    def moments(first: float, last: float) -> dict:
        return {moment: {"rec_ll": -value, "test_images": 9, "posterior_kmeans": {"value": value},
                         "prior_logistic": {"value": value / 2}} for moment, value in (
                             ("initial", first), ("final", last))}
    baseline = {"shifted": {"kmeans_clean": {"value": 0.3}, "kmeans_refitted": {"value": 0.4},
                            "logistic": {"value": 0.5}}, "centred": {}}
    found = report.accuracies({"protocols": {"clean": moments(0.1, 0.8), "faithful": moments(0.2, 0.6)},
                               "baseline": baseline})
    assert [one["words"] for one in found["protocols"]] == ["clean protocol", "faithful protocol"]
    assert [one["rec_ll"] for one in found["protocols"]] == [(-0.1, -0.8), (-0.2, -0.6)]
    rows = {row["name"]: [tuple(cell[key]["value"] for key in ("initial", "final", "baseline"))
                          for cell in row["protocols"]] for row in found["rows"]}
    assert rows == {"k-means, posterior presences": [(0.1, 0.8, 0.3), (0.2, 0.6, 0.4)],
                    "logistic probe, prior presences": [(0.05, 0.4, 0.5), (0.1, 0.3, 0.5)]}


def test_folders_and_recordings_have_the_largest_margins_of_their_rows() -> None:
    """Only what was compared counts."""
    ops = [{"room": room, "verdict": verdict, "examples": 6, "forward": {"float64": forward}, "gradient": {}}
           for room, verdict, forward in (("a", "pass", 0.1), ("a", "fail", 2.0), ("a", "pass", None),
                                          ("b", "pass", 0.3))]
    first, second = report.rooms(ops)
    assert (first["ops"], first["passed"], first["examples"], first["forward"]) == (3, 2, 18, {"float64": 2.0})
    assert (second["room"], second["forward"]) == ("b", {"float64": 0.3})
    (kind,) = report.kinds([{"golden": name, "kind": "model", "margin": margin, "verdict": verdict}
                            for name, margin, verdict in (("x", 0.2, "pass"), ("y", 0.9, "pass"), ("z", 0.5, "pass"),
                                                          ("gone", 7.0, "skipped"))])
    assert (kind["margin"], kind["worst"], kind["verdicts"]) == (0.9, "y", {"pass": 3, "skipped": 1})


def test_planted_bugs_are_counted_by_who_caught_them() -> None:
    rows = [{"caught_by": "a test", "kind": "op"}, {"caught_by": "b", "kind": "op"}, {"caught_by": None, "kind": "op"},
            {"caught_by": "c"}]
    found = report.mutants({"mutants": rows, "revision": "abc"})
    assert (found["caught"], found["total"], found["by_kind"]) == (3, 4, {"op": 2, "caught": 1})


@pytest.mark.parametrize(("value", "words"), [
    (None, "–"), (0.123, "12.3\N{NO-BREAK SPACE}%"), (0.98765, "98.8\N{NO-BREAK SPACE}%"),
    (0.99123, "99.12\N{NO-BREAK SPACE}%"), (1.0, "100.00\N{NO-BREAK SPACE}%")])
def test_shares(value: float | None, words: str) -> None:
    assert report.share(value) == words


@pytest.mark.parametrize(("value", "words"), [(None, "–"), (0, "0.00"), (0.01, "0.01"), (-3.456, "-3.46"),
                                              (0.004, "4e-03"), ("inf", "inf")])
def test_numbers(value: object, words: str) -> None:
    assert report.number(value) == words


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
