"""The evaluate stage on a tiny untrained model: passes, caps, other data, t-SNE, capsules alone."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import port
from parity_tests import goldens
from pipelines import evaluate as stage
from pipelines.evaluation import shown
from pipelines.support import pictures, sections, settings
from pipelines.support.values import BadInput, CheckFailed
from port.data import dataset as data
from port.evaluation import clustering as evaluate
from port.evaluation import collected

MODEL = ["canvas_size=20", "n_part_caps=3", "n_part_special_features=2", "n_obj_caps=4",
         "n_obj_caps_params=4", "template_size=5", "output_channels=[4,4,4]", "strides=[2,2,1]",
         "n_output_dims=8", "n_hiddens=8", "n_dims=8"]
TINY = [*(f"model.{key}" for key in MODEL),
        "evaluate.require_learning=false", "evaluate.n_pictures=3", "evaluate.tsne_images=40",
        "evaluate.fit_images=200", "evaluate.baseline_images=100", "evaluate.bootstrap_draws=50"]


@pytest.fixture
def preset(monkeypatch):
    monkeypatch.chdir(goldens.REPOSITORY)
    chosen = settings.load_preset("digits", TINY)
    sections = chosen.sections | {"prepare": chosen.sections["prepare"] | {
        "options": {"enlarge": 14, "test_share": 0.25, "split_seed": 0}}}
    return replace(chosen, sections=sections)


@pytest.fixture
def trained(preset, tmp_path):
    """A results folder as the train stage leaves it, after no step at all."""
    folder = settings.folder_of("train", "digits", 0, tmp_path)
    port.save(port.ImageAutoencoder(preset.config(), seed=5), folder / "model", "untrained")
    (folder / "metrics.json").write_text('{"steps": 0}')
    return tmp_path


def images(n: int, channels: int = 1, size: int = 14) -> data.Split:
    generator = torch.Generator().manual_seed(0)
    return data.Split(torch.randint(0, 256, (n, channels, size, size), generator=generator,
                                    dtype=torch.uint8), torch.arange(n) % 10)


def test_the_stage_evaluates_both_protocols_and_another_data_set(preset, trained):
    folder = stage.run(preset, 0, trained)
    own = json.loads((folder / "metrics.json").read_text())
    assert (own["preset"], own["seed"], own["steps"]) == ("digits", 0, 0)
    for protocol, n in (("clean", 450), ("faithful", 384)):
        final = own["protocols"][protocol]["final"]
        assert final["test_images"] == n
        assert final["fit_images"] == (200 if protocol == "clean" else 128)  # whole batches
    assert json.loads((folder / "config.json").read_text())["evaluate"]["fit_images"] == 200
    rows = list(csv.DictReader((folder / "pictures" / "tsne.csv").read_text().splitlines()))
    assert len(rows) == 2 * 40 and {row["presence"] for row in rows} == {"posterior", "prior"}
    assert {path.name for path in (folder / "pictures").glob("*.png")} == {
        "reconstructions.png", "templates.png", "parts.png", "transformed.png", "capsules.png",
        "explained.png"}

    beside = stage.run(preset, 0, trained, on="digits")  # the same digits, enlarged to the canvas
    other = json.loads((beside / "metrics.json").read_text())
    assert beside.parent.name == "digits_on_digits" and other["trained_on"] == "digits"
    assert json.loads((beside / "config.json").read_text())["on"] == "digits"
    assert other["protocols"]["clean"]["final"]["rec_ll"] != own["protocols"]["clean"]["final"]["rec_ll"]


def from_to(initial: float, final: float, rec_ll: tuple[float, float]) -> dict:
    """Both protocols with every measure of the checks, of 100 images."""
    def accuracy(value: float) -> dict:
        return {"value": value, "low": value, "high": value, "standard_error": np.sqrt(value * (1 - value) / 100),
                "n": 100}
    return {protocol: {moment: {"rec_ll": likelihood} | {name: accuracy(value) for _, name, _, _ in stage.PROBES}
                       for moment, value, likelihood in zip(("initial", "final"), (initial, final), rec_ll)}
            for protocol in ("clean", "faithful")}


def test_what_a_run_that_has_learned_must_show():
    """A better likelihood, and accuracies above those of step 0 by so many standard errors of their difference."""
    wanted = sections.Evaluate(standard_errors=5.0)
    found = {one["check"]: one for one in stage.checks(from_to(0.1, 0.9, (-9.0, -5.0)), wanted)}
    assert all(one["passed"] for one in found.values()) and len(found) == 1 + len(stage.PROBES)
    likelihood = found.pop(stage.RECONSTRUCTION)
    assert (likelihood["initial"], likelihood["final"]) == (-9.0, -5.0) and likelihood["required"]
    assert [words for words, one in found.items() if one["required"]] == [
        "posterior, probe trained along", "posterior, logistic probe, with noise"]
    for words, one in found.items():
        assert (one["initial"], one["final"]) == (0.1, 0.9)
        assert one["standard_errors"] == pytest.approx(0.8 / np.hypot(0.03, 0.03))
        assert one["says"] == (f"{words} 0.100 -> 0.900 (+18.9 standard errors, 5 "
                               f"{'required' if one['required'] else 'wished'})")
    assert not any(one["passed"] for one in stage.checks(from_to(0.9, 0.1, (-5.0, -9.0)), wanted))
    little = stage.checks(from_to(0.5, 0.7, (-9.0, -5.0)), wanted)  # 2.9 standard errors
    assert [one["check"] for one in little if one["passed"]] == [stage.RECONSTRUCTION]


@pytest.mark.parametrize(("required", "require_learning", "on", "fails"), [
    (True, True, None, True), (True, False, None, False), (False, True, None, False), (True, True, "digits", False)])
def test_only_what_is_required_ends_the_stage(preset, trained, monkeypatch, required, require_learning, on, fails):
    """And only of images of the preset's own data set; the file says in any case what was missed."""
    missed = {"check": "x", "initial": 0.0, "final": 0.0, "required": required, "passed": False, "says": "x is missed"}
    monkeypatch.setattr(stage, "checks", lambda *given: [missed])
    monkeypatch.setattr(stage.baselines, "kept", lambda *given, **more: {})
    monkeypatch.setattr(stage.pictures, "write", lambda *given: None)
    threads = []
    monkeypatch.setattr(stage.torch, "set_num_threads", threads.append)
    more = [f"evaluate.require_learning={require_learning}", "evaluate.tsne_images=0", "evaluate.threads=1"]
    chosen = settings.overridden(preset, more)
    if fails:
        with pytest.raises(CheckFailed, match="digits, seed 0 has not learned: x is missed; look at"):
            stage.run(chosen, 0, trained, on=on)
    else:
        stage.run(chosen, 0, trained, on=on)
    found = json.loads((trained / "evaluate" / f"digits{'_on_digits' if on else ''}" / "0/metrics.json").read_text())
    assert found["learned"] is (not required) and found["checks"][0]["passed"] is False and threads == [1]


