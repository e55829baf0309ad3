"""The hot ops in isolation, sizes of run_mnist.sh at a smaller batch; times, no assertions about them.

    pytest parity_tests/tests/ops/test_benchmarks.py --benchmark-only
    pytest parity_tests/tests/ops/test_benchmarks.py --benchmark-disable   # once each, as in CI

Whole steps, and the floor beside them: `scae bench`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch

from port import config
from port.core import attention, backends, rmsprop, warp, warp_hat
from port.scae import object_decoder, part_decoder, part_encoder

pytest.importorskip("pytest_benchmark")

BATCH, PARTS, OBJECTS, FEATURES, CANVAS, TEMPLATE, WIDTH = 16, 40, 32, 16, 40, 11, 256


def leaf(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    """Uniform numbers that receive a gradient."""
    generator = torch.Generator().manual_seed(sum(shape))
    return (low + (high - low) * torch.rand(shape, generator=generator)).requires_grad_()


def pose() -> torch.Tensor:
    """Parts of half the canvas, shifted."""
    half = torch.tensor([0.5, 0, 0, 0, 0.5, 0])
    return (half + leaf(BATCH, PARTS, 6, low=-0.2, high=0.2)).detach().requires_grad_()


def measure(benchmark: Callable, forward: Callable[[], torch.Tensor]) -> None:
    """Time forward and backward; the result has to be finite."""

    def both() -> torch.Tensor:
        out = forward()
        out.square().sum().backward()
        return out
    assert torch.isfinite(benchmark(both)).all()


@pytest.mark.parametrize("path", ["kernel", "plain"])
def test_pixel_likelihood(benchmark, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Warp, mixture and likelihood."""
    if path == "kernel" and importlib.util.find_spec("numba") is None:
        pytest.skip("the kernel needs Numba, which is not installed")
    monkeypatch.setitem(os.environ, backends.SWITCH, "off" if path == "plain" else "auto")
    settings = config.PartDecoder(template_size=(TEMPLATE, TEMPLATE), n_channels=1, use_alpha_channel=True,
                                  colorize_templates=True)
    decoder = part_decoder.PartDecoder(CANVAS, PARTS, FEATURES, settings, np.random.default_rng(0))
    places, presence = pose(), leaf(BATCH, PARTS)
    templates, target = leaf(BATCH, PARTS, 1, TEMPLATE, TEMPLATE), leaf(BATCH, 1, CANVAS, CANVAS).detach()
    measure(benchmark, lambda: decoder.log_prob(target, places, presence, templates))


@pytest.mark.parametrize("path", ["gather", "hat weights"])
def test_resampler(benchmark, path: str) -> None:
    """The two forms of the bilinear resampler."""
    sample = warp.resampler if path == "gather" else warp_hat.resampler
    templates = leaf(BATCH * PARTS, 2, TEMPLATE, TEMPLATE)
    places = leaf(BATCH * PARTS, CANVAS * CANVAS, 2, low=-3.0, high=TEMPLATE + 2.0)
    measure(benchmark, lambda: sample(templates, places))


def test_attention_pool(benchmark) -> None:
    """The part encoder's pooling over positions."""
    n_dims = 6 + FEATURES + 1
    feature_map = leaf(BATCH, (n_dims + 1) * PARTS, 10, 10)
    measure(benchmark, lambda: part_encoder.attention_pool(feature_map, PARTS, n_dims)[3])


def test_set_transformer(benchmark) -> None:
    """Three self-attentions and the object queries."""
    model = attention.SetTransformer(6 + 1 + FEATURES + TEMPLATE ** 2, 3, 1, 16, WIDTH, OBJECTS, True,
                                     np.random.default_rng(0))
    tokens = leaf(BATCH, PARTS, 6 + 1 + FEATURES + TEMPLATE ** 2)
    measure(benchmark, lambda: model(tokens)[0])


def test_object_decoder(benchmark) -> None:
    """Capsule MLPs, votes and their likelihood."""
    settings = config.ObjDecoder(n_caps=OBJECTS, n_caps_params=32, n_votes=PARTS)
    model = object_decoder.ImageCapsule(WIDTH, settings, np.random.default_rng(0))
    features, places = leaf(BATCH, OBJECTS, WIDTH), pose()
    measure(benchmark, lambda: model(features, places)[2].log_prob)


def test_rmsprop(benchmark) -> None:
    """One update of 96 tensors, as many as the model has."""
    parameters = [leaf(200, 200) for _ in range(96)]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = rmsprop.RMSProp(parameters, lr=1e-3, epsilon=rmsprop.rmsprop_epsilon(BATCH))
    before = parameters[0].detach().clone()
    benchmark(optimizer.step)
    assert (parameters[0] < before).all()
