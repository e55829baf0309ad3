"""CapsNet and matrix capsules as presets: configurations, data forms, training, resume."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests.harness import runs
from parity_tests.tests.evaluation.tiny_classifiers import DIGITS, PARAMS, TINY, generated, preset, tiny_model
from pipelines import cli, families, train
from pipelines.support import settings
from pipelines.support.values import load_params
from pipelines.training import numbered
from port.core import constants
from port.data import augment
from port.data import dataset as data
from port.em import losses as em_losses
from port.training import loop, resume, schedule

CLASSIFIERS = [name for name, given in load_params(PARAMS)["presets"].items()
               if given["model"].get("model") in families.BENCHES]


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
    (("bench", "--model", "em", "--json", str(PARAMS / "x.json")), "is a file, where a folder should stand"),
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
