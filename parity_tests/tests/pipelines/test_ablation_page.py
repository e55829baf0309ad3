"""The ablation of `mnist_small` in words: rows, intervals, sentences, the paper's direction, what is missing."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict
from pathlib import Path

import pytest
from scipy import stats

import port
from parity_tests.goldens import REPOSITORY
from pipelines import ablation
from pipelines.results import ablation_page as page
from pipelines.results import table
from pipelines.support.output import write_json
from pipelines.training import row_runs
from pipelines.training import rows as sections

PARAMS = REPOSITORY / "params.yaml"
WANTED = sections.section(PARAMS, name="ablation_small")
REPAIRABLE = {quirk.id for quirk in port.quirks.QUIRKS.values() if quirk.where not in (None, "always")}


def test_the_rows() -> None:
    """Every row of Table 2, and every repair that changes what is trained; at least three seeds."""
    assert set(page.PAPER) <= set(WANTED.rows) and WANTED.rows[0] == "complete" and len(WANTED.seeds) >= 3
    quirks = {WANTED.row(name).quirk for name in WANTED.rows} - {None}
    # Q25: pictures; Q28: the preset shuffles; from Q29 on: constellations.
    unseen = {"Q04", "Q06", "Q08", "Q25", "Q26", "Q27", "Q28", *(id for id in REPAIRABLE if id >= "Q29")}
    assert quirks == REPAIRABLE - unseen


@pytest.mark.parametrize("name", WANTED.rows)
def test_a_row_changes_what_is_trained(name: str) -> None:
    row, whole = (sections.preset_of(WANTED, WANTED.row(one), PARAMS) for one in (name, "complete"))
    same = row.config() == whole.config() and row.train(0)[0] == whole.train(0)[0]
    assert same == (name == "complete") and sections.beside(WANTED, name) == "complete"
    assert row.train(0)[0].steps == WANTED.steps


def test_all_repairs_are_those_of_the_rows() -> None:
    """And Q04, which costs nothing beside them."""
    together = sections.preset_of(WANTED, WANTED.row("all_repairs"), PARAMS)
    assert set(together.config().repairs) == {"Q01", "Q02", "Q03", "Q04"}
    for name in ("q07_rate_decays", "q09_constant"):
        alone = sections.preset_of(WANTED, WANTED.row(name), PARAMS)
        for change in WANTED.row(name).set:
            section, _, key = change.partition("=")[0].partition(".")
            held = [one.model if section == "model" else one.sections[section] for one in (alone, together)]
            assert held[0][key] == held[1][key]


NAMES = {"cpu": "a processor", "cuda": "a card"}


def left(results: Path, name: str, seed: int, value: float, device: str = "cpu", **changed) -> None:
    """What a finished row leaves, with one made-up accuracy."""
    preset = sections.preset_of(WANTED, WANTED.row(name), PARAMS)
    folder = results / WANTED.folder / name / str(seed)
    shares = {measure: value for measure, _ in page.MEASURES}
    write_json(folder / "metrics.json", {"seed": seed, "steps": WANTED.steps, "protocol": None, "seconds": 600.0,
                                         "parameters": 9,
                                         "protocols": {"clean": shares, "faithful": shares}} | changed)
    write_json(folder / "config.json", preset.resolved() | {"train": asdict(preset.train(seed)[0])})
    write_json(folder / "environment.json", {"device": device, "device_name": NAMES[device]})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, (whole, sparse, mlp) in enumerate([(0.80, 0.62, 0.81), (0.78, 0.60, 0.77), (0.82, 0.61, 0.80)]):
        left(tmp_path, "complete", seed, whole)
        left(tmp_path, "no_prior_sparsity", seed, sparse)
        left(tmp_path, "mlp_object_encoder", seed, mlp)
    left(tmp_path, "q01_log_presence", 0, 0.9)
    left(tmp_path, "q02_transposed_pooling", 0, 0.9, steps=50)
    return tmp_path


def test_rows_in_numbers_and_words(results: Path) -> None:
    found = page.gather(WANTED, results, PARAMS)
    rows = {row["row"]: row for row in found["rows"]}
    assert list(rows) == ["complete", "no_prior_sparsity", "mlp_object_encoder", "q01_log_presence"]
    worse = rows["no_prior_sparsity"]["difference"]
    variances = [statistics.variance(values) / 3 for values in ([80, 78, 82], [62, 60, 61])]
    half = stats.t.ppf(0.975, 2) * math.sqrt(sum(variances))
    assert worse["points"] == pytest.approx(-19) and worse["low"] == pytest.approx(-19 - half)
    assert (worse["direction"], rows["mlp_object_encoder"]["difference"]["direction"]) == ("worse", "open")
    assert rows["mlp_object_encoder"]["paper"]["direction"] == "worse"
    assert rows["q01_log_presence"]["difference"]["low"] is None and rows["q01_log_presence"]["paper"] is None
    sentences = {name: row["sentence"] for name, row in rows.items()}
    assert f"19.0 points fewer than {WANTED.row('complete').words}" in sentences["no_prior_sparsity"]
    assert sentences["no_prior_sparsity"].endswith("the same direction.")
    assert sentences["mlp_object_encoder"].endswith("ours is not distinguishable from 0.")
    assert "one seed gives no interval" in sentences["q01_log_presence"]


def test_what_is_missing_is_named(results: Path) -> None:
    found = page.gather(WANTED, results, PARAMS)
    lacks = {line.partition("): ")[0].rpartition("(")[2]: line.partition("): ")[2] for line in found["left_out"]}
    assert lacks["q01_log_presence"] == "not yet run (seeds 1, 2)"
    assert lacks["q02_transposed_pooling"] == "run with other settings (seed 0); not yet run (seeds 1, 2)"
    whole = [row["row"] for row in found["rows"] if row["seeds"] == WANTED.seeds]
    assert {*lacks} == {*WANTED.rows} - {*whole}
    assert all(line.startswith(WANTED.row(name).words) for name, line in zip(lacks, found["left_out"], strict=True))
    text = page.markdown(found)
    assert all(line in text for line in found["left_out"]) and all(row["sentence"] in text for row in found["rows"])


def test_rows_of_another_device_are_not_beside_them(results: Path) -> None:
    """The page says where its rows come from; one of the few from elsewhere is named and left out, in the table too."""
    assert "steps, trained on a processor (10 runs); a run took 10 minutes" in page.markdown(page.gather(
        WANTED, results, PARAMS))
    left(results, "no_noise", 0, 0.5, "cuda")
    left(results, "complete", 0, 0.9, "cuda")
    found = page.gather(WANTED, results, PARAMS)
    assert found["left_out"][0].endswith(" (complete): trained on cuda, most others on cpu (seed 0)")
    assert found["rows"][0]["seeds"] == [1, 2]
    assert "no_noise" not in [row["row"] for row in found["rows"]] and found["devices"] == {"a processor": 9}
    runs = sections.runs_of(WANTED, results, PARAMS)
    assert not runs["no_noise"][0] and len(runs["complete"][0]) == 2
    assert runs["no_noise"][1][0] == "trained on cuda, most others on cpu"


def test_nothing_at_all_is_bad_input(tmp_path: Path, capsys) -> None:
    assert page.main(["--params", str(PARAMS), "--results", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no row of 10,000 steps" in said and "--section ablation_small --row NAME" in said


def test_a_row_that_is_done_is_left_alone(results: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    begun = []
    monkeypatch.setattr(row_runs, "run", lambda wanted, name, seed, *rest: begun.append((name, seed)))
    common = ["--section", "ablation_small", "--params", str(PARAMS), "--results", str(results), "--unless-done"]
    for row, seed in (("complete", 0), ("complete", 7), ("q02_transposed_pooling", 0)):
        assert ablation.main([*common, "--row", row, "--seed", str(seed)]) == 0
    assert begun == [("complete", 7), ("q02_transposed_pooling", 0)]
    capsys.readouterr()
    assert ablation.main([*common, "--list"]) == 0 and capsys.readouterr().out.split() == WANTED.rows


@pytest.mark.parametrize(("ours", "paper", "says"), [
    ((-5, -8, -2), (-9, -12, -6), "the same direction"), ((5, 2, 8), (-9, -12, -6), "the opposite direction"),
    ((-5, -8, 2), (-9, -12, -6), "ours is not"), ((-5, None, None), (-9, -12, 6), "ours cannot be judged"),
    ((-5, -8, 2), (-9, -12, 6), "neither is"),
    ((-5, -8, -2), (-9, -12, 6), "the paper's is not")])
def test_agreement(ours: tuple, paper: tuple, says: str) -> None:
    assert page.agreement(page.Difference(*ours), page.Difference(*paper)).startswith(says)


def test_the_page_says_what_the_committed_rows_say() -> None:
    text = (REPOSITORY / "docs/ablation.md").read_text()
    shown = text.split(table.BEGIN)[1].split(table.END)[0].strip()
    if not list((REPOSITORY / "results" / WANTED.folder).glob("*/*/metrics.json")):
        assert shown == "Nothing of this is run yet."
        return
    found = page.gather(WANTED, REPOSITORY / "results", PARAMS)
    assert shown == page.markdown(found)
    kept = REPOSITORY / "results" / f"{WANTED.folder}_table" / "metrics.json"
    assert json.loads(kept.read_text()) == json.loads(json.dumps(found))
