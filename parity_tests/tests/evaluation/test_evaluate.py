"""Evaluation against the recordings of the original and against brute force; data and training.

`bipartite_match`, `eval_segmentation` and `cluster_classify` have no TensorFlow side: the original
wrote them in NumPy, so the recordings and a search over all permutations are the two witnesses.
Below them what else the pipelines rest on: batches, resume bit by bit, refusals of bad input.
"""

from __future__ import annotations

import itertools
import json
import os
import signal

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

import port
from parity_tests import goldens
from pipelines import cli, report
from pipelines import evaluate as evaluate_stage
from pipelines import train as train_stage
from pipelines.support import sections, settings
from pipelines.support.values import CheckFailed, load_params
from port.data import dataset as data
from port.data import dataset_file, sources
from port.evaluation import clustering as evaluate
from port.training import loop as train
from port.training import resume

pytestmark = pytest.mark.usefixtures("in_the_repository")

RECORDS = [record for record in goldens.records()
           if record.ok and record.entry.get("group") == "eval"]


def of(*functions: str) -> list:
    found = [record for record in RECORDS if record.function in functions]
    return [pytest.param(record, id=record.key) for record in found]


def test_recordings_are_there():
    assert {record.function for record in RECORDS} == {
        "bipartite_match", "bipartite_match_auto", "eval_segmentation", "cluster_classify"}


@pytest.mark.golden
@pytest.mark.parametrize("record", of("bipartite_match", "bipartite_match_auto"))
def test_bipartite_match_equals_the_recording(record):
    arrays = record.arrays()
    given, expected = arrays["in"], arrays["out"]
    match = evaluate.bipartite_match(given["pred"], given["gt"],
                                     n_classes=record.entry["attrs"]["n_classes"],
                                     presence=given.get("presence"))
    np.testing.assert_array_equal(match.row, expected["row"])
    np.testing.assert_array_equal(match.col, expected["col"])
    assert match.num_correct == expected["num_correct"]
    assert match.acc == expected["acc"]


@pytest.mark.golden
@pytest.mark.parametrize("record", of("eval_segmentation"))
def test_eval_segmentation_equals_the_recording(record):
    arrays = record.arrays()
    given = arrays["in"]
    accuracy = evaluate.eval_segmentation(given["pred"], given["gt"], given["presence"])
    assert np.float32(accuracy) == arrays["out"]["acc"]


@pytest.mark.golden
@pytest.mark.parametrize("record", of("cluster_classify"))
def test_cluster_classify_equals_the_recording(record):
    arrays = record.arrays()
    given, expected = arrays["in"], arrays["out"]
    kmeans = KMeans(10, max_iter=1000, n_init=1, init=given["init"])
    kmeans.fit(np.roll(given["features"], 1, axis=0) + 1)  # must not matter: it is refitted
    result = evaluate.cluster_classify(given["features"], given["gt"], 10, kmeans)
    np.testing.assert_array_equal(kmeans.predict(given["features"]), expected["pred"])
    np.testing.assert_allclose(kmeans.cluster_centers_, expected["centers"], rtol=0, atol=1e-5)
    assert np.float32(result.acc) == expected["acc"]
    assert np.isclose(np.mean(result.prediction == given["gt"]), result.acc)


@pytest.mark.parametrize("seed", range(20))
def test_bipartite_match_finds_the_best_permutation(seed):
    rng = np.random.default_rng(seed)
    n_classes, n = int(rng.integers(2, 6)), int(rng.integers(1, 40))
    pred, gt = rng.integers(0, n_classes, (2, n))
    best = max(np.sum(np.asarray(order)[pred] == gt)
               for order in itertools.permutations(range(n_classes)))
    match = evaluate.bipartite_match(pred, gt, n_classes)
    assert (match.num_correct, match.acc) == (best, best / n)
    classes = evaluate.class_of_cluster(match, n_classes)
    assert np.sum(classes[pred] == gt) == best


def test_presence_removes_examples_but_not_from_the_denominator():
    gt = np.array([0, 0, 1, 1])
    match = evaluate.bipartite_match(1 - gt, gt, 2, presence=np.array([1.0, 0.0, 1.0, 1.0]))
    assert (match.num_correct, match.acc) == (3, 0.75)


def test_more_clusters_than_classes_stay_unmatched():
    match = evaluate.bipartite_match(np.array([0, 1, 2, 2]), np.array([5, 5, 7, 7]))
    assert (len(match.row), match.num_correct) == (2, 3)


def test_clean_protocol_does_not_look_at_the_test_split():
    """Test rows far from their own class get the class of the training cluster they lie in."""
    centres = np.array([[0.0, 0.0], [10.0, 0.0]])
    labels = np.arange(40) % 2
    train = centres[labels] + np.random.default_rng(0).normal(size=(40, 2))
    clean = evaluate.cluster_transfer(train, labels, centres[1 - labels], labels, 2, seed=0)
    assert clean.acc == 0.0
    refitted = evaluate.cluster_classify(centres[1 - labels], labels, 2,
                                         evaluate.new_kmeans(2, seed=0))
    assert refitted.acc == 1.0


