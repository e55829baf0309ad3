"""Stages of the other modes at tiny size: parts alone, objects on them, three levels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests import goldens
from parity_tests.harness import every_family
from pipelines import evaluate, prepare, train
from pipelines.evaluation import parts
from pipelines.support import sections, settings
from pipelines.support.values import BadInput
from pipelines.training import given_parts
from port.data import dataset as data
from port.evaluation import looks
from port.evaluation import parts as evaluate_parts

SMALL = ["model.output_channels=[4,4]", "model.strides=[2,2]", "model.n_part_caps=3",
         "model.n_part_special_features=4", "train.steps=4", "train.batch_size=8", "train.log_every=2",
         "train.held_out_every=4", "train.held_out_images=16", "evaluate.require_learning=false",
         "evaluate.bootstrap_draws=20", "evaluate.batch_size=30", "evaluate.fit_images=60",
         "evaluate.baseline_images=60",
         "evaluate.tsne_images=0", "evaluate.n_pictures=3"]
OBJECTS = ["model.n_obj_caps=4", "model.n_obj_caps_params=5", "model.n_output_dims=8", "model.n_hiddens=6",
           "model.n_dims=8", "model.n_layers=1"]
PRESETS = {"pcae": [], "ocae": OBJECTS, "digits_three_levels": [*OBJECTS, "model.n_upper_caps=2"]}


def preset(name: str, *more: str) -> settings.Preset:
    return settings.load_preset(name, [*SMALL, *PRESETS[name], *more], goldens.REPOSITORY / "params.yaml")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all stages of the three presets."""
    folder = tmp_path_factory.mktemp("modes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in PRESETS:
            train.run(preset(name), 0, folder)
            evaluate.run(preset(name), 0, folder)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", ["pcae", "pcae_cifar10", "ocae", "digits_three_levels"])
def test_presets(name: str) -> None:
    """Each builds as the kind it names, and takes its stages' settings."""
    chosen = settings.load_preset(name, path=goldens.REPOSITORY / "params.yaml")
    config = chosen.config()
    assert config.kind == chosen.model["model"]
    assert sum(p.numel() for p in port.build(config).parameters()) > 90_000
    assert chosen.train(0)[0].steps > 0 and chosen.evaluate()
    if name == "ocae":
        source = settings.load_preset("pcae", path=goldens.REPOSITORY / "params.yaml").config()
        assert all(getattr(source, part) == getattr(config, part) for part in given_parts.SHARED)


def test_part_capsules_leave_errors_and_pictures(results: Path) -> None:
    """Figures with intervals, before and after; pictures; a model that loads."""
    measured = read(results / "evaluate/pcae/0/metrics.json")
    for moment in ("initial", "final"):
        for name in ("mse", "rec_ll", "logistic", "present_parts"):
            found = measured["protocols"]["clean"][moment][name]
            assert found["low"] <= found["value"] <= found["high"] and found["n"] == 450
    assert measured["baseline"]["mean_image_mse"]["value"] > 0
    assert measured["learned"] is all(check["passed"] for check in measured["checks"])
    assert isinstance(port.load(results / "train/pcae/0/model"), port.PartAutoencoder)
    for name in ("reconstructions", "templates", "parts"):
        assert (results / f"evaluate/pcae/0/pictures/{name}.png").stat().st_size > 500
    header = (results / "train/pcae/0/history.csv").read_text().splitlines()[0]
    assert {"held_out_mse", "template_l1", "rec_ll"} <= set(header.split(","))


def test_figures_of_parts_are_those_of_the_model(results: Path) -> None:
    """Present is a part whose presence is above one half."""
    model, test = port.load(results / "train/pcae/0/model"), prepare.dataset_for(preset("pcae"), results).test
    wanted = preset("pcae").evaluate()
    seen = evaluate_parts.collect(model, test, wanted.batch_size, wanted.seed, noise=False)
    found = read(results / "evaluate/pcae/0/metrics.json")["protocols"]["clean"]["final"]
    assert found["present_parts"]["value"] == pytest.approx((seen.presence > 0.5).sum(1).mean())
    assert found["mse"]["value"] == pytest.approx(seen.mse.mean(), rel=1e-5)


@pytest.mark.parametrize("clean_shift", [True, False])
def test_the_mean_image_lies_as_those_that_it_stands_for(clean_shift: bool) -> None:
    """At drawn places where the clean protocol draws them, else in the middle."""
    images = torch.randint(0, 256, (30, 1, 14, 14), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    split, wanted = data.Split(images, torch.arange(30) % 10), sections.Evaluate(clean_shift=clean_shift, seed=3)
    model = every_family.model("pcae", canvas_size=18)
    train, test = (looks.arranged(images, 18, "original", seed if clean_shift else None) for seed in (103, 3))
    expected = (test - train.mean(0)).square().mean()
    found = parts.baseline(model, split, split, wanted)["mean_image_mse"]
    assert found["value"] == pytest.approx(float(expected), rel=1e-5)


def test_what_parts_that_have_learned_must_show() -> None:
    """An interval of the squared error below that of step 0, and below that of the mean training image."""
    def passed(high: float) -> list[bool]:
        errors = {name: {"value": value, "low": bottom, "high": top} for name, value, bottom, top in (
            ("final", 0.1, 0.05, high), ("initial", 0.5, 0.4, 0.6), ("mean", 0.4, 0.3, 0.5))}
        return [check["passed"] for check in parts.checks({
            "protocols": {"clean": {moment: {"mse": errors[moment]} for moment in ("initial", "final")}},
            "baseline": {"mean_image_mse": errors["mean"]}})]
    assert [passed(high) for high in (0.25, 0.35, 0.45)] == [[True, True], [True, False], [False, False]]


def test_frozen_parts_are_those_of_the_given_run(results: Path) -> None:
    """Bit by bit, after training and at the start that evaluation compares with; objects moved."""
    given = port.load(results / "train/pcae/0/model").state_dict()
    trained = port.load(results / "train/ocae/0/model")
    start = given_parts.initial(trained, 0)
    for name, value in trained.state_dict().items():
        if name.startswith(given_parts.SECTIONS):
            assert torch.equal(value, given[name]) and torch.equal(start.state_dict()[name], given[name])
    assert read(results / "train/ocae/0/config.json")["train"]["parts"] == "pcae"
    moved = "object_decoder.capsule_layer.cpr_static"
    assert not torch.equal(trained.state_dict()[moved], start.state_dict()[moved])
    assert read(results / "evaluate/ocae/0/metrics.json")["protocols"]["clean"]["final"]["posterior_kmeans"]


def test_three_levels_leave_their_terms(results: Path) -> None:
    """The third level's likelihoods are in the history, and its weights have moved."""
    header = (results / "train/digits_three_levels/0/history.csv").read_text().splitlines()[0]
    assert {"upper_log_prob", "parent_log_prob"} <= set(header.split(","))
    trained = port.load(results / "train/digits_three_levels/0/model")
    assert isinstance(trained, port.HierarchyAutoencoder)
    start = port.build(trained.config, 0).state_dict()
    moved = [name for name, value in trained.state_dict().items()
             if name.startswith("upper.") and not torch.equal(value, start[name])]
    assert "upper.decoder.capsule_layer.cpr_static" in moved
    assert "three levels" in (results / "train/digits_three_levels/0/model/README.md").read_text()


def test_starting_from_given_parts(results: Path) -> None:
    """Any image model may start from given parts; they are then trained on."""
    chosen = settings.load_preset("digits", [*SMALL, *OBJECTS, "train.parts=pcae"],
                                  goldens.REPOSITORY / "params.yaml")
    model, digest = given_parts.build(chosen, 0, results)
    given = port.load(results / "train/pcae/0/model").state_dict()
    assert digest and torch.equal(model.part_decoder.templates, given["part_decoder.templates"])
    assert all(p.requires_grad for p in model.parameters())
    assert given_parts.build(preset("pcae"), 0, results)[1] == ""


def test_bad_parts_are_refused(results: Path, tmp_path: Path) -> None:
    """None named, none there, other sizes, a model without parts."""
    with pytest.raises(BadInput, match="set train.parts"):
        given_parts.build(preset("ocae", "train.parts=null"), 0, results)
    with pytest.raises(BadInput, match="no model in"):
        given_parts.build(preset("ocae", "train.parts=svhn"), 0, results)
    with pytest.raises(BadInput, match="part_encoder with n_caps 3, the preset 4"):
        given_parts.build(preset("ocae", "model.n_part_caps=4"), 0, results)
    points = port.config.from_flat({"model": "constellation", "n_dims": 8, "n_layers": 1})
    port.save(port.build(points), tmp_path / "model")
    with pytest.raises(BadInput, match="no part capsules"):
        given_parts.build(preset("ocae", f"train.parts={tmp_path}/model"), 0, results)
    with pytest.raises(BadInput, match="their own test images only"):
        evaluate.run(preset("pcae"), 0, results, on="mnist")


def test_mean_has_an_interval() -> None:
    """Equal values have no spread; two have one around their mean."""
    wanted = sections.Evaluate(bootstrap_draws=200)
    assert parts.mean(np.full(5, 2.0), wanted)["low"] == 2.0
    found = parts.mean(np.array([0.0, 1.0]), wanted)
    assert (found["low"], found["value"], found["high"]) == (0.0, 0.5, 1.0)


def test_an_interval_has_as_many_draws_as_asked_for() -> None:
    """The thousandth draw is not the last."""
    values = np.random.default_rng(3).normal(size=40)
    rng = np.random.default_rng(0)
    draws = [values[rng.integers(40, size=40)].mean() for _ in range(1500)]
    found = parts.mean(values, sections.Evaluate(bootstrap_draws=1500))
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(draws, [0.025, 0.975]), rel=1e-12)


@pytest.mark.parametrize(("name", "keys"), [
    ("digits", "n_channels and canvas_size"), ("pcae", "n_channels and canvas_size"),
    ("ocae", "n_channels and canvas_size"), ("digits_three_levels", "n_channels and canvas_size"),
    ("capsnet_mnist_small", "channels and canvas"), ("em_mnist_small", "image_channels and canvas")])
def test_images_that_do_not_fit_name_the_keys_of_the_model(name: str, keys: str, tmp_path: Path) -> None:
    large = "prepare.options={enlarge: 64}"
    chosen = settings.load_preset(name, ["prepare.source=digits", large], goldens.REPOSITORY / "params.yaml")
    with pytest.raises(BadInput, match=f"; set {keys} to fit"):
        prepare.run(chosen, tmp_path)


@pytest.mark.parametrize(("key", "value"), [("rec_ll_weight", 0.3), ("template_l1_weight", 2.0),
                                            ("mse_weight", 5.0), ("primary_caps_sparsity_weight", 0.5),
                                            ("weight_decay", 0.1), ("target", "sobel")])
def test_every_weight_of_the_parts_reaches_the_loss(key: str, value) -> None:
    """Each changes the loss, and where there are gradients, them."""
    image = torch.rand(2, 1, 20, 20, generator=torch.Generator().manual_seed(0))

    def gradient(**more):
        model = port.build(port.config.from_flat(preset("pcae").model | more), 0)
        loss = model(image).loss
        loss.backward()
        return loss.item(), model.part_decoder.templates.grad
    before, after = gradient(), gradient(**{key: value})
    assert before[0] != after[0]
    if key not in ("primary_caps_sparsity_weight", "weight_decay"):
        assert not torch.equal(before[1], after[1])
