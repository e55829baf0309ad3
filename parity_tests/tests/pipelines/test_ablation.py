"""The ablation: every row of the paper and every repairable quirk is there and changes what it says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import ablation, evaluate
from pipelines import train as training
from pipelines.evaluation import row_measures
from pipelines.results import paper_report
from pipelines.support import sections
from pipelines.support.values import BadInput
from pipelines.training import beside, row_runs, rows
from port.data import dataset as data
from port.evaluation import collected
from port.training import loop

PARAMS = REPOSITORY / "params.yaml"
PAPER = {"no_posterior_sparsity", "no_prior_sparsity", "no_noise_in_objects", "no_noise_in_parts",
         "no_noise", "similarity_transforms", "no_deformations", "linear_part_encoder", "conv_part_encoder",
         "mlp_object_encoder", "no_special_features"}
WANTED = rows.section(PARAMS)
SMALL = {
    "prepare": {"download": False},
    "presets": {"small": {
        "prepare": {"source": "digits", "options": {"enlarge": 12, "test_share": 0.25, "split_seed": 0}},
        "model": {key: list(v) if isinstance(v, list) else v for key, v in runs.TINY.items()},
        "train": {"device": "cpu", "batch_size": 8, "steps": 50, "held_out_every": 0},
        "evaluate": {"batch_size": 150}}},
    "ablation": {"preset": "small", "steps": 2, "seeds": [0, 1], "rows": ["whole", "plain", "quiet"],
                 "changes": {
        "whole": {"words": "as it is"},
        "plain": {"words": "no features", "set": ["model.n_part_special_features=0",
                                                  "model.colorize_templates=false"]},
        "quiet": {"words": "no noise in evaluation", "quirk": "Q06", "protocol": "noise"}}}}


def test_the_rows_of_the_paper_and_of_the_quirks() -> None:
    """All of them, each once; the stages of DVC are these rows."""
    assert set(WANTED.rows) == set(WANTED.changes) and len(set(WANTED.rows)) == len(WANTED.rows)
    assert set(WANTED.rows) >= PAPER
    repairable = {quirk.id for quirk in port.quirks.QUIRKS.values() if quirk.where not in (None, "always")}
    assert {WANTED.row(name).quirk for name in WANTED.rows} - {None} == repairable


@pytest.mark.parametrize("name", WANTED.rows)
def test_a_row_changes_what_it_says(name: str) -> None:
    """Model or training settings differ from those of the row beside, the quirk's id is right."""
    row, other = WANTED.row(name), rows.beside(WANTED, name)
    presets = [rows.preset_of(WANTED, WANTED.row(one), PARAMS) for one in (name, other)]
    configs, loops = [one.config() for one in presets], [one.train(0)[0] for one in presets]
    assert presets[0].name == presets[1].name and loops[0].steps == WANTED.steps
    if name == other:
        assert not row.set and not row.protocol
    elif row.protocol:
        assert configs[0] == configs[1] and loops[0] == loops[1] and row.quirk
    else:
        assert (configs[0], loops[0]) != (configs[1], loops[1])
    repairs = configs[0].repairs
    assert repairs == ((row.quirk,) if repairs else ())


