"""CapsNet beyond parity: settings, the kernel without votes, each named difference, learning."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.bench import capsnet as bench_capsnet
from pipelines.bench import pieces as bench_pieces
from port.capsnet import kernel as capsnet_kernel
from port.capsnet import layers as capsnet_layers
from port.capsnet import network as capsnet
from port.capsnet import tf_names as convert_capsnet
from port.capsnet.routing import capsule_votes, dynamic_routing
from port.capsnet.settings import PRESETS, Settings, preset
from port.checkpoints import convert
from port.core import adam
from port.data import sources

TINY = {"canvas": 9, "kernel": 3, "conv1_channels": 5, "primary_types": 3, "primary_atoms": 4, "classes": 4,
        "class_atoms": 6, "decoder": (7,)}


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Six images and labels for the tiny network."""
    rng = np.random.default_rng(seed)
    return (torch.tensor(rng.uniform(size=(6, 1, 9, 9)), dtype=torch.float32),
            torch.tensor(rng.integers(0, 4, 6)))


@pytest.mark.parametrize(("changes", "message"), [
    ({"margin": "median"}, "margin: 'median' is not one of sum, mean"),
    ({"iterations": 6}, "iterations: 6 is not between 1 and 5"),
    ({"iterations": 0}, "iterations: 0 is not between 1 and 5"),
    ({"canvas": 16}, "canvas: 16 pixels are too few"),
    ({"reconstruction": "frozen", "decoder": ()}, "frozen trains the decoder alone"),
    ({"routes": 3}, "no setting 'routes'; there are canvas, channels"),
])
def test_bad_settings(changes: dict, message: str) -> None:
    """One line that names the setting, its value and what is allowed."""
    with pytest.raises(ValueError, match=message) as error:
        preset("paper", **changes)
    assert "\n" not in str(error.value)


def test_unknown_preset() -> None:
    """The presets are listed."""
    with pytest.raises(ValueError, match="preset: 'hinton' is not one of paper, official, xg"):
        preset("hinton")


def test_grid_of_the_published_network() -> None:
    """1152 primary capsules on 6 by 6 positions."""
    assert (Settings().grid, Settings().children, Settings().pixels) == (6, 1152, 784)


