"""CapsNet and matrix capsules as presets: configurations, data forms, training, resume, evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests import goldens
from parity_tests.harness import runs
from pipelines import (
    aggregate,
    capsnet_dimensions,
    capsnet_reconstruction,
    cli,
    evaluate,
    families,
    train,
)
from pipelines.results import table as results_table
from pipelines.support import sections, settings
from pipelines.support.values import BadInput, load_params
from pipelines.training import numbered
from port import families as models
from port.core import constants
from port.data import augment
from port.data import dataset as data
from port.em import losses as em_losses
from port.evaluation import classes as evaluate_classes
from port.training import loop, resume, schedule

PARAMS = goldens.REPOSITORY / "params.yaml"
DIGITS = ["prepare.source=digits", "prepare.options={enlarge: 16, test_share: 0.25, split_seed: 0}",
          "train.batch_size=8", "train.steps=6", "train.log_every=3", "train.held_out_every=3",
          "train.held_out_images=40", "train.checkpoint_every=2", "train.checkpoint_seconds=0",
          "evaluate.require_learning=false",
          "evaluate.bootstrap_draws=50", "evaluate.n_pictures=4", "train.device=cpu", "train.threads=1",
          "evaluate.device=cpu", "evaluate.threads=1"]
TINY = {
    "capsnet_mnist": [*DIGITS, "model.canvas=16", "model.kernel=5", "model.conv1_channels=4",
                      "model.primary_types=2", "model.primary_atoms=3", "model.class_atoms=4",
                      "model.decoder=[6]"],
    "em_mnist": [*DIGITS, "model.canvas=18", "model.channels=4", "model.types=[2, 3, 3]"]}
CLASSIFIERS = [name for name, given in load_params(PARAMS)["presets"].items()
               if given["model"].get("model") in families.BENCHES]


def preset(name: str, *more: str) -> settings.Preset:
    return settings.load_preset(name, [*TINY[name], *more], PARAMS)


# ----------------------------------------------------------------------------------- configurations

@pytest.mark.parametrize("name", CLASSIFIERS)
def test_presets(name: str) -> None:
    """Each builds, trains with TensorFlow's Adam and no noise, and survives JSON."""
    chosen = settings.load_preset(name, path=PARAMS)
    config = chosen.config()
    wanted, _ = chosen.train(0)
    assert wanted.optimizer == "tf-adam" and not wanted.noise
    assert port.config.from_arguments(json.loads(config.to_json())) == config
    assert port.config.from_flat(port.config.to_flat(config)) == config
    chosen.evaluate()
    if name in ("capsnet_mnist", "capsnet_mnist_official"):  # as published, as recorded
        found = sum(p.numel() for p in port.build(config).parameters())
        assert found == {"capsnet_mnist": 8_215_568, "capsnet_mnist_official": 8_215_728}[name]


@pytest.mark.parametrize(("flat", "says"), [
    ({"model": "capsnet", "iteratons": 3}, "did you mean 'iterations'"),
    ({"model": "capsnet", "program": "offical"}, "did you mean 'official'"),
    ({"model": "capsnet", "iterations": 9}, "iterations: 9 is not between 1 and 5"),
    ({"model": "capsnet", "routing.iterations": 2}, "unknown key 'routing.iterations'"),
    ({"model": "em", "canvas": 6}, "canvas: 6 pixels are too few"),
    ({"model": "em", "types": "many"}, "types must be of type tuple"),
    ({"model": "em", "routing": 3}, "routing: expected keys and values"),
    ({"model": "em", "margin": "linea"}, "margin must be one of"),
    ({"model": "em", "strides": [0, 1]}, "strides must be at least 1, not 0"),
    ({"model": "em", "types": [4, 0, 6]}, "types must be at least 1, not 0"),
    ({"model": "em", "routing.mass_epsilon": -1.0}, "mass_epsilon must be at least 0, not -1.0"),
    ({"model": "em", "final_lambda": float("nan")}, "final_lambda must be a finite number, not nan"),
    ({"model": "em", "momentum": 1.0}, "momentum must be below 1"),
    ({"model": "capsnet", "primary_stride": 0}, "primary_stride: 0 is not at least 1"),
    ({"model": "capsnet", "kernel": 0}, "kernel: 0 is not at least 1"),
    ({"model": "capsnet", "decoder": [8, 0]}, "a layer's width must be at least 1"),
    ({"model": "capsnet", "squash_epsilon": -1.0}, "squash_epsilon: -1.0 is not a number from 0"),
    ({"model": "capsnett"}, "did you mean 'capsnet'")])
