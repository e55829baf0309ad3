"""Runs side by side, and what differs between two runs or two parity reports; on made-up results."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY
from parity_tests.tests.evaluation.seeds_left import write_seed
from pipelines import cli
from pipelines.results import differences, run_report
from pipelines.support import settings

PARITY = {"ops": [{"op": "core.warp.resampler", "verdict": "pass",
                   "worst_forward_margin": {"float64": 0.02, "float32": 0.4},
                   "worst_gradient_margin": {"float64": 0.3, "float32": 0.2}},
                  {"op": "core.ops.relu1", "verdict": "pass", "worst_forward_margin": {"float64": 0.0},
                   "worst_gradient_margin": {}}],
          "goldens": [{"golden": "rgb_tiny", "kind": "model noise float64 port", "worst_margin": 0.2,
                       "verdict": "pass"},
                      {"golden": "mnist_coupled", "kind": "model", "worst_margin": None,
                       "verdict": "skipped"}]}


@pytest.fixture
def runs(tmp_path, monkeypatch) -> list[Path]:
    """Seeds 0 and 1 of mnist; the second with another rate and better."""
    monkeypatch.chdir(REPOSITORY)
    preset = settings.load_preset("mnist")
    write_seed(tmp_path, preset, 0, 0.8)
    write_seed(tmp_path, preset, 1, 0.9, train={"lr": 1e-3})
    return [tmp_path / "train" / "mnist" / str(seed) for seed in (0, 1)]


def scae(*words: object) -> int:
    return cli.main([str(word) for word in words])


def changed(tmp_path: Path, name: str, change) -> Path:
    """A parity JSON with one thing changed."""
    content = copy.deepcopy(PARITY)
    change(content)
    (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / f"{name}.json"


def test_the_page_of_some_runs(runs, tmp_path) -> None:
    """What differs is shown, what is the same is not; numbers and curves of every run."""
    assert scae("report", *runs, "--out", tmp_path / "page.html") == 0
    page = (tmp_path / "page.html").read_text()
    assert "train.lr" in page and "0.001" in page and "train.batch_size" not in page
    assert page.count("mnist, seed 1") > 4 and "<b>90.0" in page and "80.0" in page
    assert page.count("<svg") == 2 and "src=\"http" not in page
    found = run_report.gather([differences.load(folder)[1] for folder in runs])
    assert list(found["settings"]) == ["train.lr", "train.seed"]
    for row in found["measures"]:
        if row["group"] == "clean" and row["share"]:
            assert row["values"] == [0.8, 0.9] and row["best"] == 0.9
    with open(runs[0] / "history.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) > 1
    (runs[0] / "history.csv").unlink()
    assert scae("report", *runs, "--out", tmp_path / "page.html") == 0
    assert "No history.csv in mnist, seed 0" in (tmp_path / "page.html").read_text()


def test_only_shares_are_shown_as_shares() -> None:
    """A squared error or a number of parts is no percentage, and no larger one is bold; counts are out."""
    measured = {"mse": 0.06, "present_parts": 7.4, "logistic": 0.8, "rec_ll": -380.0, "segmentation": 0.65,
                "test_examples": 10_000, "test_images": 450}
    one = {"metrics": {"loss": 1.0}, "evaluated": {"protocols": {"clean": {"final": {
        name: {"value": value} for name, value in measured.items()}}}}}
    found = {row["name"]: row for row in run_report.rows([one, one])}
    shares = [row["values"][0] for row in found.values() if row["share"]]
    assert sorted(shares) == [0.65, 0.8]
    assert all((row["best"] is None) != row["share"] for row in found.values())
    assert found["present parts"]["values"] == [7.4, 7.4] and len(found) == 6
    assert not {10_000, 450} & {value for row in found.values() for value in row["values"]}


def test_two_runs(runs, capsys) -> None:
    assert scae("report", "--diff", *runs) == 0
    printed = capsys.readouterr().out
    assert "  train.lr: 3e-05 -> 0.001\n" in printed and "  train.seed: 0 -> 1\n" in printed
    assert "clean.posterior_kmeans: 0.8 -> 0.9 (+0.1)" in printed and "batch_size" not in printed
    assert scae("report", "--diff", runs[0], runs[0]) == 0
    printed = capsys.readouterr().out
    assert "settings: the same" in printed and "->" not in printed


def margin(content: dict, value: float | None, verdict: str = "pass") -> None:
    content["goldens"][0] |= {"worst_margin": value, "verdict": verdict}


@pytest.mark.parametrize(("before", "after", "code", "says"), [
    (lambda c: None, lambda c: None, 0, "no check is different"),
    (lambda c: None, lambda c: margin(c, 0.9), 0, "margin 0.2 -> 0.9"),
    (lambda c: None, lambda c: margin(c, 0.3), 0, "no check is different"),
    (lambda c: None, lambda c: margin(c, 1.01), 1, "WORSE, past its bound: rgb_tiny"),
    (lambda c: None, lambda c: margin(c, float("nan")), 1, "margin 0.2 -> nan"),
    (lambda c: None, lambda c: margin(c, None, "fail"), 1, "pass -> fail"),
    (lambda c: None, lambda c: c["ops"][0]["worst_gradient_margin"].update(float64=3.0), 1,
     "core.warp.resampler: gradient float64 0.3 -> 3"),
    (lambda c: margin(c, 2.0, "fail"), lambda c: margin(c, 2.0, "fail"), 0, "no check is different"),
    (lambda c: margin(c, 2.0, "fail"), lambda c: margin(c, 2.5, "fail"), 1, "margin 2 -> 2.5"),
    (lambda c: margin(c, 2.0, "fail"), lambda c: None, 0, "fail -> pass"),
    (lambda c: None, lambda c: c["ops"].pop(), 0, "only in A: core.ops.relu1 (pass)"),
    (lambda c: c["goldens"].pop(0), lambda c: margin(c, 1.5), 1, "not there -> 1.5")])
def test_two_parity_reports(tmp_path, capsys, before, after, code, says) -> None:
    """1 exactly where a check is past its bound and was not, or is further past it."""
    paths = changed(tmp_path, "before", before), changed(tmp_path, "after", after)
    assert scae("report", "--diff", *paths) == code
    found = capsys.readouterr()
    assert says in found.out and bool(found.err) == bool(code)


def test_bad_input_is_one_line(runs, tmp_path, capsys) -> None:
    parity = changed(tmp_path, "parity", lambda c: None)
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "numbers.json").write_text('{"ops": 3, "goldens": [1]}')
    for words, message in ((("--diff", runs[0], parity), "give two of a kind"),
                           (("--diff", parity, tmp_path / "other.json"), "neither a parity JSON"),
                           (("--diff", parity, tmp_path / "numbers.json"), "neither a parity JSON"),
                           (("--diff", parity, tmp_path / "broken.json"), "is no JSON file"),
                           (("--diff", parity, "nowhere"), "nowhere: neither"),
                           ((tmp_path / "train" / "mnist",), "neither a parity JSON"),
                           ((parity,), "is a parity report"),
                           ((runs[0], "--presets", "all"), "give one of")):
        assert scae("report", *words) == 2, words
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