@pytest.mark.parametrize("block_bytes", [1, 700, 1 << 20])
def test_kernel_without_votes(block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and all gradients of routing by way of the votes, for every option and block size."""
    monkeypatch.setattr(capsnet_kernel, "BLOCK_BYTES", block_bytes)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    for iterations, leaky, gradient, biased, epsilon in itertools.product(
            (1, 2, 5), (False, True), ("all", "last"), (False, True), (0.0, 1e-2)):
        u, w, bias = normal(3, 7, 2), normal(7, 2, 20), normal(4, 5) if biased else None
        cotangent = normal(3, 4, 5).detach()
        expected = dynamic_routing(capsule_votes(u, w, 4), bias, iterations, leaky, gradient, epsilon)
        actual = capsnet_kernel.route_children(u, w, 4, bias, iterations, leaky, gradient, epsilon)
        torch.testing.assert_close(actual, expected.capsules, rtol=0, atol=1e-13)
        inputs = [u, w] + ([bias] if biased else [])
        for ours, theirs in zip(torch.autograd.grad(actual, inputs, cotangent),
                                torch.autograd.grad(expected.capsules, inputs, cotangent)):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12 * float(theirs.abs().max()))


def test_layer_and_its_way_by_the_votes() -> None:
    """`RoutingCapsules.route` gives the same parents as the layer, and coupling that sums to 1."""
    layer = capsnet_layers.RoutingCapsules(6, 4, 3, 5, preset("official"), np.random.default_rng(0))
    children = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
    routed = layer.route(children)
    torch.testing.assert_close(layer(children), routed.capsules, rtol=0, atol=1e-6)
    torch.testing.assert_close(routed.coupling.sum(2), torch.ones(2, 6), rtol=0, atol=1e-6)


# What a setting must change: the value, or only the gradient.
DIFFERENCES = [("routing_gradient", "last", "gradient"), ("leaky", True, "value"),
               ("routing_bias", True, "value"), ("primary_coupling", True, "value"),
               ("squash_epsilon", 1e-2, "value"), ("margin", "mean", "value"), ("iterations", 2, "value"),
               ("reconstruction", "frozen", "value"), ("initial", "official", "value")]


@pytest.mark.parametrize(("name", "value", "what"), DIFFERENCES, ids=[name for name, _, _ in DIFFERENCES])
def test_each_difference_counts(name: str, value: object, what: str) -> None:
    """No setting is without effect; one about gradients leaves the value alone."""
    image, label = batch()
    found = []
    for settings in (preset("paper", **TINY), preset("paper", **TINY | {name: value})):
        torch.manual_seed(0)
        model = capsnet.CapsNet(settings)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if name != "initial":  # class weights of ordinary size, and a bias that is not 0
                    parameter += 0.3 if key == "classes.bias" else 0.5 * torch.rand_like(parameter)
        loss = model(image, label).loss
        loss.backward()
        found.append((loss.item(), model.conv1.weight.grad))
    (loss, gradient), (other_loss, other_gradient) = found
    assert (loss == other_loss) == (what == "gradient")
    if other_gradient is not None:
        assert not torch.equal(gradient, other_gradient)


def test_frozen_encoder() -> None:
    """Only the decoder learns; the margin loss is still reported."""
    model = capsnet.CapsNet(preset("paper", **TINY, reconstruction="frozen"))
    result = model(*batch())
    result.loss.backward()
    assert result.loss == result.scalars["reconstruction_loss"] and "margin_loss" in result.scalars
    learns = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learns == {"decoder"}


def test_masks() -> None:
    """By label in training, by length without labels or when asked for."""
    model, (image, label) = capsnet.CapsNet(preset("paper", **TINY)), batch()
    longest = model(image).lengths.argmax(1)
    assert not torch.equal(longest, label)
    unlabelled, by_length = model(image), model(image, label, mask="length")
    assert torch.equal(unlabelled.reconstruction, by_length.reconstruction)
    assert torch.equal(unlabelled.reconstruction, model.decode(unlabelled.capsules, longest))
    assert torch.equal(model(image, label).reconstruction, model.decode(unlabelled.capsules, label))
    assert set(unlabelled.scalars) == {"reconstruction_loss"}


def test_without_decoder() -> None:
    """Classification alone."""
    result = capsnet.CapsNet(preset("paper", **TINY | {"decoder": ()}))(*batch())
    assert result.reconstruction is None and result.loss == result.scalars["margin_loss"]


@pytest.mark.parametrize("name", PRESETS)
def test_convert_round_trip(name: str) -> None:
    """Every parameter goes out under an official name and comes back bit for bit."""
    settings, table = preset(name, **TINY), convert_capsnet.MAPPING
    model, other = capsnet.CapsNet(settings, seed=1), capsnet.CapsNet(settings, seed=2)
    arrays = {original: convert.to_original(parameter.detach().numpy(), transform) for
              original, (parameter, transform) in convert.module_arrays(model, table=table).items()}
    assert ("capsule2/biases" in arrays) == settings.routing_bias
    convert.load_module(other, arrays, table=table)
    for (key, mine), theirs in zip(model.named_parameters(), other.parameters()):
        assert torch.equal(mine, theirs), key


def test_black_images_train_in_float32() -> None:
    """Zero capsules give finite gradients: ten steps on black images, no number lost."""
    model = capsnet.CapsNet(preset("paper", **TINY))
    optimizer = adam.Adam(model.parameters(), lr=1e-2)
    image, label = torch.zeros(4, 1, 9, 9), torch.arange(4)
    for _ in range(10):
        optimizer.zero_grad()
        model(image, label).loss.backward()
        optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_learns_digits(name: str, tmp_path: Path) -> None:
    """A small network of each preset sorts scikit-learn's digits: 10 % before, far above after."""
    dataset = sources.load("digits", tmp_path, download=False)
    settings = preset(name, canvas=dataset.train.images.shape[-1], conv1_channels=12, kernel=7,
                      conv1_stride=2, primary_types=4, decoder=(32,))
    model = capsnet.CapsNet(settings)
    optimizer = adam.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        index = torch.randint(0, len(dataset.train), (64,), generator=generator)
        optimizer.zero_grad()
        model(dataset.train.images[index] / 255, dataset.train.labels[index]).loss.backward()
        optimizer.step()
    with torch.no_grad():
        result = model(dataset.test.images / 255, dataset.test.labels, mask="length")
    assert result.scalars["accuracy"] > 0.8


def test_benchmark_runs_its_pieces(capsys: pytest.CaptureFixture) -> None:
    """Every timed piece runs; bad arguments end with one line and code 2."""
    timed = bench_capsnet.pieces(preset("official", **TINY), 2)
    seconds = bench_pieces.measure(timed, 1, "cpu")
    assert set(seconds) == set(timed) and all(value >= 0.0 for value in seconds.values())
    for arguments in (["--batch", "0"], ["--preset", "hinton"]):
        assert bench_capsnet.main(arguments) == 2 and arguments[0] in capsys.readouterr().err