def test_a_wrong_setting_is_one_message(flat: dict, says: str) -> None:
    with pytest.raises(port.ConfigError, match=says):
        port.config.from_flat(flat)


def test_program_and_sections() -> None:
    """A program is a start; a plain name reaches both kinds of routing, a dotted one only its own."""
    config = port.config.from_flat({"model": "em", "program": "official", "iterations": 2,
                                    "class_routing.variance_floor": 0.25})
    assert (config.network.routing.iterations, config.network.class_routing.iterations) == (2, 2)
    assert (config.network.routing.variance_floor, config.network.class_routing.variance_floor) == (
        5e-4, 0.25)
    assert config.network.routing.betas == "official"
    assert port.config.from_flat({"model": "capsnet", "program": "xg"}).settings.squash_epsilon == 1e-8


@pytest.mark.parametrize(("words", "found"), [
    (("digits", "capsnet", None), "capsnet_mnist"), (("digits", "em", "smallnorb"), "em_smallnorb"),
    (("usps", None, None), "usps")])
def test_model_and_dataset_name_a_preset(words: tuple, found: str) -> None:
    assert families.preset_of(*words) == found
    assert found in load_params(PARAMS)["presets"]


@pytest.mark.parametrize(("words", "says"), [
    (("train", "--model", "capsnt"), "did you mean 'capsnet'"),
    (("train", "--model", "em", "--dataset", "svhn"), "unknown data source 'svhn'"),
    (("evaluate", "--model", "em", "--preset", "usps"), "give one of them"),
    (("evaluate", "--dataset", "svhn"), "--dataset goes with --model"),
    (("train", "--preset", "capsnet_mnist", "--set", "train.amp=bf16"), "run in float32 only"),
    (("bench", "--model", "scae"), "unknown model 'scae'"),
    (("bench", "--model", "em", "--threads", "-3"), "--threads: -3 is below 0"),
    (("bench", "--model", "em", "--json", str(PARAMS / "x.json")), "cannot be written: File exists"),
    (("train", "--preset", "capsnet_mnist", "--set", "train.start_from=capsnet_mnist_small_plain"),
     "no model in")])
