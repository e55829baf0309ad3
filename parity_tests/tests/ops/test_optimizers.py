"""The update rules by name: each is what it says, continues bit by bit, and takes factors and decay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from parity_tests.harness import runs
from port.core import adam, rmsprop
from port.training import loop as train
from port.training import optimizers

RULES = tuple(optimizers.RULES)
OWN = {"tf-rmsprop", "tf-adam"}


def weights() -> dict[str, torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.nn.Parameter(torch.randn(shape, generator=generator))
            for name, shape in (("encoder.w", (3, 4)), ("encoder.b", (4,)), ("decoder.w", (2, 5)))}


def updated(optimizer: torch.optim.Optimizer, named: dict[str, torch.nn.Parameter],
            rates: list[float]) -> dict[str, torch.Tensor]:
    """Weights after an update a rate, with seeded gradients."""
    generator = torch.Generator().manual_seed(1)
    rate = optimizers.Rate(optimizer, torch.device("cpu"))
    for lr in rates:
        for parameter in named.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        rate.fill(lr)
        optimizer.step()
    return {name: parameter.detach().clone() for name, parameter in named.items()}


@pytest.mark.parametrize(("rule", "plain"), [
    ("tf-rmsprop", lambda p: rmsprop.RMSProp(p, 1e-2, rmsprop.rmsprop_epsilon(8))),
    ("tf-adam", lambda p: adam.Adam(p, 1e-2)),
    ("rmsprop", lambda p: torch.optim.RMSprop(p, 1e-2, momentum=0.9)),
    ("sgd", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)),
    ("adam", lambda p: torch.optim.Adam(p, 1e-2)),
    ("radam", lambda p: torch.optim.RAdam(p, 1e-2))])
def test_a_rule_is_the_optimizer_it_names(rule, plain):
    """State made beforehand changes nothing: the same bits as the optimizer created by hand."""
    named, other = weights(), weights()
    found = updated(optimizers.make(named.items(), rule, 8), named, [1e-2, 3e-2, 1e-3] * 4)
    expected = updated(plain(list(other.values())), other, [1e-2, 3e-2, 1e-3] * 4)
    assert not runs.differing(found, expected)
    assert runs.differing(found, weights())


@pytest.mark.parametrize("rule", RULES)
def test_a_run_with_it_continues_bit_by_bit(rule, tmp_path):
    whole, _ = runs.run(optimizer=rule)
    runs.run(tmp_path, steps=7, optimizer=rule)
    parts, trained = runs.run(tmp_path, optimizer=rule)
    assert trained.resumed_at == 7
    assert not runs.differing(whole, parts)


def test_every_rule_trains_differently():
    left = {rule: runs.run(optimizer=rule, steps=3)[0] for rule in RULES}
    weight = next(name for name in left["sgd"] if name.startswith("part_decoder"))
    values = [found[weight].numpy() for found in left.values()]
    assert not any(np.array_equal(a, b) for i, a in enumerate(values) for b in values[:i])


@pytest.mark.parametrize("rule", RULES)
def test_factors_scale_the_rate_of_what_they_name(rule):
    named, other = weights(), weights()
    found = updated(optimizers.make(named.items(), rule, 8, factors={"encoder": 0.0, "encoder.b": 2.0}),
                    named, [1e-2])
    start = weights()
    assert torch.equal(found["encoder.w"], start["encoder.w"])
    twice = updated(optimizers.make(other.items(), rule, 8), other, [2e-2])
    assert torch.equal(found["encoder.b"], twice["encoder.b"])
    assert not torch.equal(found["decoder.w"], twice["decoder.w"])


@pytest.mark.parametrize("rule", sorted(set(RULES) - OWN))
def test_weight_decay_pulls_towards_zero(rule):
    """With a zero gradient only decay moves a weight, towards zero."""
    named = weights()
    optimizer = optimizers.make(named.items(), rule, 8, weight_decay=0.1)
    rate = optimizers.Rate(optimizer, torch.device("cpu"))
    for _ in range(6):  # RAdam's first updates have no second moment
        for parameter in named.values():
            parameter.grad = torch.zeros_like(parameter)
        rate.fill(1e-3)
        optimizer.step()
    for name, before in weights().items():
        assert (named[name].abs() < before.abs()).all()


@pytest.mark.parametrize(("asked", "says"), [
    ({"rule": "lamb"}, "optimizer must be one of tf-rmsprop"),
    ({"rule": "tf-adam", "weight_decay": 0.1}, "weight_decay does not go with tf-adam"),
    ({"factors": {"coder": 2.0}}, "no parameter begins with coder")])
def test_it_refuses(asked, says):
    with pytest.raises(ValueError, match=says):
        optimizers.make(weights().items(), **asked)


@pytest.mark.parametrize(("changed", "says"), [
    ({"optimizer": "lamb"}, "optimizer must be one of"), ({"weight_decay": 0.1}, "does not go with"),
    ({"momentum": -1.0}, "must be at least 0")])
def test_settings_are_refused(changed, says):
    with pytest.raises(ValueError, match=says):
        train.Settings(**changed)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_both_forms_of_adam_are_the_update(dtype):
    """In one pass with the step on the host, and in several without it: `adam_update`, to rounding.

    Each weight is the start less twelve changes of at most 3e-2; the forms order their products
    differently, three roundings each, so they part by at most 12·4·ε·(|w| + 3e-2) < 2e2·ε here.
    """
    forms = {}
    for form in (adam._adam_fused, adam._adam_foreach, None):
        generator = torch.Generator().manual_seed(1)
        var = torch.randn(50, generator=generator).to(dtype)
        m, v = torch.zeros_like(var), torch.zeros_like(var)
        for step in range(12):
            grad = torch.randn(50, generator=generator).to(dtype)
            if form is None:
                var, m, v = adam.adam_update(var, grad, m, v, step, 1e-2)
            else:
                form([var], [grad], [m], [v], torch.tensor(float(step), dtype=torch.float64),
                     {"lr": torch.tensor(1e-2, dtype=dtype), "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8})
        forms[form] = var
    bound = 200 * torch.finfo(dtype).eps
    for form, var in forms.items():
        assert (var - forms[None]).abs().max() <= bound, form


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_sgd_of_a_gpu_is_torchs(momentum):
    """With the rate left on the device: `torch.optim.SGD`, to rounding.

    Twelve changes of at most lr·10·4 = 0.4 each, three roundings apart: 12·3·ε·(|w| + 0.4) < 2e2·ε.
    """
    named, other = weights(), list(weights().values())
    theirs = torch.optim.SGD(other, 1e-2, momentum=momentum, weight_decay=0.1)
    group = {"lr": torch.tensor(1e-2), "momentum": momentum, "weight_decay": 0.1}
    buffers = [torch.zeros_like(p) for p in named.values()] if momentum else []
    generator = torch.Generator().manual_seed(1)
    for _ in range(12):
        grads = [torch.randn(p.shape, generator=generator) for p in other]
        for parameter, grad in zip(other, grads):
            parameter.grad = grad.clone()
        theirs.step()
        with torch.no_grad():
            optimizers.sgd_foreach(list(named.values()), grads, buffers, group)
    for ours, parameter in zip(named.values(), other):
        assert (ours - parameter).abs().max() <= 200 * torch.finfo(torch.float32).eps
    assert not torch.equal(other[0], weights()["encoder.w"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slots_in_flat_memory_leave_the_same_bits(dtype):
    """One long operation or one for each tensor; one parameter has no gradient, one step none at all."""
    made = []
    for flat in (True, False):
        generator = torch.Generator().manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
                      for shape in ((3,), (70, 1000), (), (2, 0), (5, 7))]
        rule = rmsprop.RMSProp(parameters, torch.tensor(1e-2), 1e-5)
        assert rule.flats[0] is not None
        if not flat:
            rule.flats = [None]
        for step in range(4):
            for i, parameter in enumerate(parameters):
                parameter.grad = None if step == 2 or i == 2 else torch.randn(
                    parameter.shape, generator=generator, dtype=dtype)
            rule.step()
        made.append(parameters + [rule.state[p][slot] for p in parameters for slot in ("ms", "mom")])
    assert all(torch.equal(one, other) for one, other in zip(*made, strict=True))


def test_loaded_slots_are_used():
    """`load_state_dict` puts new tensors in the slots' place."""
    parameters = [torch.nn.Parameter(torch.ones(n)) for n in (2, 3)]
    rule = rmsprop.RMSProp(parameters, 1e-2, 1e-5)
    saved = rule.state_dict()
    for slots in saved["state"].values():
        slots["mom"] = slots["mom"] + 1.0
    rule.load_state_dict(saved)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    rule.step()
    assert all(torch.allclose(p, torch.tensor(0.1)) for p in parameters)


