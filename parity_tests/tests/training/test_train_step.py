"""One update: equal to a loop written out, without traces of warming up, without waiting for the device.

What runs here on the CPU is what a CUDA graph captures: the same method, static inputs included.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import port
from parity_tests.harness import runs
from port.core import rmsprop
from port.data import dataset
from port.training import loop as train
from port.training import precision, resume, schedule
from port.training.step import Step

WAITS = ("_local_scalar_dense", "nonzero", "lift_fresh", "unique", "masked_select", "equal")


class NoWaiting(TorchDispatchMode):
    """Raises where a GPU would stop the host: a value read, a copy between devices, a constant sent."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        if name in WAITS:
            raise AssertionError(f"{name} waits for the device")
        result = function(*arguments, **(keywords or {}))
        if name in ("_to_copy", "copy_") and isinstance(arguments[0], torch.Tensor):
            source = arguments[1] if name == "copy_" else arguments[0]
            assert source.device == result.device, f"{name} between devices"
        return result


def new_step(made: torch.nn.Module, **changed) -> Step:
    wanted = runs.settings(**changed)
    optimizer = rmsprop.RMSProp(made.named_parameters(), wanted.lr, rmsprop.rmsprop_epsilon(wanted.batch_size))
    batches = dataset.Batches(runs.dataset().train, wanted.batch_size, made.config.canvas, 5)
    return Step(resume.State(made, optimizer, batches, torch.Generator().manual_seed(6)), wanted)


def plain_loop(steps: int, decay: float = 1.0) -> dict[str, torch.Tensor]:
    """The same training written out: no static tensors, the rate a number of the host."""
    wanted = runs.settings()
    made = runs.model()
    order_seed, noise_seed = (int(s) for s in np.random.SeedSequence(wanted.seed).generate_state(2))
    batches = dataset.Batches(runs.dataset().train, wanted.batch_size, made.config.canvas, order_seed)
    generator = torch.Generator().manual_seed(noise_seed)
    optimizer = rmsprop.RMSProp(made.named_parameters(), wanted.lr, 1e-2 / wanted.batch_size ** 2)
    for step in range(steps):
        image, label = next(batches)
        noise = port.Noise.draw(generator, made.config, len(image))
        optimizer.zero_grad()
        made(image, label, noise).loss.backward()
        optimizer.param_groups[0]["lr"] = wanted.lr * decay ** (step / 10)
        optimizer.step()
    return dict(made.state_dict()) | resume.read_slots(made, optimizer)


def test_the_loop_is_the_plain_loop_bit_by_bit():
    found, _ = runs.run()
    assert not runs.differing(found, plain_loop(12))


def test_the_decay_is_applied_to_the_update():
    """Float32 rates: half an ulp of the rate moves an update by as much, 12 updates of at most 1e-3."""
    found, _ = runs.run(lr_schedule="exponential", lr_decay=0.5, lr_decay_steps=10)
    expected = plain_loop(12, decay=0.5)
    constant = plain_loop(12)
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-5, atol=1e-7), name
    assert runs.differing(found, constant)


@pytest.mark.parametrize("staircase", [False, True])
def test_the_schedule_is_tensorflows(staircase):
    """`tf.train.exponential_decay` computes in float32.

    Its 0.96 is off by half an ulp, which the power multiplies by its exponent; the exponent itself, the
    power and the product round once each.
    """
    import tensorflow as tf
    wanted = runs.settings(lr=3e-5, lr_schedule="exponential", lr_staircase=staircase)
    assert (wanted.lr_decay, wanted.lr_decay_steps) == (0.96, 10_000)
    for step in (0, 1, 9_999, 10_000, 25_000, 299_999):
        expected = tf.compat.v1.train.exponential_decay(3e-5, step, 1e4, 0.96, staircase)()
        assert schedule.learning_rate(wanted, step) == pytest.approx(
            float(expected), rel=(step / 1e4 + 4) * 2**-24)


@pytest.mark.parametrize("changed", [{"grad_value_clip": 0.01}, {"grad_norm_clip": 1e-3}])
def test_gradients_are_clipped_as_the_original_does(changed):
    """By value, and by the global norm with the limit times the root of the number of weights."""
    plain, clipped = new_step(runs.model()), new_step(runs.model(), **changed)
    for step in (plain, clipped):
        step(step.batches.next_index(), 1e-3)
    gradients = {name: p.grad for name, p in plain.model.named_parameters() if p.grad is not None}
    norm = np.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    limit = 1e-3 * np.sqrt(sum(g.numel() for g in gradients.values()))
    assert norm > limit and max(float(g.abs().max()) for g in gradients.values()) > 0.01
    for name, parameter in clipped.model.named_parameters():
        if parameter.grad is None:
            continue
        expected = gradients[name].clamp(-0.01, 0.01) if "grad_value_clip" in changed \
            else gradients[name] * (limit / norm)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=0.0)


# ------------------------------------------------------------------------------ ready to be captured

