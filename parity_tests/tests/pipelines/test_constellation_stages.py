"""Stages of a constellation preset at tiny size: prepare, train, resume, evaluate, pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from pipelines import evaluate, prepare, train
from pipelines.evaluation import constellation
from pipelines.support import settings
from pipelines.support.values import BadInput
from port.configuration.fields import ConfigError
from port.constellation import batches as constellation_batches
from port.evaluation import constellation as evaluate_constellation
from port.training import loop

TINY = ["model.n_dims=8", "model.n_layers=1", "model.n_output_dims=6", "model.n_hiddens=5",
        "prepare.options={examples: 60, seed: 1}", "train.steps=6", "train.batch_size=4",
        "train.log_every=3", "train.held_out_every=3", "evaluate.n_pictures=3",
        "evaluate.bootstrap_draws=50", "evaluate.require_learning=false"]


@pytest.fixture(scope="module")
def preset() -> settings.Preset:
    return settings.load_preset("constellation", TINY)


@pytest.fixture(scope="module")
def results(preset: settings.Preset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all stages of the tiny preset."""
    folder = tmp_path_factory.mktemp("constellation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        prepare.run(preset, folder)
        train.run(preset, 0, folder)
        evaluate.run(preset, 0, folder)
    return folder


@pytest.mark.parametrize(("name", "parameters"), [("constellation", 84_309),
                                                  ("constellation_paper", 591_957)])
def test_presets(name: str, parameters: int) -> None:
    """Each builds; the original's has as many parameters as its checkpoint (facts, section 11)."""
    chosen = settings.load_preset(name)
    assert constellation.is_one(chosen) and chosen.train(0)[0].batch_size == 32
    model = port.build(chosen.config())
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert chosen.config().autoencoder.posterior_within_example_sparsity_weight == 0.0


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_what_the_stages_leave(results: Path) -> None:
    """Metrics with intervals, a model that loads, pictures."""
    summary = read(results / "prepare/constellation/metrics.json")
    assert (summary["test"]["examples"], summary["points"]) == (60, 11)
    history = (results / "train/constellation/0/history.csv").read_text().splitlines()
    assert len(history) == 3 and "held_out_segmentation" in history[0]
    measured = read(results / "evaluate/constellation/0/metrics.json")
    for protocol in ("clean", "faithful"):
        for moment in ("initial", "final"):
            share = measured["protocols"][protocol][moment]["segmentation"]
            assert 0 < share["low"] <= share["value"] <= share["high"] <= 1 and share["n"] == 60
    assert measured["steps"] == 6 and {check["required"] for check in measured["checks"]} == {True}
    assert measured["learned"] is all(check["passed"] for check in measured["checks"])
    assert isinstance(port.load(results / "train/constellation/0/model"), port.ConstellationAutoencoder)
    for name in ("before", "after"):
        picture = results / f"evaluate/constellation/0/pictures/points_{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 2000


def test_examples_of_several_patterns_are_counted_apart(results: Path, preset: settings.Preset) -> None:
    several = int((prepare.dataset_for(preset, results).test.pattern_presence.sum(1) > 1).sum())
    measured = read(results / "evaluate/constellation/0/metrics.json")
    assert 0 < several < 60 and {share["n"] for share in measured["several_patterns"].values()} == {several}
    assert measured["baseline"]["one_capsule_several_patterns"]["n"] == several


def test_what_a_run_that_has_learned_must_show() -> None:
    """An interval above that of step 0, and above that of one capsule for all points."""
    def passed(low: float) -> list[bool]:
        shares = {name: {"value": value, "low": bottom, "high": top} for name, value, bottom, top in (
            ("final", 0.8, low, 0.9), ("initial", 0.5, 0.4, 0.6), ("one", 0.6, 0.5, 0.7))}
        return [check["passed"] for check in constellation.checks({
            "protocols": {"clean": {moment: {"segmentation": shares[moment]} for moment in ("initial", "final")}},
            "baseline": {"one_capsule": shares["one"]}})]
    assert [passed(low) for low in (0.75, 0.65, 0.55)] == [[True, True], [True, False], [False, False]]


def test_a_model_whose_likelihood_is_no_number_has_no_accuracy(
        results: Path, preset: settings.Preset, tmp_path: Path) -> None:
    """Whichever capsule comes first would be called the answer."""
    shutil.copytree(results / "prepare", tmp_path / "prepare")
    model = port.load(results / "train/constellation/0/model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))
    port.save(model, tmp_path / "train/constellation/0/model")
    (tmp_path / "train/constellation/0/metrics.json").write_text('{"steps": 6}')
    evaluate.run(preset, 0, tmp_path)
    measured = read(tmp_path / "evaluate/constellation/0/metrics.json")
    assert measured["protocols"]["clean"]["final"]["segmentation"] is None and not measured["learned"]
    assert measured["protocols"]["clean"]["initial"]["segmentation"]["value"] > 0


def test_prepared_data_is_the_generator_s(results: Path, preset: settings.Preset) -> None:
    """What is read back is what the options draw."""
    found, drawn = prepare.dataset_for(preset, results), constellation.draw(preset.prepare().options)
    assert found.wanted == drawn.wanted
    for ours, theirs in zip(found.test, drawn.test, strict=True):
        assert torch.equal(ours, theirs)


def test_continues_bit_by_bit(preset: settings.Preset, tmp_path: Path) -> None:
    """A run of three steps, taken up again for three more, has the weights of one of six."""
    def run(steps: int, folder: Path | None) -> port.ConstellationAutoencoder:
        model = port.build(preset.config(), 0)
        wanted = loop.Settings(batch_size=4, lr=1e-3, steps=steps, log_every=2, checkpoint_every=3)
        loop.train(model, constellation.draw({"examples": 8}), wanted, folder)
        return model

    whole = run(6, None)
    run(3, tmp_path)
    again = run(6, tmp_path)
    for (name, ours), theirs in zip(again.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_share_by_hand() -> None:
    """Points are counted, examples are drawn: equal shares have no spread, a single example none."""
    part, whole = np.array([2, 4, 6]), np.array([4, 8, 12])
    assert evaluate_constellation.share(part, whole)[:3] == (0.5, 0.5, 0.5)
    spread = evaluate_constellation.share(np.array([0, 8]), np.array([8, 8]), n_draws=400)
    assert (spread.low, spread.value, spread.high) == (0.0, 0.5, 1.0)


def test_collect_counts_points() -> None:
    """Against `eval_segmentation` of the original, in batches that do not divide the examples."""
    from port.evaluation.clustering import eval_segmentation
    test = constellation.draw({"examples": 30}).test
    model = port.build(port.config.from_flat({"model": "constellation", "n_dims": 8, "n_heads": 1,
                                              "n_layers": 1}), 3)
    found = evaluate_constellation.collect(model, test, 7)
    pattern, there = test.pattern_id.numpy(), test.presence.numpy()
    assert found.accuracy == pytest.approx(eval_segmentation(found.capsule, pattern, there), rel=1e-12)
    everything = np.zeros_like(pattern)
    assert found.one_capsule.sum() / found.present.sum() == pytest.approx(
        eval_segmentation(everything, pattern, there), rel=1e-12)
    noisy = [evaluate_constellation.collect(model, test, 7, noise_seed=seed).capsule for seed in (1, 1, 2)]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])


def test_colours_follow_the_matching() -> None:
    """A capsule that is matched has its pattern's colour, whatever its number; others have none."""
    capsule, pattern = np.array([2, 2, 0, 0, 1]), np.array([0, 0, 1, 1, 1])
    colours = constellation.capsule_colours(capsule, pattern, np.ones(5))
    assert (colours[2], colours[0]) == (0, 1) and colours[1] not in (0, 1)


def test_bad_presets_are_refused(tmp_path: Path) -> None:
    """Model and data that do not belong together, unknown options, another data set to test on."""
    with pytest.raises(BadInput, match="belong together"):
        prepare.run(settings.load_preset("constellation", ["prepare.source=digits"]), tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'slots'"):
        prepare.run(settings.load_preset("constellation", ["prepare.options={slot: [0]}"]), tmp_path)
    with pytest.raises(BadInput, match="slots must be at most 3, not 9"):
        prepare.run(settings.load_preset("constellation", ["prepare.options={slots: [9]}"]), tmp_path)
    assert constellation_batches.PointSettings(slots=(0, 1)).n_points == 7