def test_bad_input_is_one_line(words: tuple[str, ...], says: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCAE_DATA", str(tmp_path))
    files = ["--params", str(PARAMS)] + ([] if words[0] == "bench" else ["--results", str(tmp_path)])
    for change in DIGITS if "--preset" in words and words[0] == "train" else ():
        files += ["--set", change]
    if "start_from" in words[-1]:
        files += ["--set", "model.canvas=28", "--set", "model.conv1_channels=2"]
    assert cli.main([*words, *files]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_resume_by_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """`--model em --resume` is the latest numbered run of the model's preset; without one it says so."""
    monkeypatch.chdir(tmp_path)
    numbered.begin(preset("em_mnist"), "em_mnist")
    asked = []
    monkeypatch.setattr(train, "run", lambda chosen, seed, place, *_, **__: asked.append((chosen, place)))
    assert cli.main(["train", "--model", "em", "--resume"]) == 0
    (chosen, place), = asked
    assert chosen.as_params() == preset("em_mnist").as_params()
    assert place == numbered.RUNS / "em_mnist" / "1"
    assert cli.main(["train", "--model", "capsnet", "--resume"]) == 2
    assert "no run in runs/capsnet_mnist; start one without --resume" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- data

def test_translate_moves_by_at_most_two_pixels() -> None:
    """Every shift occurs, all equally often; what leaves the canvas is lost."""
    image = torch.zeros(3000, 1, 9, 9)
    image[:, :, 4, 4] = 1.0
    moved = augment.translate(image, 2, torch.Generator().manual_seed(0))
    counts = moved.sum((0, 1))
    assert counts.sum() == 3000 and (counts[2:7, 2:7] > 60).all() and counts[2:7, 2:7].sum() == 3000
    corner = torch.zeros(500, 1, 9, 9)
    corner[:, :, 0, 0] = 1.0
    assert 0 < augment.translate(corner, 2, torch.Generator().manual_seed(0)).sum() < 500


def test_arrangements() -> None:
    """Without draws images lie in the middle, or their middle is taken."""
    images = torch.arange(2 * 12 * 12, dtype=torch.uint8).reshape(2, 1, 12, 12)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(data.arrange(images, 8, "crop", None) * 255, images[..., 2:10, 2:10].float())
    part = data.arrange(images, 8, "crop", generator)[1] * 255
    pieces = images[1].float().unfold(1, 8, 1).unfold(2, 8, 1).flatten(0, 2)
    assert (pieces - part).abs().amax((1, 2)).min() < 1e-4
    assert torch.equal(data.arrange(images, 12, "translate", None), images / 255)
    assert torch.equal(data.arrange(images, 16, "translate", None), data.place(images, 16, None))
    with pytest.raises(data.DataError, match="have no part of 14x14"):
        data.arrange(images, 14, "crop", generator)


def test_batches_continue_with_the_same_draws() -> None:
    """Translation and jitter come from the generator that a checkpoint keeps."""
    split = data.Split(torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8), torch.arange(20) % 10)
    batches, again = (data.Batches(split, 4, 8, 3, shift="translate", max_shift=1, jitter=True)
                      for _ in range(2))
    next(batches)
    again.load_state_dict(batches.state_dict())
    for one, other in zip(next(batches), next(again)):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------ training

def test_rate_has_a_floor() -> None:
    wanted = schedule.Settings(lr=1e-3, lr_schedule="exponential", lr_decay=0.1, lr_decay_steps=1,
                               lr_floor=1e-6)
    assert schedule.learning_rate(wanted, 2) == pytest.approx(1e-5)
    assert schedule.learning_rate(wanted, 9) == 1e-6


def test_the_margin_follows_the_step() -> None:
    """The spread loss of the update after n updates has the margin of n, in either dtype."""
    config = port.config.from_flat({"model": "em", "canvas": 18, "channels": 3, "types": [2, 2, 2],
                                    "decay": 0.0, "margin": "linear", "margin_ramp": 10})
    for dtype in (torch.float32, torch.float64):
        model = port.build(config, 0).to(dtype)
        image, label = torch.rand(3, 1, 18, 18, dtype=dtype), torch.tensor([0, 1, 2])
        for step in (0, 5, 50):
            model.at_step(step)
            found = model(image, label)
            expected = em_losses.spread_loss(found.evidence, label,
                                             em_losses.spread_margin(step, "linear", 10))
            assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)


def test_constants_stay_where_a_captured_step_finds_them() -> None:
    """Off the CPU the same tensor each time, made anew for other values, dtype or shape."""
    array, meta = np.arange(6.0), torch.device("meta")
    kept = constants.constant(array, torch.float32, meta)
    assert constants.constant(array.copy(), torch.float32, meta) is kept
    for other, dtype in ((array + 1, torch.float32), (array, torch.float64), (array[None], torch.float32)):
        assert constants.constant(other, dtype, meta) is not kept
    assert constants.constant(array, torch.float32, torch.device("cpu")).tolist() == array.tolist()


def generated() -> data.Dataset:
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    split = data.Split(images, torch.arange(24) % 10)
    return data.Dataset("generated", split, split)


def tiny_model(name: str) -> torch.nn.Module:
    return port.build(preset(name).config(), 0)


@pytest.mark.parametrize("name", TINY)
def test_a_stopped_run_continues_bit_by_bit(name: str, tmp_path: Path) -> None:
    """Weights, both Adam slots and the margin's step."""
    wanted, _ = preset(name, "train.lr=1.0e-2").train(0)
    whole = tiny_model(name)
    done = loop.train(whole, generated(), wanted, tmp_path / "whole")
    half = schedule.Settings(**{**vars(wanted), "steps": 4})
    loop.train(tiny_model(name), generated(), half, tmp_path / "stopped")
    again = tiny_model(name)
    continued = loop.train(again, generated(), wanted, tmp_path / "stopped")
    assert continued.resumed_at == 4
    assert not runs.differing(again.state_dict(), whole.state_dict())
    assert not runs.differing(resume.read_slots(again, continued.optimizer),
                              resume.read_slots(whole, done.optimizer))


@pytest.mark.parametrize("name", TINY)
def test_what_is_not_finite_is_named(name: str) -> None:
    """A weight that is NaN shows in the first tap that has it."""
    model = tiny_model(name)
    layer = model.classes if name.startswith("capsnet") else model.class_capsules
    with torch.no_grad():
        layer.weight.view(-1)[0] = float("nan")
    wanted, _ = preset(name).train(0)
    first = "capsules" if name.startswith("capsnet") else "classes/pose"
    with pytest.raises(resume.NonFiniteLoss, match=f"first non-finite tap: {first}"):
        loop.train(model, generated(), wanted)