def test_the_committed_table_is_that_of_the_committed_rows() -> None:
    """Every row was run, at the length that the table names; its figures are the rows' own."""
    found = json.loads((REPOSITORY / "results/ablation_table/metrics.json").read_text())
    assert found == json.loads(json.dumps(ablation.table(WANTED, REPOSITORY / "results", PARAMS)))
    assert found["left_out"] == [] and [row["row"] for row in found["rows"]] == WANTED.rows


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Every row of a small section."""
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(training, "RUNS", folder / "runs")
        assert ablation.main(["--all"]) == 0
    return folder


def table(folder: Path, **changed) -> dict:
    wanted = rows.Ablation(**SMALL["ablation"] | changed)
    return ablation.table(wanted, folder / "results", folder / "params.yaml")


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_rows_side_by_side(results: Path) -> None:
    """Means over seeds, differences to the row beside; a repaired protocol against the faithful one."""
    found = read(results / "results/ablation_table/metrics.json")
    assert found == json.loads(json.dumps(table(results)))
    assert (found["steps"], found["full_steps"], found["left_out"]) == (2, 50, [])
    by_name = {row["row"]: row for row in found["rows"]}
    assert list(by_name) == ["whole", "plain", "quiet"] and by_name["whole"]["difference"] == {}
    each = [read(results / f"results/ablation/plain/{seed}/metrics.json") for seed in (0, 1)]
    mean = sum(one["protocols"]["clean"]["rec_ll"] for one in each) / 2
    assert by_name["plain"]["protocols"]["clean"]["rec_ll"] == pytest.approx(mean, rel=1e-12)
    assert by_name["plain"]["difference"]["clean"]["rec_ll"] == pytest.approx(
        mean - by_name["whole"]["protocols"]["clean"]["rec_ll"], rel=1e-9)
    assert by_name["plain"]["parameters"] < by_name["whole"]["parameters"]
    quiet, whole = by_name["quiet"]["protocols"]["repaired"], by_name["whole"]["protocols"]
    assert by_name["quiet"]["difference"]["repaired"]["rec_ll"] == pytest.approx(
        quiet["rec_ll"] - whole["faithful"]["rec_ll"], rel=1e-9, abs=1e-9)
    # The same weights: without noise, but on whole batches and the same shifts.
    assert quiet != whole["faithful"]
    for measure in ("posterior_kmeans", "prior_kmeans", "posterior_probe", "prior_probe"):
        assert 0 <= quiet[measure] <= 1
    assert each[0]["set"] == SMALL["ablation"]["changes"]["plain"]["set"] and each[0]["steps"] == 2


def test_rows_on_the_terminal(capsys) -> None:
    """The clean protocol, or the repaired one; differences with their sign."""
    shares = {"posterior_kmeans": 0.5, "posterior_probe": 0.25}
    clean = {"clean": shares, "faithful": {"posterior_kmeans": 0.9}}
    plain = {"clean": {"posterior_kmeans": 0.125, "posterior_probe": -0.5}}
    found = [{"row": "whole", "protocols": clean, "difference": {}},
             {"row": "plain", "protocols": clean, "difference": plain},
             {"row": "quiet", "protocols": {"repaired": shares},
              "difference": {"repaired": dict.fromkeys(shares, 0.0)}}]
    ablation.say({"preset": "small", "steps": 2000, "full_steps": 50_000, "seeds": [0, 1], "rows": found,
                  "left_out": ["x: why"]})
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "ablation of small, 2,000 steps (the preset's own length is 50,000), seeds 0, 1",
        "whole clean posterior_kmeans 0.500 posterior_probe 0.250",
        "plain clean posterior_kmeans 0.500 (+0.125) posterior_probe 0.250 (-0.500)",
        "quiet repaired posterior_kmeans 0.500 (+0.000) posterior_probe 0.250 (+0.000)", "left out: x: why"]


def test_rows_of_another_kind_are_left_out(results: Path) -> None:
    """Another length or setting is named, not put beside; no row at all is bad input."""
    changes = SMALL["ablation"]["changes"]
    other = changes | {"plain": {"set": ["model.deformations=false"]}}
    found = table(results, changes=other, seeds=[0, 2])
    assert [row["row"] for row in found["rows"]] == ["whole", "quiet"]
    lacks = [line.rpartition(" (plain): ")[2].rpartition(" (whole): ")[2] for line in found["left_out"]]
    assert lacks[:2] == ["not yet run (seed 2)", "run with other settings (seed 0); not yet run (seed 2)"]
    with pytest.raises(BadInput, match="no row of 7 steps"):
        table(results, steps=7)


def test_the_table_of_the_page(results: Path) -> None:
    """The step count and every row stand there; without the file the command does."""
    page = paper_report.run(["all"], results / "results", results / "paper.html").read_text()
    assert "<b>2 steps</b> of the" in page and "not what a" in page
    assert page.count("<code>plain</code>") == 1 and "no noise in evaluation" in page and "Q06" in page
    empty = paper_report.run(["all"], results / "nothing", results / "empty.html").read_text()
    assert "python -m pipelines.ablation --all" in empty


def test_a_row_that_is_there_is_not_run_again(results: Path, monkeypatch) -> None:
    monkeypatch.setattr(beside, "run", lambda *given: pytest.fail("ran again"))
    wanted = rows.Ablation(**SMALL["ablation"])
    row_runs.run_all(wanted, results / "results", results / "params.yaml")
    again: list[str] = []

    def run(works, *given) -> beside.Outcome:
        again.extend(work.name for work in works)
        return beside.Outcome()
    monkeypatch.setattr(beside, "run", run)
    row_runs.run_all(rows.Ablation(**SMALL["ablation"] | {"steps": 3, "seeds": [1]}),
                     results / "results", results / "params.yaml")
    assert again == ["whole, seed 1", "plain, seed 1", "quiet, seed 1"]


@pytest.mark.parametrize(("preset", "change", "says"), [
    ("capsnet_mnist_small", [], "takes models scae, hierarchy and constellation, not capsnet"),
    ("em_mnist_small", [], "not em"), ("pcae", [], "not pcae"), ("ocae", [], "not ocae"),
    ("digits", ["train.parts=pcae"], "train.parts must not be set"),
    ("digits", ["train.start_from=usps"], "train.start_from must not be set")])
def test_what_no_row_can_be_of_is_refused_before_training(
        preset: str, change: list, says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    given = yaml.safe_load(PARAMS.read_text())
    given["ablation"] |= {"rows": ["one"], "changes": {"one": {"set": change}}}
    Path("params.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setattr(row_runs.train, "train", lambda *given, **more: pytest.fail("trained"))
    for command in (["--row", "one"], ["--all"]):
        assert ablation.main([*command, "--preset", preset]) == 2
        error = capsys.readouterr().err
        assert f"preset {preset}: " in error and says in error and error.count("\n") == 1


def test_images_without_labels_are_refused_before_training(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("own.npz", x=np.zeros((20, 12, 12), np.uint8))
    own = {"prepare": {"source": "npz", "path": str(tmp_path / "own.npz")}}
    model = SMALL["presets"]["small"]["model"] | {"probe": False}
    model.pop("n_classes", None)
    small = SMALL["presets"]["small"] | own | {"model": model}
    Path("params.yaml").write_text(yaml.safe_dump(SMALL | {"presets": {"small": small}}))
    monkeypatch.setattr(row_runs.train, "train", lambda *given, **more: pytest.fail("trained"))
    assert ablation.main(["--row", "whole"]) == 2
    assert "its images have no labels" in capsys.readouterr().err


@pytest.mark.parametrize(("protocol", "expected"), [
    ("noise", (False, True, True)), ("whole_batches", (True, False, True)), ("refit", (True, True, False))])
def test_a_repaired_protocol_is_the_faithful_one_but_for_one_thing(protocol: str, expected: tuple, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(row_measures, "under",
                        lambda *given, noise, whole, refit, shift: seen.append((noise, whole, refit)))
    model = port.build(port.config.from_flat(SMALL["presets"]["small"]["model"]))
    row_measures.measure(model, None, sections.Evaluate(), rows.Row(protocol=protocol))
    assert seen == [expected]


def test_a_row_is_measured_as_stage_evaluate_measures() -> None:
    """The same shares under both protocols, of fits on training images that are not those tested on."""
    images = torch.randint(0, 256, (90, 1, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    train, test = (data.Split(images[part], torch.arange(90)[part] % 10) for part in (slice(50), slice(50, None)))
    dataset, wanted = data.Dataset("drawn", train, test), sections.Evaluate(batch_size=10, bootstrap_draws=10)
    model = runs.model().eval()
    found = row_measures.measure(model, dataset, wanted, rows.Row("as it is"))
    for protocol, (fit, seen) in evaluate.collect(model, dataset, wanted).items():
        expected = evaluate.measure(fit, seen, 10, protocol, wanted)
        assert found[protocol].pop("rec_ll") == pytest.approx(expected["rec_ll"], rel=1e-6)
        assert found[protocol] == {name: expected[name]["value"] for name in found[protocol]}
        assert set(found[protocol]) == {f"{kind}_{name}" for kind in ("posterior", "prior")
                                        for name in ("kmeans", "probe")}


def test_what_a_row_says_of_the_posterior_is_not_that_of_the_prior(monkeypatch) -> None:
    """Posterior presences that tell all classes apart, and prior ones of which half belong to the next class."""
    labels, half = np.arange(40) % 10, np.arange(40) // 10 % 2
    seen = collected.Collected(labels, np.eye(10)[labels], np.eye(10)[(labels + half) % 10], labels < 7, labels < 2,
                               -3.0, -4.0)
    monkeypatch.setattr(row_measures.collected, "collect", lambda *given, **more: seen)
    dataset = SimpleNamespace(test=None, train=None, n_classes=10)
    found = row_measures.measure(runs.model(), dataset, sections.Evaluate(), rows.Row())
    assert found["clean"] == found["faithful"] == {
        "rec_ll": -3.0, "posterior_kmeans": 1.0, "posterior_probe": 0.7, "prior_kmeans": 0.5, "prior_probe": 0.2}


def test_a_setting_that_a_row_did_not_know_had_its_default() -> None:
    """What decides no number may differ; everything else is another row."""
    wanted = loop.Settings(lr=0.5)
    stored = rows.as_json(asdict(wanted))
    for change, same in (({}, True), ({"log_every": 7}, True), ({"batch_size": 7}, False), ({"noise": False}, False)):
        assert rows.same_loop(stored | change, wanted) is same
    for name, same in (("momentum", True), ("lr", False)):
        assert rows.same_loop({key: value for key, value in stored.items() if key != name}, wanted) is same


def test_images_of_the_clean_protocol_lie_where_stage_evaluate_has_them(monkeypatch) -> None:
    """`evaluate.clean_shift: false` puts them in the middle; what repairs the faithful one is shifted as that is."""
    seen = []
    monkeypatch.setattr(row_measures.collected, "collect",
                        lambda *given, noise, whole_batches, shift: seen.append((noise, shift)) or 1 / 0)
    model = port.build(port.config.from_flat(SMALL["presets"]["small"]["model"]))
    for clean in (True, False):
        for protocol in (None, "refit"):
            with pytest.raises(ZeroDivisionError):
                row_measures.measure(model, SimpleNamespace(test=None), sections.Evaluate(clean_shift=clean),
                                     rows.Row(protocol=protocol))
    assert seen == [(False, "original"), (True, "original"), (False, "centred"), (True, "original")]


@pytest.mark.parametrize(("change", "message"), [
    ({"rows": ["wole"]}, "unknown row of the ablation 'wole'; did you mean 'whole'"),
    ({"steps": 0}, "at least 1"), ({"step": 3}, "did you mean 'steps'"),
    ({"changes": {"whole": {"protocol": "shift"}}, "rows": ["whole"]}, "noise, whole_batches or refit"),
    ({"changes": {"whole": {"beside": "x"}}, "rows": ["whole"]}, "beside: unknown row 'x'"),
    ({"changes": {"whole": {"set": ["model.n_part_cap=3"]}}, "rows": ["whole"]}, "'n_part_caps'")])
def test_bad_sections(tmp_path: Path, change: dict, message: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(SMALL | {"ablation": SMALL["ablation"] | change}))
    assert ablation.main(["--row", "whole"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert asdict(rows.Row()) == dict.fromkeys(asdict(rows.Row())) | {"words": ""}