@pytest.mark.parametrize(("dataset", "says"), [
    (data.Dataset("colour", images(0, 3), images(5, 3)), "images of 3x14x14"),
    (data.Dataset("large", images(0, 1, 28), images(5, 1, 28)), "canvas of 20"),
    (data.Dataset("many", images(0), images(5), n_classes=12), "12 classes"),
])
def test_a_data_set_that_does_not_fit_is_refused(preset, monkeypatch, dataset, says, tmp_path):
    monkeypatch.setattr(stage, "load", lambda wanted: dataset)
    with pytest.raises(BadInput, match=says):
        stage.elsewhere(preset, dataset.name, data.Dataset("own", images(0), images(5)), tmp_path)


def test_an_unknown_source_is_refused_and_leaves_nothing(preset, trained, capsys):
    with pytest.raises(BadInput, match="did you mean 'affnist"):
        stage.run(preset, 0, trained, on="afnist")
    assert not (trained / "evaluate").exists()


@pytest.mark.parametrize("shift", [False, True])
def test_each_protocol_draws_noise_or_not(preset, shift):
    """What fits use is bit for bit what a pass of the protocol alone gives, however few images the CNN sees twice."""
    wanted = replace(preset.evaluate(), clean_shift=shift)
    model = port.ImageAutoencoder(preset.config()).eval()
    seen = []
    model.part_encoder.cnn.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    dataset = data.Dataset("drawn", images(150), images(140))
    found = stage.collect(model, dataset, wanted)
    assert seen == ([128, 22] if shift else [128, 22, 128, 22]) + [128, 12] + [128]
    assert list(found) == ["clean", "faithful"]
    for (protocol, (train, test)), sizes in zip(found.items(), ((150, 140), (128, 128))):
        noise = protocol == "faithful"
        alone = [collected.collect(model, split, 20, 128, seed, noise, whole_batches=noise,
                                   shift="original" if noise or shift else "centred")
                 for split, seed in ((dataset.train, wanted.seed + 100), (dataset.test, wanted.seed))]
        assert (len(train.labels), len(test.labels)) == sizes
        for name in ("labels", "posterior", "prior"):
            assert np.array_equal(getattr(train, name), getattr(alone[0], name)), (protocol, name)
            assert np.array_equal(getattr(test, name), getattr(alone[1], name)), (protocol, name)
    assert not np.array_equal(found["clean"][0].prior[:128], found["faithful"][0].prior)