def test_frozen_capsules_stay(tmp_path: Path) -> None:
    """With `reconstruction: frozen` only the decoder moves."""
    chosen = preset("capsnet_mnist", "model.reconstruction=frozen")
    model = port.build(chosen.config(), 0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loop.train(model, generated(), chosen.train(0)[0])
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith("decoder"), key


# -------------------------------------------------------------------------------------------- stages

@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both tiny presets trained and evaluated."""
    folder = tmp_path_factory.mktemp("classify")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in TINY:
            train.run(preset(name), 0, folder)
            evaluate.run(preset(name), 0, folder)
    return folder


def read(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("name", TINY)
def test_what_the_stages_leave(name: str, results: Path) -> None:
    """Accuracy with its interval, the confusion matrix, pictures, a model that loads."""
    measured = read(results / "evaluate" / name / "0" / "metrics.json")
    final = measured["protocols"]["clean"]["final"]
    assert measured["steps"] == 6 and final["test_images"] == 450
    assert 0 <= final["accuracy"]["low"] <= final["accuracy"]["value"] <= final["accuracy"]["high"]
    rows = (results / "evaluate" / name / "0" / "confusion.csv").read_text().splitlines()[1:]
    table = {tuple(row.split(",")[1:3]): int(row.split(",")[3]) for row in rows}
    assert sum(table.values()) == 450
    assert sum(n for (actual, given), n in table.items() if actual == given) / 450 == pytest.approx(
        final["accuracy"]["value"])
    pictures = {path.stem for path in (results / "evaluate" / name / "0" / "pictures").glob("*.png")}
    assert pictures == {"mistakes"} | ({"decoded"} if name.startswith("capsnet") else set())
    model = port.load(results / "train" / name / "0")
    assert isinstance(model, models.FAMILIES[name.split("_")[0]].model)
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    assert model(model.preprocessing(images)).evidence.shape == (2, 10)
    history = (results / "train" / name / "0" / "history.csv").read_text().splitlines()
    assert "held_out_accuracy" in history[0] and len(history) == 3


def test_on_another_source(results: Path, monkeypatch, capsys) -> None:
    """Its test images, the same model; images that do not fit are refused."""
    monkeypatch.chdir(results)
    images = torch.randint(0, 256, (30, 1, 18, 18), dtype=torch.uint8)
    other = data.Dataset("affnist_like", data.Split(images[:0], torch.arange(0)),
                         data.Split(images, torch.arange(30) % 10))
    monkeypatch.setattr(evaluate, "load", lambda wanted: other)
    folder = evaluate.run(preset("em_mnist"), 0, results, on="affnist")
    measured = read(folder / "metrics.json")
    assert folder.parent.name == "em_mnist_on_affnist" and measured["data"] == "affnist_like"
    assert measured["trained_on"] == "digits"
    assert measured["protocols"]["clean"]["final"]["test_images"] == 30
    with pytest.raises(BadInput, match="affnist has images of 1x18x18, the model of preset "
                                                "capsnet_mnist takes 1 channel"):
        evaluate.run(preset("capsnet_mnist"), 0, results, on="affnist")


@pytest.mark.parametrize("name", TINY)
def test_aggregate_and_table(name: str, results: Path) -> None:
    """One seed of another length and data has no verdict; the README's table has its row."""
    aggregate.run(preset(name), results)
    row = read(results / "aggregate" / name / "metrics.json")["protocols"]["clean"]["accuracy"]
    assert row["paper"] is None and row["verdict"] == "none"  # digits, not MNIST
    curves = (results / "aggregate" / name / "curves.csv").read_text().splitlines()
    assert curves[0] == "seed,step,loss,held_out_loss,accuracy,held_out_accuracy"
    line = next(line for line in results_table.markdown(results).splitlines() if f"`{name}`" in line)
    assert "test accuracy" in line and "1 seed, 6 steps" in line and line.count("|") == 8


def test_the_table_without_results(tmp_path: Path) -> None:
    """The papers' figures, and "not yet run"."""
    lines = results_table.markdown(tmp_path)
    for name, figure in (("capsnet_mnist", "99.75"), ("em_mnist", "99.56")):
        assert (f"| MNIST, `{name}` | test accuracy | {figure} % | not yet run | not yet run | – | – |"
                in lines)


def test_accuracy_is_counted_right() -> None:
    """Against the network itself, image by image."""
    model, split = tiny_model("capsnet_mnist"), generated().test
    seen = evaluate_classes.collect(model, split, 7)
    with torch.no_grad():
        alone = [int(model(split.images[i:i + 1] / 255).evidence.argmax()) for i in range(len(split))]
    assert seen.predicted.tolist() == alone
    error = sum(float((model(x[None] / 255).reconstruction - x / 255).square().sum().detach())
                for x in split.images)
    assert seen.error == pytest.approx(error / len(split), rel=1e-5)


def test_dimensions(results: Path) -> None:
    """One number a row from -l·δ to +l·δ; the middle column is the plain reconstruction."""
    model = port.load(results / "train" / "capsnet_mnist" / "0")
    image = torch.rand(1, 1, 16, 16)
    drawn = capsnet_dimensions.perturbed(model, image, 3, 0.1, 2)
    assert drawn.shape == (4, 5, 1, 16, 16)
    with torch.no_grad():
        capsules, keep = model.encode(image), torch.tensor([3])
        for atom, column in ((0, 0), (3, 4), (2, 2)):
            changed = capsules.clone()
            changed[0, 3, atom] += 0.1 * (column - 2)
            torch.testing.assert_close(drawn[atom, column], model.decode(changed, keep)[0])
    folder = capsnet_dimensions.run(preset("capsnet_mnist"), 0, sections.CapsnetDimensions(), results)
    measured = read(folder / "metrics.json")
    shown = {int(path.stem.split("_")[1]) for path in (folder / "pictures").glob("class_*.png")}
    assert shown == set(range(10)) - set(measured["never_right"]) and shown
    assert all(len(row) == 4 for row in measured["mean_squared_change"].values())


def test_reconstruction_side_by_side(results: Path, monkeypatch) -> None:
    """The frozen run starts from the trained weights, keeps its capsules and is compared."""
    monkeypatch.chdir(results)
    frozen = preset("capsnet_mnist", "model.reconstruction=frozen", "train.start_from=capsnet_mnist")
    frozen = settings.Preset("frozen", frozen.sections, frozen.model)
    train.run(frozen, 0, results)
    one, other = (port.load(results / "train" / name / "0").state_dict()
                  for name in ("capsnet_mnist", "frozen"))
    moved = {key for key in one if not torch.equal(one[key], other[key])}
    assert moved and all(key.startswith("decoder") for key in moved), moved
    assert read(results / "train/frozen/0/config.json")["train"]["start_from"] == "capsnet_mnist"
    folder = capsnet_reconstruction.run(preset("capsnet_mnist"), frozen, 0,
                                        sections.CapsnetReconstruction(n_images=5), results)
    measured = read(folder / "metrics.json")
    seen = measured["models"]
    assert seen["frozen"]["accuracy"] == seen["capsnet_mnist"]["accuracy"]
    assert seen["frozen"]["squared_error"] != seen["capsnet_mnist"]["squared_error"]
    dataset = train.load(preset("capsnet_mnist"), results, loop.ALONE)
    mean = dataset.train.images.double().mean(0) / 255
    expected = (dataset.test.images / 255 - mean).square().sum((1, 2, 3)).mean()
    assert measured["mean_image_squared_error"] == pytest.approx(float(expected), rel=1e-5)
    assert (folder / "reconstructions.png").stat().st_size > 500


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "least"), [("capsnet_mnist_small", 300, 0.9),
                                                      ("em_mnist_small", 800, 0.75)])
def test_the_cpu_presets_learn(name: str, steps: int, least: float, tier: str) -> None:
    """On scikit-learn's digits, which are always there, in a tenth to a quarter of their length."""
    if tier != "deep":
        pytest.skip("deep tier: trains for minutes")
    chosen = settings.load_preset(name, ["prepare.source=digits", f"train.steps={steps}",
                                         "train.held_out_every=0"], PARAMS)
    dataset = data.Dataset(*vars(_digits()).values())
    model = port.build(chosen.config(), 0)
    loop.train(model, dataset, chosen.train(0)[0])
    found = evaluate_classes.collect(model, dataset.test, 150)
    assert np.mean(found.correct) >= least, np.mean(found.correct)


def _digits() -> data.Dataset:
    from port.data import sources
    return sources.load("digits", enlarge=28)
