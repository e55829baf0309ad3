"""What an evaluation cannot measure is null with its reason; the rest of it is measured and written."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import port
from parity_tests import goldens
from parity_tests.tests.evaluation.test_evaluate_stage import TINY
from pipelines import evaluate as stage
from pipelines import report
from pipelines.support import measured, sections, settings
from port.data import dataset as data
from port.evaluation.labels import NotMeasurable


def preset(*more: str) -> settings.Preset:
    """A tiny model of digits."""
    chosen = settings.load_preset("digits", [*TINY, *more], goldens.REPOSITORY / "params.yaml")
    small = chosen.sections["prepare"] | {
        "options": {"enlarge": 14, "test_share": 0.25, "split_seed": 0}}
    return replace(chosen, sections=chosen.sections | {"prepare": small})


def results_of(chosen: settings.Preset, folder, change=None):
    """A results folder as the train stage leaves it, with a change of the weights."""
    trained = settings.folder_of("train", "digits", 0, folder)
    model = port.ImageAutoencoder(chosen.config(), seed=5)
    if change is not None:
        with torch.no_grad():
            change(model)
    port.save(model, trained / "model", "untrained")
    (trained / "metrics.json").write_text('{"steps": 0, "seconds": 1.0, "steps_per_second": 1.0}')
    return folder


def evaluated(chosen: settings.Preset, folder, change=None) -> dict:
    found = stage.run(chosen, 0, results_of(chosen, folder, change))
    return json.loads((found / "metrics.json").read_text(), parse_constant=pytest.fail)


def nan_weights(model) -> None:
    model.object_decoder.capsule_layer.batch_mlp[0].batch_linear[0].weight.fill_(float("nan"))


def test_weights_that_are_no_numbers(tmp_path) -> None:
    """No accuracy of a model that calls the first class always; the page says why there is none."""
    found = evaluated(preset(), tmp_path, nan_weights)
    clean = found["protocols"]["clean"]["final"]
    assert clean["posterior_kmeans"] is clean["posterior_probe"] is clean["log_prob"] is None
    assert isinstance(clean["rec_ll"], float) and found["baseline"]["centred"]["logistic"]["value"] > 0.5
    assert "NaN" in found["not_measured"]["protocols.clean.final.posterior_probe"]
    assert {"tsne.posterior", "tsne.prior"} <= set(found["not_measured"])
    assert not found["learned"]
    page = report.run(sections.Report(), tmp_path, None).read_text()
    assert "What could not be measured" in page and "hold NaN or infinity" in page


# Settings → paths that are null with these words. Everything else is measured.
FEW = [("fewer images than clusters", ["evaluate.fit_images=5"],
        {"protocols.clean.final.posterior_kmeans": "5 examples are fewer than 10 clusters",
         "protocols.faithful.final.posterior_logistic": "5 training images make no whole batch"}),
       ("one object capsule", ["model.n_obj_caps=1"], {"tsne.posterior": "1 features"}),
       ("few images for pixels", ["evaluate.baseline_images=5"],
        {"baseline.shifted.kmeans_clean": "5 examples are fewer"})]


@pytest.mark.parametrize(("more", "wanted"), [row[1:] for row in FEW], ids=[row[0] for row in FEW])
def test_too_little_of_something(tmp_path, more, wanted) -> None:
    found = evaluated(preset(*more), tmp_path)
    for path, words in wanted.items():
        assert words in found["not_measured"][path]
    assert found["protocols"]["clean"]["final"]["posterior_probe"]["value"] >= 0
    assert (tmp_path / "evaluate/digits/0/pictures/templates.png").exists()


def test_one_class(tmp_path, monkeypatch) -> None:
    """Every training image of one class: the fitted probe has nothing to tell apart."""
    whole = stage.dataset_for

    def one(*arguments):
        dataset = whole(*arguments)
        first = dataset.train.labels == 3
        return replace(dataset, train=data.Split(dataset.train.images[first], dataset.train.labels[first]))
    monkeypatch.setattr(stage, "dataset_for", one)
    found = evaluated(preset(), tmp_path)
    assert "one class" in found["not_measured"]["protocols.clean.final.posterior_logistic"]


def test_metrics_are_there_before_pictures(tmp_path, monkeypatch) -> None:
    """A map or picture that fails costs itself alone."""
    def fail(*_):
        raise MemoryError
    monkeypatch.setattr(stage.evaluate, "tsne", fail)
    with pytest.raises(MemoryError):
        evaluated(preset(), tmp_path)
    assert (tmp_path / "evaluate/digits/0/metrics.json").exists()


def test_settled() -> None:
    """NaN at any depth is null with a reason; what is measured stays as it is."""
    def fail():
        raise NotMeasurable("why")
    found: dict = {"a": {"b": float("nan"), "c": 1.0}, "d": {"value": float("inf"), "n": 3}, "e": [2, "x"]}
    measured.put(found["a"], "f", fail)
    measured.put(found["a"], "g", lambda: 5)
    whole = measured.settled(found)
    assert whole == {"a": {"b": None, "c": 1.0, "f": None, "g": 5}, "d": None, "e": [2, "x"],
                     "not_measured": {"a.b": measured.NO_NUMBER, "d": measured.NO_NUMBER, "a.f": "why"}}
    assert measured.settled(whole) == whole
    assert "not_measured" not in measured.settled({"a": 1.0})
    assert measured.lines({"not_measured": {"x": "why", "y": "why"}}) == ["not measured: x and 1 more: why"]