def test_a_capsule_alone_draws_what_its_tap_says_with_q25_repaired(preset):
    config = replace(preset.config(), repairs=("Q25",))
    model = port.ImageAutoencoder(config, seed=3).eval()
    image = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    drawn = model(image, pictures=True).pictures["per_capsule"]
    assert drawn.shape == (3, 4, 1, 20, 20)
    tap = model(image, taps=True).taps["per_caps_rec/mean_per_image"]
    np.testing.assert_allclose(drawn.mean((2, 3, 4)).flatten().detach().numpy(),
                               np.asarray(tap.detach()), rtol=1e-5, atol=1e-6)
    assert (drawn[:, 0] - drawn[:, 1]).abs().max() > 1e-4  # capsules differ


@pytest.mark.parametrize("repairs", [(), ("Q25",)])
def test_how_many_capsules_are_drawn_at_once_changes_no_bit(preset, repairs, monkeypatch):
    model = port.ImageAutoencoder(replace(preset.config(), repairs=repairs), seed=3).eval()
    image = torch.rand(3, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for at_once in (1, 5, 100):
        monkeypatch.setattr("port.scae.recording.AT_ONCE", at_once)
        found.append(model(image, taps=True).taps["per_caps_rec/mean_per_image"].detach().numpy())
    assert found[0].shape == (12,)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[1], found[2])


def test_capsules_stand_in_order_of_presence():
    image, together = np.zeros((1, 1, 2, 2)), np.full((1, 1, 2, 2), 0.5)
    alone = np.arange(3).reshape(1, 3, 1, 1, 1) / 10 * np.ones((1, 3, 1, 2, 2))
    picture = pictures.capsule_rows(image, together, alone, np.array([[0.1, 0.9, 0.5]]),
                                    n_capsules=2)
    centres = picture[pictures.GAP, [pictures.GAP + i * (2 + pictures.GAP) for i in range(4)], 0]
    np.testing.assert_allclose(centres, [0.0, 0.5, 0.1, 0.2])


def test_each_place_has_the_label_of_its_image(tmp_path, monkeypatch):
    """Some images, the same ones for both kinds of presences."""
    labels, features = np.arange(9) % 4, np.arange(18.0).reshape(9, 2)
    monkeypatch.setattr(evaluate, "tsne", lambda chosen, seed: chosen)
    test = collected.Collected(labels, features, -features, None, None, 0.0, 0.0)
    shown.write_tsne(tmp_path / "tsne.csv", test, sections.Evaluate(tsne_images=5), {})
    rows = list(csv.DictReader((tmp_path / "tsne.csv").read_text().splitlines()))
    assert [row["presence"] for row in rows] == ["posterior"] * 5 + ["prior"] * 5
    for row in rows:
        example, sign = int(row["example"]), 1 if row["presence"] == "posterior" else -1
        assert int(row["label"]) == labels[example]
        assert [float(row["x"]), float(row["y"])] == list(sign * features[example])


def test_the_table_on_the_terminal(capsys):
    """Step 0, the end and its interval; what was missed is named."""
    def moments(first: float, last: float) -> dict:
        return {moment: {"test_images": 9, "posterior_kmeans": {
            "value": value, "low": value - 0.1, "high": value + 0.1}}
                for moment, value in (("initial", first), ("final", last))}
    checks = [{"passed": True, "required": True, "says": "x"}, {"passed": False, "required": False, "says": "y"}]
    shown.say({"preset": "digits", "seed": 3, "protocols": {"clean": moments(0.1, 0.8), "faithful": moments(0.2, 0.6)},
               "baseline": {"centred": {"fitted_on": 5, "logistic": {"value": 0.25}}}, "checks": checks})
    assert capsys.readouterr().out.splitlines() == [
        "evaluate: digits, seed 3, accuracy at step 0 -> end [interval]; clean protocol: 9 test images, faithful "
        "protocol: 9 test images",
        "  posterior_kmeans     clean 0.100 -> 0.800 [0.700, 0.900]  faithful 0.200 -> 0.600 [0.500, 0.700]",
        "  raw pixels, centred: logistic 0.250", "  1 of 2 checks passed; below: y"]


def test_tsne_is_seeded_and_keeps_groups_together():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = (10 * np.eye(3)[labels] + rng.normal(size=(60, 3))).astype(np.float32)
    places = evaluate.tsne(features, seed=1)
    np.testing.assert_array_equal(places, evaluate.tsne(features, seed=1))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(60, np.inf))
    assert np.mean(labels[distance.argmin(1)] == labels) > 0.95