def test_warming_up_leaves_no_trace():
    """Weights, slots, sums and generators are as before, and the tensors are the same ones."""
    warm, cold = new_step(runs.model()), new_step(runs.model())
    addresses = {name: tensor.data_ptr() for name, tensor in warm.state.tensors().items()}
    for _ in range(3):
        warm.warm_up()
        for step in (warm, cold):
            step(step.batches.next_index(), 1e-3)
        assert not runs.differing(warm.state.tensors(), cold.state.tensors())
        assert torch.equal(warm.state.sums, cold.state.sums)
    assert {name: tensor.data_ptr() for name, tensor in warm.state.tensors().items()} == addresses


@pytest.mark.parametrize("changed", [
    {}, {"grad_norm_clip": 1e-3, "grad_value_clip": 0.5}, {"amp": "bf16"}, {"noise": False}])
def test_a_step_never_waits_for_the_device(changed):
    step = new_step(runs.model(), **changed)
    with precision.mixed(step.model, step.settings):
        index = step.batches.next_index()
        with NoWaiting():
            step(index, 1e-3)
            step(index, 5e-4)
    assert step.state.count == 2


@pytest.mark.parametrize("wait", [lambda loss: loss.item(), lambda loss: loss > 0 or None,
                                  lambda loss: torch.tensor([1.0])])
def test_waiting_would_be_noticed(wait):
    step = new_step(runs.model())
    backward = step.backward
    step.backward = lambda loss: (wait(loss), backward(loss))
    with pytest.raises(AssertionError, match="waits for the device"), NoWaiting():
        step(step.batches.next_index(), 1e-3)


@pytest.mark.parametrize("kind", ["alpha", "temperature"])
def test_a_step_runs_on_a_device_that_holds_no_values(kind):
    """On meta tensors reading a value, or mixing in a tensor of the CPU, is an error."""
    made = runs.model(use_alpha_channel=kind == "alpha")
    with torch.device("meta"):
        weights = {name: torch.empty(p.shape, requires_grad=True)
                   for name, p in made.named_parameters()}
        image, label = torch.rand(8, 1, 14, 14), torch.zeros(8, dtype=torch.int64)
        raw = [torch.rand(8, *draw.shape) for draw in port.noise_plan(made.config)]
        noise = port.Noise(**{f"raw_{j}": value for j, value in enumerate(raw)})
        optimizer = rmsprop.RMSProp(weights.values(), torch.zeros(()), 1e-4)
    result = torch.func.functional_call(made, weights, (image, label, noise))
    result.loss.backward()
    rmsprop.clip_gradients([w.grad for w in weights.values()], 1.0, 1.0)
    optimizer.step()
    assert result.loss.device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        result.loss.item()


def test_capture_needs_a_gpu():
    with pytest.raises(ValueError, match="needs a GPU"):
        new_step(runs.model(), capture="always")
    assert not new_step(runs.model(), capture="auto").rung.captured


# --------------------------------------------------------------------------- precision, determinism

def test_mixed_precision_is_in_the_products_alone():
    """Every tap is float32 or wider, and the model is as before afterwards."""
    made = runs.model()
    image = torch.rand(4, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = made(image, taps=True)
        seen = []
        for amp in ("bf16", "fp16"):
            with precision.mixed(made, runs.settings(amp=amp)):
                rough = made(image, taps=True)
            assert {t.dtype for t in rough.taps.values() if t.is_floating_point()} == {torch.float32}
            # One product rounds to 8 or 11 bits; a sum over 196 pixels of log-likelihoods averages it.
            bits = {"bf16": 8, "fp16": 11}[amp]
            difference = abs(rough.loss - exact.loss) / abs(exact.loss)
            assert 0 < difference < 2.0 ** -bits
            seen.append(rough.taps["part_enc/conv0_preact"])
            assert torch.equal(seen[-1], seen[-1].to(precision.DTYPES[amp]).float())
        again = made(image, taps=True)
    assert torch.equal(again.loss, exact.loss) and not torch.equal(*seen)


def test_the_loss_scale_is_taken_out_exactly(monkeypatch):
    """Multiplying by a power of two and dividing again changes no bit outside the subnormals."""
    plain, _ = runs.run(steps=4)
    monkeypatch.setattr(precision, "loss_scale", lambda settings: 1024.0)
    assert not runs.differing(plain, runs.run(steps=4)[0])


def test_fp16_trains():
    """Weights are not those of float32, and finite."""
    found, trained = runs.run(amp="fp16")
    assert runs.differing(found, runs.run()[0])
    assert not resume.non_finite({k: v.detach() for k, v in found.items()})
    assert trained.precision["amp"] == "fp16"


def test_deterministic_mode_reruns_bit_by_bit_and_ends():
    first, trained = runs.run(deterministic=True)
    assert trained.precision["deterministic"] and not torch.are_deterministic_algorithms_enabled()
    assert not runs.differing(first, runs.run(deterministic=True)[0])
    assert runs.differing(first, runs.run(seed=4)[0])
    with precision.mode(runs.settings(deterministic=True), "cpu"):
        assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(("changed", "says"), [
    ({"amp": "fp8"}, "amp must be one of none, bf16, fp16"), ({"capture": "yes"}, "capture must be"),
    ({"lr_schedule": "cosine"}, "constant, exponential"), ({"amp_loss_scale": 1000.0}, "power of two"),
    ({"grad_norm_clip": -1.0}, "must be at least 0"), ({"lr_decay": 0.0}, "above 0")])
def test_settings_are_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        train.Settings(**changed)