def test_logistic_probe_separates_what_is_separable():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    features = np.eye(3, dtype=np.float32)[labels] * 1e-6 + 0.5
    np.testing.assert_array_equal(
        evaluate.logistic_probe(features, labels, features), labels)


def test_bootstrap_interval_is_seeded_and_covers():
    correct = np.random.default_rng(1).random(400) < 0.7
    first, again, other = (evaluate.bootstrap_interval(correct, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first.low < first.value < first.high
    assert np.isclose(first.high - first.low, 2 * 1.96 * first.standard_error, rtol=0.15)


def test_exceeds_counts_standard_errors():
    low, high = (evaluate.bootstrap_interval(np.arange(100) < right) for right in (20, 60))
    assert np.isclose(evaluate.exceeds(high, low), 0.4 / np.hypot(0.04, np.sqrt(0.24 / 100)))
    none = evaluate.bootstrap_interval(np.zeros(100))
    assert evaluate.exceeds(none, none) == 0


# --------------------------------------------------------------------------------- data and batches

TINY = {"canvas_size": 20, "n_part_caps": 3, "n_part_special_features": 2, "n_obj_caps": 4,
        "n_obj_caps_params": 4, "template_size": 5, "colorize_templates": True,
        "use_alpha_channel": True, "output_channels": [4, 4, 4], "strides": [2, 2, 1],
        "n_output_dims": 8, "n_hiddens": 8, "n_dims": 8}


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits", enlarge=14)


def test_digits_are_split_by_class_and_read_back_equal(digits, tmp_path):
    assert len(digits.train) + len(digits.test) == 1797
    shares = torch.bincount(digits.test.labels) / (
        torch.bincount(digits.train.labels) + torch.bincount(digits.test.labels))
    assert torch.all((shares - 0.25).abs() < 0.01)
    dataset_file.save(digits, tmp_path / "data.npz")
    again = dataset_file.read(tmp_path / "data.npz")
    assert again.name == "digits"
    assert torch.equal(again.train.images, digits.train.images)
    assert torch.equal(again.test.labels, digits.test.labels)


def test_each_epoch_holds_every_example_once(digits):
    batches = data.Batches(digits.train, 100, 20, seed=0)
    n = len(digits.train)
    labels = torch.cat([next(batches)[1] for _ in range(2 * n // 100 + 1)])
    for epoch in range(2):
        assert torch.equal(torch.bincount(labels[epoch * n:(epoch + 1) * n]),
                           torch.bincount(digits.train.labels))
    stored = data.Batches(digits.train, n, 20, seed=0, shuffle=False)
    assert torch.equal(next(stored)[1], digits.train.labels)


def test_images_are_moved_whole_and_by_the_offsets_of_the_original(digits):
    images = digits.train.images[:400]
    placed = data.place(images, 20, torch.Generator().manual_seed(0))
    assert placed.shape == (400, 1, 20, 20)
    torch.testing.assert_close(placed.sum((1, 2, 3)), images.float().sum((1, 2, 3)) / 255)
    white = torch.full((20000, 1, 14, 14), 255, dtype=torch.uint8)
    top = data.place(white, 20, torch.Generator().manual_seed(1)).amax((1, 3)).argmax(1)
    counts = torch.bincount(top, minlength=7) / len(top)
    expected = torch.tensor([1, 2, 2, 2, 2, 2, 2]) / 13  # ceil((6 - k) / 2) for k in -6..6
    torch.testing.assert_close(counts, expected, rtol=0, atol=0.012)
    middle = data.place(white[:1], 20, None)[0, 0]
    assert middle[3:17, 3:17].min() == 1 and middle.sum() == 14 * 14


@pytest.mark.parametrize("source", ["mnist", "usps", "svhn", "svhn_head", "cifar10",
                                    "affnist_like"])
def test_missing_data_says_what_to_put_where(source, tmp_path):
    with pytest.raises(data.DataError, match="put .*" + str(tmp_path)):
        sources.load(source, tmp_path, download=False)


def test_too_small_a_canvas_is_refused(digits):
    with pytest.raises(data.DataError, match="canvas_size to at least 14"):
        data.place(digits.train.images[:1], 12, None)


# ------------------------------------------------------------------------------------------ training

def trained(dataset, folder=None, stop_at=None, **changed):
    """A short run; the weights and the history without times, or None if it was stopped."""
    torch.manual_seed(0)
    model = port.ImageAutoencoder(port.config.from_flat(TINY), seed=1)
    wanted = train.Settings(**{"batch_size": 90, "lr": 1e-3, "steps": 20, "log_every": 4,
                               "held_out_every": 8, "held_out_images": 64, "checkpoint_every": 7,
                               "seed": 3} | changed)

    def on_step(step):
        if step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
    try:
        run = train.train(model, dataset, wanted, folder, on_step)
    except train.Interrupted:
        return None
    return model.state_dict(), [{k: v for k, v in row.items() if k != "seconds"}
                                for row in run.history]


def test_a_stopped_run_continues_bit_by_bit(digits, tmp_path, tier):
    if tier == "smoke":
        pytest.skip("smoke tier: no training")
    whole, rows = trained(digits)
    assert trained(digits, tmp_path, stop_at=10) is None
    assert [path.name for path in resume.checkpoints(tmp_path)] == ["step-00000007", "step-00000010"]
    again, again_rows = trained(digits, tmp_path)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert rows == again_rows


def test_checkpoints_are_split_below_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "FILE_LIMIT", 100)
    tensors = {str(i): torch.full((10,), float(i)) for i in range(7)}
    resume.write_tensors(tmp_path, "model", tensors)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 4
    read = resume.read_tensors(tmp_path, "model", "cpu")
    assert list(read) == list(tensors)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_non_finite_loss_stops_before_anything_is_saved(digits, tmp_path):
    model = port.ImageAutoencoder(port.config.from_flat(TINY), seed=1)
    with torch.no_grad():
        model.part_decoder.templates.fill_(float("nan"))
    wanted = train.Settings(batch_size=10, steps=4, log_every=2, checkpoint_every=1)
    with pytest.raises(resume.NonFiniteLoss, match="rec_ll"):
        train.train(model, digits, wanted, tmp_path)
    assert not resume.checkpoints(tmp_path)


# ------------------------------------------------------------------------------- presets and commands

@pytest.mark.parametrize(
    "preset", list(load_params(goldens.REPOSITORY / "params.yaml")["presets"]))
def test_presets_build(preset):
    chosen = settings.load_preset(preset)
    assert chosen.config().kind == "constellation" or chosen.config().canvas >= 20
    assert chosen.train(seed=0)[0].steps > 0
    chosen.prepare(), chosen.evaluate()


def test_the_mnist_preset_is_run_mnist_sh():
    """3,540,823 weights, as in the original's checkpoint, less nothing."""
    model = port.ImageAutoencoder(settings.load_preset("mnist").config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 3_540_823
    wanted, _ = settings.load_preset("mnist").train(seed=0)
    assert (wanted.batch_size, wanted.lr, wanted.steps) == (128, 3e-5, 300_000)


@pytest.mark.parametrize(("arguments", "says"), [
    ("train --preset mnits", "did you mean 'mnist'"),
    ("train --set train.stps=3", "did you mean 'steps'"),
    ("train --set model.n_part_cap=3", "did you mean 'n_part_caps'"),
    ("train --set model.template_nonlin=sigmod", "did you mean 'sigmoid'"),
    ("train --set prepare.source=digit", "did you mean 'digits'"),
    ("train --set train.lr=-1", "lr must be above 0"),
    ("train --set train.lr=high", "lr must be of type float"),
    ("train --set lr", "section.key=value"),
    ("train --set model.canvas_size=12", "canvas"),
    ("train --device gpu", "use auto, cpu or cuda"),
    ("train --params nowhere.yaml", "cannot read nowhere.yaml"),
    ("train --seed one", "--seed"),
    ("trian", "train"),
    ("evaluate --results nowhere", "no model in"),
    ("reconstruct --model nowhere", "no model in nowhere"),
    ("", "give a command"),
])
def test_bad_input_is_one_line_and_exit_code_2(arguments, says, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("SCAE_DATA", str(tmp_path))
    words = arguments.split()
    if words[:1] == ["train"] and "--results" not in words:
        words += ["--results", str(tmp_path)]
    assert cli.main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and says in lines[0]


def test_a_tiny_preset_runs_from_data_to_report(tmp_path, monkeypatch, tier):
    if tier == "smoke":
        pytest.skip("smoke tier: the pipeline's own stages")
    monkeypatch.setattr(train_stage, "RUNS", tmp_path / "runs")
    chosen = settings.load_preset("digits", [
        *(f"model.{key}={value}" for key, value in TINY.items()), "train.steps=4",
        "train.log_every=2", "train.held_out_every=4"])
    folder = train_stage.run(chosen, 0, tmp_path)
    assert (folder / "model" / "optimizer.safetensors").exists()
    assert port.load(folder / "model").config == chosen.config()
    assert not list((tmp_path / "runs").iterdir())
    with pytest.raises(CheckFailed, match="has not learned"):  # in four steps
        evaluate_stage.run(chosen, 0, tmp_path)
    measured = json.loads((tmp_path / "evaluate" / "digits" / "0" / "metrics.json").read_text())
    assert measured["protocols"]["clean"]["final"]["test_images"] == 450
    assert measured["protocols"]["faithful"]["final"]["test_images"] == 384
    page = report.run(sections.Report(), tmp_path).read_text()
    assert page.count("data:image/png") == 5 and "http" not in page.replace(
        "http://www.w3.org", "")
