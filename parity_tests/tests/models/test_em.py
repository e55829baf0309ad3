"""What EM routing must do beyond agreeing with its reference: shares, representable numbers, no NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from parity_tests.harness.sides import Lib
from port.checkpoints import convert
from port.core import adam
from port.em import (
    fused as em_fused,
)
from port.em import (
    routing as em_routing,
)
from port.em import (
    settings as em_settings,
)
from port.em import (
    tf_names as convert_em,
)
from port.em.layers import ConvCapsules
from port.em.network import MatrixCapsules
from port.em.settings import Routing

SIDES = ("reference", "port")


def tensor(side: str, value: np.ndarray) -> object:
    """An array as a tensor of one side."""
    if side == "port":
        return torch.from_numpy(np.ascontiguousarray(value))
    import tensorflow as tf
    return tf.constant(value)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("change", "message"), [
    ({"reduction": "max"}, "reduction must be one of sum, mean"),
    ({"conv_padding": "same"}, "conv_padding must be one of VALID, SAME"),
    ({"classes": 0}, "classes must be at least 1, not 0"),
    ({"kernel": 3}, "no setting 'kernel'; there are image_channels, channels"),
    ({"strides": (2,)}, "3 capsule types need 2 kernels and strides, not 2 and 1"),
    ({"coordinates": "row", "padding": "SAME"}, "use 'column'")])
def test_refused_settings(side: str, change: dict, message: str) -> None:
    """A value that means nothing is said by name."""
    settings = Lib(side, "float32").em.settings
    with pytest.raises(ValueError, match=message):
        settings.preset("paper", **change)


@pytest.mark.parametrize("side", SIDES)
def test_refused_routing(side: str) -> None:
    """No iterations, no floor, no such competition or preset."""
    settings = Lib(side, "float32").em.settings
    for change, message in (({"iterations": 0}, "at least 1"), ({"variance_floor": 0.0}, "above 0"),
                            ({"competition": "window"}, "competition must be one of parents")):
        with pytest.raises(ValueError, match=message):
            settings.Routing(**change)
    with pytest.raises(ValueError, match="no preset 'hinton'; there are paper, official, ibm"):
        settings.preset("hinton")


@pytest.mark.parametrize("side", SIDES)
def test_sum_over_the_right_windows(side: str) -> None:
    """[1, 2, 3, 4] in windows of 2: each entry comes back once for every window that holds it."""
    lib = Lib(side, "float64")
    row = tensor(side, np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1))
    seen = lib.em.windows.windows(row, (1, 2), 1)
    assert np.asarray(seen).ravel().tolist() == [1, 2, 2, 3, 3, 4]
    assert np.asarray(lib.em.windows.fold(seen, 1)).ravel().tolist() == [1, 4, 6, 4]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (3, 1), (2, 2), (1, 1), ((1, 3), 1)])
@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_shares_sum_to_one(side: str, kernel: int | tuple, stride: int, padding: str) -> None:
    """Over all parents, types and positions, of each child that a window holds; before and after E."""
    lib, rng = Lib(side, "float64"), np.random.default_rng(0)
    pose, activation = rng.standard_normal((2, 7, 6, 2, 16)), rng.uniform(0.1, 1.0, (2, 7, 6, 2))
    for iterations in (1, 3):
        layer = lib.module("em.layers.ConvCapsules", "lyr.conv_caps1", 2, 3, kernel, stride, padding,
                           lib.em.settings.Routing(iterations=iterations), 1.0, False, (0.0, 0.0))
        found = layer(tensor(side, pose), tensor(side, activation))
        assignment = found.assignment.detach().numpy() if side == "port" else np.asarray(found.assignment)
        summed = np.asarray(lib.em.windows.fold(tensor(side, assignment.sum(-1)), stride))
        counts = lib.em.windows.parent_counts(assignment.shape[1:3], assignment.shape[3:5], stride)
        np.testing.assert_allclose(summed, np.broadcast_to((counts > 0)[None, ..., None], summed.shape),
                                   atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("side", SIDES)
def test_safe_divide(side: str, dtype: str) -> None:
    """Zero, subnormal and overflowing quotients and slopes are finite; ordinary ones are exact."""
    lib, limits = Lib(side, dtype), np.finfo(dtype)
    largest, tiny = float(limits.max), float(limits.tiny)
    small = float(np.sqrt(limits.tiny))
    y = [0.0, tiny / 8, tiny, small / 2, small * 2, 1e-3, 0.5, 1.0, 3.0, largest]
    x = [0.0, tiny / 8, 1.0, np.sqrt(largest), largest / 2, largest]
    numerator, divisor = (a.ravel() for a in np.meshgrid(np.array(x + [-v for v in x], dtype),
                                                         np.array(y + [-v for v in y], dtype)))
    if side == "port":
        a, b = (torch.tensor(v, requires_grad=True) for v in (numerator, divisor))
        found = lib.em.routing.safe_divide(a, b)
        found.sum().backward()
        value, slopes = found.detach().numpy(), [a.grad.numpy(), b.grad.numpy()]
    else:
        import tensorflow as tf
        a, b = (tf.constant(v) for v in (numerator, divisor))
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            found = lib.em.routing.safe_divide(a, b)
            total = tf.reduce_sum(found * 1.0)
        value, slopes = np.asarray(found), [np.asarray(g) for g in tape.gradient(total, [a, b])]
    assert np.isfinite(value).all() and all(np.isfinite(slope).all() for slope in slopes)
    with np.errstate(all="ignore"):
        wide = numerator.astype(np.longdouble) / divisor.astype(np.longdouble)
    # TensorFlow takes a subnormal for 0; both may.
    ordinary = (np.abs(divisor) >= small) & (np.abs(wide) <= largest) & (np.abs(wide) > 2 * tiny) & (
        np.abs(numerator) >= tiny)
    np.testing.assert_allclose(value[ordinary], wide[ordinary].astype(dtype), rtol=2 * limits.eps)
    assert ordinary.sum() > 50
    assert not value[np.abs(divisor) < small].any()
    beyond = (np.abs(divisor) >= small) & (np.abs(wide) > np.longdouble(largest) * 1.001)
    assert beyond.any() and (np.abs(value[beyond]) == largest).all()
    assert (np.sign(value[beyond]) == np.sign(wide[beyond])).all()


def test_gradient_through_all_iterations() -> None:
    """The gradient is that of central differences through T = 3; stopping it in the E step is another."""
    generator = torch.Generator().manual_seed(3)
    votes = torch.randn(1, 2, 2, 2, 2, 2, 3, 16, generator=generator, dtype=torch.float64)
    activation = torch.rand(1, 2, 2, 2, 2, 2, generator=generator, dtype=torch.float64)
    betas = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    routing = Routing(variance_floor=1e-2, final_lambda=0.5)

    def total(votes: torch.Tensor) -> torch.Tensor:
        found = em_routing.route(votes, activation, betas[0], betas[1], 1, routing)
        return found.pose.sum() + found.activation.sum()

    votes.requires_grad_()
    gradient, = torch.autograd.grad(total(votes), votes)
    direction = torch.randn(votes.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        slope = (total(votes + 1e-5 * direction) - total(votes - 1e-5 * direction)) / 2e-5
    assert abs(float((gradient * direction).sum() / slope) - 1.0) < 1e-6


def test_large_votes_stay_numbers() -> None:
    """float32 votes of 1e12, of 1e6 among ordinary ones, of 1e-20: values and gradients are finite."""
    generator = torch.Generator().manual_seed(1)
    for scale, share in ((1e12, 1.0), (1e6, 0.3), (1e-20, 1.0)):
        votes = torch.randn(2, 2, 2, 2, 2, 2, 3, 16, generator=generator)
        votes = torch.where(torch.rand(votes.shape, generator=generator) < share, votes * scale, votes)
        for activation in (torch.rand(votes.shape[:-2], generator=generator),
                           torch.full(votes.shape[:-2], 1e-30), torch.zeros(votes.shape[:-2])):
            inputs = [votes.clone().requires_grad_(), activation.clone().requires_grad_(),
                      torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)]
            found = em_routing.route(*inputs, 1)
            (found.pose.sum() + found.activation.sum()).backward()
            assert all(torch.isfinite(value).all() for value in found)
            assert all(torch.isfinite(value.grad).all() for value in inputs)


# Seeds and steps; a seed gives program and rate, and a tier of two seeds takes two of the highest rates:
# 5 is the authors' program at 0.1, 6 the paper's at 1, 7 IBM's at 1. The programs' own rate is 0.003.
STRESS = {"smoke": ((7,), 20), "default": ((5, 6), 100), "deep": (tuple(range(20)), 2000)}
RATES = (0.01, 0.1, 1.0)


def stress(seed: int, steps: int) -> None:
    """Train a tiny network on noise at a high rate in float32; every number must stay one."""
    rng = np.random.default_rng(seed)
    name = ("paper", "ibm", "official")[seed % 3]
    network = MatrixCapsules(em_settings.preset(name, channels=4, types=(2, 2, 3), classes=4), rng)
    optimizer = adam.Adam(network.parameters(), lr=RATES[seed // 3 % 3])
    for step in range(steps):
        image = torch.from_numpy(rng.uniform(size=(4, 1, 20, 20)).astype(np.float32))
        if step % 10 == 0:
            image = image[:1].expand(4, -1, -1, -1).round()  # identical examples, flat regions
        label = torch.from_numpy(rng.integers(0, 4, 4))
        found = network(image)
        loss, _ = network.loss(found.activation, label, step * 1000)
        optimizer.zero_grad()
        loss.backward()
        for place, value in (("activation", found.activation), ("pose", found.pose), ("loss", loss),
                             *((n, p.grad) for n, p in network.named_parameters())):
            assert torch.isfinite(value).all(), f"{name}, seed {seed}, step {step}: {place}"
        optimizer.step()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test for each seed of the tier, each with a time limit of its own."""
    if "stress_seed" in metafunc.fixturenames:
        metafunc.parametrize("stress_seed", STRESS[metafunc.config.getoption("--tier")][0])


