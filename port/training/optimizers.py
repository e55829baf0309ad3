"""Which rule updates the weights, by name, in one form that training, checkpoints and resume rely on.

Every tensor of an optimizer's state exists from the start, so that a checkpoint, a snapshot and a
captured graph find the same tensors before the first update as after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from port.core import adam, rmsprop

Parameters = Iterable[tuple[str, torch.nn.Parameter]]


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Attributes:
        make: builds it from parameter groups, batch size, momentum, weight decay and whether the state
            has to stay on the device.
        decays: whether it knows weight decay.
    """

    make: Callable[[list[dict], int, float, float, bool], torch.optim.Optimizer]
    decays: bool


class SGD(torch.optim.SGD):
    """`torch.optim.SGD`, whose rate may lie on a GPU: torch's reads it there, which stops the host.

    Arguments as there: `lr`, `momentum` and `weight_decay`.
    """

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one step; parameters whose `grad` is None are skipped."""
        if not self.on_gpu():
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            buffers = [self._buffer(p) for p in parameters] if group["momentum"] else []
            if parameters:
                sgd_foreach(parameters, [p.grad for p in parameters], buffers, group)
        return loss

    def on_gpu(self) -> bool:
        """Whether the update has to leave the host alone."""
        return self.param_groups[0]["params"][0].is_cuda

    def _buffer(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]


def sgd_foreach(parameters: list[Tensor], grads: list[Tensor], buffers: list[Tensor], group: dict
                ) -> None:
    """g ← g + decay·w; b ← momentum·b + g; w ← w - lr·b, in place, without the host.

    The buffers start at zeros, where torch's start as the first gradient: the same.
    """
    if group["weight_decay"]:
        grads = torch._foreach_add(grads, parameters, alpha=group["weight_decay"])
    if group["momentum"]:
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        grads = buffers
    torch._foreach_sub_(parameters, torch._foreach_mul(grads, group["lr"]))


RULES: Mapping[str, Rule] = {
    "tf-rmsprop": Rule(lambda groups, batch_size, momentum, decay, capturable: rmsprop.RMSProp(
        groups, lr=0.0, epsilon=rmsprop.rmsprop_epsilon(batch_size), momentum=momentum), False),
    "tf-adam": Rule(lambda groups, batch_size, momentum, decay, capturable: adam.Adam(
        groups, lr=0.0), False),
    "rmsprop": Rule(lambda groups, batch_size, momentum, decay, capturable: torch.optim.RMSprop(
        groups, lr=0.0, momentum=momentum, weight_decay=decay, capturable=capturable), True),
    "sgd": Rule(lambda groups, batch_size, momentum, decay, capturable: SGD(
        groups, lr=0.0, momentum=momentum, weight_decay=decay), True),
    "adam": Rule(lambda groups, batch_size, momentum, decay, capturable: torch.optim.Adam(
        groups, lr=0.0, weight_decay=decay, capturable=capturable), True),
    "radam": Rule(lambda groups, batch_size, momentum, decay, capturable: torch.optim.RAdam(
        groups, lr=0.0, weight_decay=decay, capturable=capturable), True),
}


def make(parameters: Parameters, rule: str = "tf-rmsprop", batch_size: int = 128,
         momentum: float = 0.9, weight_decay: float = 0.0,
         factors: Mapping[str, float] | None = None) -> torch.optim.Optimizer:
    """The optimizer of a run, its state at its initial values.

    Args:
        parameters: named.
        rule: a name in `RULES`; `tf-rmsprop` is the original's.
        batch_size: sets the original's epsilon.
        momentum: of the rules that have one.
        weight_decay: added to the gradient times the weight; for the rules of PyTorch.
        factors: prefix of a parameter's name to factor on its rate; the longest prefix that fits
            counts, 1 without one.

    Returns:
        An optimizer whose groups have a `factor`; the rate, 0 until then, is set by `Rate`.

    Raises:
        ValueError: an unknown rule, weight decay where the rule has none, or a prefix that fits no
            parameter.
    """
    if rule not in RULES:
        raise ValueError(f"optimizer must be one of {', '.join(RULES)}, not {rule!r}")
    if weight_decay and not RULES[rule].decays:
        raise ValueError(f"weight_decay does not go with {rule}; the original's is part of its loss")
    named = list(parameters)
    groups = grouped(named, factors or {})
    on_gpu = any(parameter.is_cuda for _, parameter in named)
    optimizer = RULES[rule].make(groups, batch_size, momentum, weight_decay, on_gpu)
    if not optimizer.state:  # our own rules make theirs at once
        _materialise(optimizer)
    return optimizer


def grouped(named: list[tuple[str, torch.nn.Parameter]], factors: Mapping[str, float]) -> list[dict]:
    """Parameters with the same factor together, in their order; `params` holds named pairs."""
    unused = [prefix for prefix in factors if not any(name.startswith(prefix) for name, _ in named)]
    if unused:
        raise ValueError(f"no parameter begins with {unused[0]}")
    groups: dict[float, list] = {}
    for name, parameter in named:
        fitting = [prefix for prefix in factors if name.startswith(prefix)]
        factor = factors[max(fitting, key=len)] if fitting else 1.0
        groups.setdefault(factor, []).append((name, parameter))
    return [{"params": members, "factor": factor} for factor, members in groups.items()]


def _materialise(optimizer: torch.optim.Optimizer) -> None:
    """Make torch create its state now: an update by zero at rate zero, then everything back to zero."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter in parameters:
        parameter.grad = None
        for value in optimizer.state[parameter].values():
            if torch.is_tensor(value):
                value.zero_()


class Rate:
    """The learning rate of an optimizer, changed from step to step.

    Where the rule allows, the groups hold tensors on the device, which a captured graph reads; else
    numbers. Torch's own rules take tensors only where they can be captured.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device):
        own = isinstance(optimizer, (rmsprop.RMSProp, adam.Adam, torch.optim.SGD))
        self.groups = optimizer.param_groups
        self.on_device = own or device.type == "cuda"
        if self.on_device:
            for group in self.groups:
                group["lr"] = torch.zeros((), device=device)

    def fill(self, lr: float) -> None:
        """Every group's rate: lr times the factor of the group."""
        for group in self.groups:
            rate = lr * group.get("factor", 1.0)
            if self.on_device:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def slot_names(rule: str, momentum: float) -> frozenset[str]:
    """The slots of a rule, beside the number of updates that some keep with them."""
    named = [("weight", torch.nn.Parameter(torch.zeros(1)))]
    return names_of(slots(named, make(named, rule, momentum=momentum)))


def names_of(keys: Iterable[str]) -> frozenset[str]:
    """The slots in `<parameter name>/<slot>`, beside the number of updates."""
    return frozenset(key.rpartition("/")[2] for key in keys) - {"step"}


def slots(named: Parameters, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The very tensors of the state as `<parameter name>/<slot>`, slot by slot."""
    named = list(named)
    names = dict.fromkeys(slot for _, parameter in named for slot, value
                          in optimizer.state[parameter].items() if torch.is_tensor(value))
    return {f"{name}/{slot}": optimizer.state[parameter][slot] for slot in names
            for name, parameter in named if slot in optimizer.state[parameter]}
