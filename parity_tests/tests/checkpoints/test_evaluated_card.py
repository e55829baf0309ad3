"""`scae export --format folder`: a run's model with the accuracies of its evaluations in the card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import every_family
from pipelines import cli
from port.checkpoints import evaluations, model_card, run_folder

FINAL = {"test_images": 40, "rec_ll": -1.0, "posterior_kmeans": {"value": 0.5, "low": 0.4, "high": 0.625, "n": 40},
         "prior_probe": {"value": 0.25, "low": 0.125, "high": 0.375, "n": 40}, "prior_kmeans": None}


def evaluation(weights: str, data: str = "digits", protocols: tuple[str, ...] = ("clean", "faithful")) -> dict:
    """What `scae evaluate` leaves, cut down."""
    return {"preset": "digits", "data": data, "level": 0.95, "weights": weights,
            "protocols": {name: {"initial": {}, "final": FINAL} for name in protocols}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of digits with two evaluations of its weights, and one of others."""
    folder = tmp_path / "results/train/digits/0"
    port.save(every_family.model("pcae"), folder / "model")
    (folder / "config.json").write_text(json.dumps({"preset": "digits", "train": {"seed": 0}}))
    (folder / "metrics.json").write_text(json.dumps({"loss": 3.0, "held_out_rec_ll": -2.0}))
    (folder / "environment.json").write_text(json.dumps({
        "weights": run_folder.sha256(folder / "model/model.safetensors")[:16], "files": run_folder.digests(folder)}))
    own = json.loads((folder / "environment.json").read_text())["weights"]
    for name, found in (("digits", evaluation(own)), ("digits_on_usps", evaluation(own, "usps", ("clean",))),
                        ("digits_on_mnist", evaluation("0123456789abcdef", "mnist"))):
        at = tmp_path / "results/evaluate" / name / "0"
        at.mkdir(parents=True)
        (at / "metrics.json").write_text(json.dumps(found))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_card_of_the_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every accuracy with images, protocol and interval, in the head and in the text; the run stays as it is, so that
    DVC sees no change; and the weights are the run's."""
    before = contents(tmp_path / "results")
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--format", "folder", "--license", "mit"]) == 0
    assert "6 accuracies of 3 evaluations" in capsys.readouterr().out and contents(tmp_path / "results") == before
    ours, theirs = (port.load(at).state_dict() for at in (run, tmp_path / "out"))
    assert set(ours) == set(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)

    card = (tmp_path / "out/README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["license"] == "mit" and head["metrics"] == ["accuracy", "held_out_rec_ll"]
    [entry] = head["model-index"]
    assert [(one["dataset"]["name"], *one["dataset"]["args"].values()) for one in entry["results"]] == [
        ("digits", 40, "clean"), ("digits", 40, "faithful"), ("usps", 40, "clean")]
    assert entry["results"][0]["metrics"][0] == {
        "type": "accuracy", "name": "posterior_kmeans", "value": 0.5,
        "args": {"low": 0.4, "high": 0.625, "level": 0.95}}
    assert {one["name"] for one in entry["results"][0]["metrics"]} == {"posterior_kmeans", "prior_probe"}
    assert "| usps | 40 | clean | clusters of the posterior presences | 50.00 % | 40.00 to 62.50 % (95 %) |" in card
    assert "| held_out_rec_ll | -2 |" in card and "mnist" not in card


def test_the_numbers_of_a_card() -> None:
    """Shares to a hundredth of a per cent with the level of their interval, other measures to six digits."""
    told = evaluations.Evaluation("digits", "digits", "clean", 1797, 0.9,
                                  {"accuracy": evaluations.Accuracy(0.98765, 0.98, 0.9912)})
    assert "| digits | 1,797 | clean | test accuracy | 98.77 % | 98.00 to 99.12 % (90 %) |" in evaluations.table([told])
    card = model_card.text(every_family.model("pcae"), metrics={"held_out_rec_ll": -1234.5678})
    assert "| held_out_rec_ll | -1234.57 |" in card


def test_the_package_reads_the_results(run: Path, tmp_path: Path) -> None:
    """Where it is installed: its own reading of the head."""
    hub = pytest.importorskip("huggingface_hub")
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--format", "folder"]) == 0
    results = hub.ModelCard.load(tmp_path / "out/README.md").data.eval_results
    assert [(one.dataset_name, one.metric_name, one.metric_value) for one in results][0] == (
        "digits", "posterior_kmeans", 0.5) and len(results) == 6


def test_a_run_that_was_not_evaluated(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """No accuracies, and the command says what measures them."""
    for path in (tmp_path / "results/evaluate").glob("*/0/metrics.json"):
        path.unlink()
    assert cli.main(["export", str(run / "model"), str(tmp_path / "out"), "--format", "folder"]) == 0
    assert "no accuracies (scae evaluate)" in capsys.readouterr().out
    assert "model-index" not in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(("words", "says"), [
    (["RUN", "model.pt2", "--license", "mit"], "--license stands in the card of a folder"),
    (["RUN", "out", "--format", "folder", "--license", "My own"], "names no licence"),
    (["RUN", "RUN/model", "--format", "folder"], "is there already"),
    (["RUN", "out"], "give --format pt2, onnx or folder"),
    (["ALONE", "out", "--format", "folder"], "can be handed on as it is")])
def test_what_is_refused(words: list[str], says: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    port.save(every_family.model("pcae"), tmp_path / "alone")
    before = contents(tmp_path)
    words = [word.replace("RUN", str(run)).replace("ALONE", "alone") for word in words]
    assert cli.main(["export", *words]) == 2
    assert says in capsys.readouterr().err and contents(tmp_path) == before


def test_a_file_that_is_no_evaluation(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "results/evaluate/digits/0/metrics.json"
    found = json.loads(path.read_text())
    del found["level"]
    path.write_text(json.dumps(found))
    assert cli.main(["export", str(run), str(tmp_path / "out"), "--format", "folder"]) == 2
    assert f"{path}: holds no evaluation" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_committed_evaluations_are_read() -> None:
    """Names and forms are those that the stage writes; every accuracy with an interval that holds it."""
    found = evaluations.of_run(REPOSITORY / "results/train/mnist/0")
    assert {(one.data, one.protocol) for one in found} == {
        (data, protocol) for data in ("mnist", "affnist_like") for protocol in evaluations.PROTOCOLS}
    assert all(set(one.accuracies) == {f"{kind}_{name}" for kind in ("posterior", "prior")
                                       for name in ("kmeans", "probe", "logistic")} for one in found)
    assert all(told.low <= told.value <= told.high for one in found for told in one.accuracies.values())