def test_training_never_gives_nan(stress_seed: int, tier: str) -> None:
    """Seeds × steps of the tier (default 2 × 100 at 0.1 and 1; deep 20 × 2,000 at 0.01 to 1)."""
    stress(stress_seed, STRESS[tier][1])


@pytest.mark.parametrize("name", ["ibm_net_tiny_s261_f64", "gr_net_tiny_s161_f64"])
def test_recorded_names_map_one_to_one(name: str) -> None:
    """Every recorded variable fills one parameter and comes back as it was, name and layout."""
    from parity_tests.goldens.verify_em import network_settings
    from parity_tests.tests.goldens.test_goldens_em import RECORDS
    record = RECORDS[name]
    settings = network_settings(record, Lib("port", "float64"))
    network, table = MatrixCapsules(settings, np.random.default_rng(0)).double(), \
        convert_em.table_of(settings)
    convert.load_module(network, record.variables, table=table)
    found = convert.module_arrays(network, table=table)
    assert set(found) == set(record.variables)
    for variable, (parameter, how) in found.items():
        np.testing.assert_array_equal(convert.to_original(parameter.detach().numpy(), how),
                                      record.variables[variable])
    assert convert_em.family_of(record.variables) == ("official" if name.startswith("gr_") else "ibm")
    assert convert_em.family_of(["conv1/weights", "capsule2/weights"]) is None