def stepped(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Three steps with seeded gradients."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


@pytest.mark.parametrize("make", [lambda params: rmsprop.RMSProp(params, 1e-2, 1e-5),
                                  lambda params: adam.Adam(params, 1e-2)], ids=["tf-rmsprop", "tf-adam"])
def test_a_group_that_is_added(make):
    """Its slots are there, and the weights become those of an optimizer that had the group from the start."""
    whole, parted = list(weights().values()), list(weights().values())
    stepped(make([{"params": whole[:2]}, {"params": whole[2:]}]), whole)
    rule = make(parted[:2])
    rule.add_param_group({"params": parted[2:]})
    assert rule.state[parted[2]].keys() == rule.state[parted[0]].keys()
    stepped(rule, parted)
    assert all(map(torch.equal, whole, parted)) and not torch.equal(parted[2], weights()["decoder.w"])


@pytest.mark.parametrize("make", [lambda params: rmsprop.RMSProp(params, 1e-2, 1e-5),
                                  lambda params: adam.Adam(params, 1e-2)], ids=["tf-rmsprop", "tf-adam"])
def test_a_copy_takes_the_same_steps(make):
    """As `copy.deepcopy` or a pickle makes one; the slots of the copy are its own."""
    parameters = list(weights().values())
    rule = make(parameters)
    stepped(rule, parameters)
    other = copy.deepcopy(rule)
    theirs = other.param_groups[0]["params"]
    stepped(rule, parameters)
    assert not torch.equal(parameters[0], theirs[0])
    stepped(other, theirs)
    assert all(map(torch.equal, parameters, theirs))


class _OnGPU(optimizers.SGD):
    """Takes the path of a GPU on any machine."""

    def on_gpu(self) -> bool:
        return True


class _Zeros(TorchDispatchMode):
    """Counts the tensors of zeros that are made."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += "zeros" in str(func)
        return func(*args, **(kwargs or {}))


def test_sgd_makes_its_buffers_once():
    """Not one more for each parameter and step, to be thrown away."""
    parameters = list(weights().values())
    rule = _OnGPU(parameters, 1e-2, momentum=0.9)
    stepped(rule, parameters)
    with _Zeros() as made:
        stepped(rule, parameters)
    assert made.count == 0


@pytest.mark.parametrize("kind", [optimizers.SGD, _OnGPU])
def test_sgd_gives_back_the_loss(kind):
    """A closure is called with gradients on, and counts, on a GPU as elsewhere."""
    parameter = torch.nn.Parameter(torch.ones(()))
    rule = kind([parameter], 0.5)

    def closure():
        rule.zero_grad()
        loss = parameter.square()
        loss.backward()
        return loss

    assert rule.step(closure) == 1.0 and parameter == 0.0