@pytest.mark.parametrize("table", ["MAPPING", "OFFICIAL"])
def test_rows_are_unique(table: str) -> None:
    """No name stands twice on either side of a table."""
    rows = getattr(convert_em, table)
    assert len({row.original for row in rows}) == len({row.port for row in rows}) == len(rows)


def test_wrong_shape_is_refused() -> None:
    """An IBM weight for another kernel size names the variable."""
    settings = em_settings.preset("ibm", channels=4, types=(2, 2, 3), classes=4)
    network = MatrixCapsules(settings, np.random.default_rng(0))
    found = convert.module_arrays(network, table=convert_em.MAPPING)
    arrays = {variable: convert.to_original(parameter.detach().numpy(), how)
              for variable, (parameter, how) in found.items()}
    arrays["lyr.conv_caps1/votes/w"] = np.zeros((1, 8, 2, 4, 4), np.float32)
    with pytest.raises(convert.ConversionError, match="lyr.conv_caps1/votes/w: shape"):
        convert.load_module(network, arrays, table=convert_em.MAPPING)


@pytest.mark.parametrize("name", ["paper", "ibm", "official"])
def test_an_iteration_made_again_is_the_one_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large votes: nothing of an iteration is kept for the backward pass, and no bit changes."""
    generator = torch.Generator().manual_seed(3)
    votes = torch.randn(2, 2, 2, 3, 3, 2, 3, 16, generator=generator)
    activation = torch.rand(2, 2, 2, 3, 3, 2, generator=generator)
    called, found = [], []
    checkpoint = em_routing.checkpoint
    monkeypatch.setattr(em_routing, "checkpoint", lambda *a, **k: called.append(a) or checkpoint(*a, **k))
    for least in (votes.nbytes + 1, votes.nbytes):
        monkeypatch.setattr(em_routing, "LARGE", least)
        inputs = [value.clone().requires_grad_() for value in (votes, activation, torch.ones(3),
                                                               torch.ones(3))]
        result = em_routing.route(*inputs, 1, em_settings.preset(name).routing)
        total = result.pose.cos().sum() + result.activation.square().sum()
        found.append([*result, *torch.autograd.grad(total, inputs)])
        assert len(called) == (3 if least == votes.nbytes else 0)
    assert all(torch.equal(kept, again) for kept, again in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["paper", "ibm", "official"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernel_is_the_plain_layer(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused kernel and plain PyTorch give the same parents and gradients, stride 2, SAME."""
    if em_fused.reason_against(torch.device("cpu")):
        pytest.skip("Numba is not installed")
    settings = em_settings.preset(name)
    routing = replace(settings.routing, variance_floor=1e-2)
    generator = torch.Generator().manual_seed(5)
    layer = ConvCapsules(2, 3, (3, 2), 2, "SAME", routing, 0.5, False, (0.5, 0.01),
                         np.random.default_rng(1)).to(getattr(torch, dtype))
    pose = torch.randn(3, 6, 5, 2, 16, generator=generator, dtype=layer.weight.dtype)
    activation = torch.rand(3, 6, 5, 2, generator=generator, dtype=layer.weight.dtype)
    found = []
    for choice in ("auto", "off"):
        monkeypatch.setenv("SCAE_KERNELS", choice)
        inputs = [pose.clone().requires_grad_(), activation.clone().requires_grad_(),
                  *layer.parameters()]
        result = layer(*inputs[:2])
        total = (result.pose * torch.cos(torch.arange(16.0))).sum() + result.activation.square().sum()
        found.append([*result, *torch.autograd.grad(total, inputs)])
    bound = 1e-12 if dtype == "float64" else 2e-5
    for fused, plain in zip(*found):
        assert float((fused - plain).detach().abs().max()) <= bound * float(plain.detach().abs().max())


def test_kernel_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Off is off, and another value is said."""
    monkeypatch.setenv("SCAE_KERNELS", "off")
    assert em_fused.reason_against(torch.device("cpu")) == "SCAE_KERNELS=off"
    monkeypatch.setenv("SCAE_KERNELS", "fast")
    with pytest.raises(ValueError, match="SCAE_KERNELS=fast: expected auto or off"):
        em_fused.reason_against(torch.device("cpu"))
