"""RMSProp as TensorFlow 1 computes it, and the original's gradient clipping.

Read beside `reference/core/rmsprop.py`: same names, same order.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from port.core.optimizer import Optimizer

Array = Float[Tensor, "..."]

FIRST_SQUARE = 1.0  # what TensorFlow's mean square starts from


def rmsprop_epsilon(batch_size: int) -> float:
    """The original's epsilon, 1e-2 / B² (Q10).

    Args:
        batch_size: B.

    Returns:
        1e-2 / B².

    Source: original `configs/model_config.py`.
    """
    return 1e-2 / batch_size ** 2


def rmsprop_update(var: Array, grad: Array, ms: Array, mom: Array, lr: float, decay: float = 0.9,
                   momentum: float = 0.9, epsilon: float = 1e-10) -> tuple[Array, Array, Array]:
    """One step: ms ← ρ ms + (1 - ρ) g²; mom ← μ mom + lr g / sqrt(ms + ε); var ← var - mom.

    Epsilon stands inside the root and the learning rate inside the momentum (Q11).

    Args:
        var: the variable.
        grad: its gradient, same shape.
        ms: mean square, starts at ones.
        mom: momentum, starts at zeros.
        lr: learning rate.
        decay: ρ.
        momentum: μ.
        epsilon: ε.

    Returns:
        var, ms and mom after the step.

    Source: `tf.train.RMSPropOptimizer`, `centered=False`.
    """
    ms = decay * ms + (1.0 - decay) * torch.square(grad)
    mom = momentum * mom + lr * grad / torch.sqrt(ms + epsilon)
    return var - mom, ms, mom


def clip_gradients(grads: Sequence[Array | None], value_clip: float = 0.0, norm_clip: float = 0.0
                   ) -> list[Array | None]:
    """Clip by value, then by global norm; the norm's limit is multiplied by sqrt(#parameters).

    Args:
        grads: gradients; None passes through.
        value_clip: largest absolute entry; 0 for no clipping.
        norm_clip: limit of the norm per root parameter; 0 for no clipping.

    Returns:
        The clipped gradients.

    Source: original `train/tools.py: clip_gradients`.
    """
    given = [grad for grad in grads if grad is not None]
    if value_clip > 0:
        given = [torch.clamp(grad, -value_clip, value_clip) for grad in given]
    if norm_clip > 0:
        limit = norm_clip * math.sqrt(sum(grad.numel() for grad in given))
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in given]))
        factor = limit / torch.clamp(norm, min=limit)
        given = [grad * factor for grad in given]
    clipped = iter(given)
    return [None if grad is None else next(clipped) for grad in grads]


class RMSProp(Optimizer):
    """`rmsprop_update` over parameters; slots `ms` (from ones) and `mom` (from zeros).

    Args:
        params: parameters, named pairs or groups, as for any `torch.optim.Optimizer`.
        lr: learning rate; a tensor on the device lets it change without the host.
        epsilon: see `rmsprop_epsilon`.
        decay: of the mean square.
        momentum: of the step.

    Attributes:
        flats: for each group the one piece of memory that its slots lie in; None where they lie apart.

    Source: `tf.train.RMSPropOptimizer`. `torch.optim.RMSprop` is another rule: epsilon outside the
    root, mean square from zeros, learning rate outside the momentum. A parameter without gradient
    is skipped; one with a zero gradient still decays its slots.
    """

    def __init__(self, params: Iterable, lr: float | Tensor, epsilon: float, decay: float = 0.9,
                 momentum: float = 0.9) -> None:
        self.flats: list[_Flat | None] = []
        super().__init__(params, {"lr": lr, "epsilon": epsilon, "decay": decay,
                                  "momentum": momentum})

    def make_slots(self, parameters: list[Tensor]) -> None:
        flat = _Flat.of(parameters)
        self.flats.append(flat)
        for i, parameter in enumerate(parameters):
            self.state[parameter] = {"ms": torch.full_like(parameter, FIRST_SQUARE),
                                     "mom": torch.zeros_like(parameter)} if flat is None else flat.slots(i)

    def __setstate__(self, state: dict) -> None:
        """Of a copy or of a loaded pickle, whose slots are tensors of their own."""
        super().__setstate__(state)
        self.flats = [None] * len(self.param_groups)

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one step; parameters whose `grad` is None are skipped."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, flat in zip(self.param_groups, self.flats, strict=True):
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            mom = [self.state[p]["mom"] for p in parameters]
            constants = (group["lr"], group["decay"], group["momentum"], group["epsilon"])
            # Slots that were put in later are in no flat memory.
            if flat is not None and flat.holds(group["params"], self.state):
                for grad, ms, moved in flat.pieces(group["params"]):
                    _move(grad, ms, moved, *constants)
            else:
                _move([p.grad for p in parameters], [self.state[p]["ms"] for p in parameters], mom, *constants)
            torch._foreach_sub_(parameters, mom)
        return loss


class _Flat:
    """The slots of a group on a CPU, one behind the other in memory: a few long operations a step.

    A hundred small tensors cost more in calls than in arithmetic. Entry by entry the operations are those
    on the tensors one by one, so the results are the same bits.

    Args:
        parameters: of the group; contiguous, of one dtype.
    """

    PIECE = 2**16  # entries that stay in a core's cache from the first operation to the last

    def __init__(self, parameters: list[Tensor]) -> None:
        first, n = parameters[0], sum(p.numel() for p in parameters)
        self.ms, self.mom = first.new_full((n,), FIRST_SQUARE), first.new_zeros(n)
        ends = itertools.accumulate((p.numel() for p in parameters), initial=0)
        self._views = [{"ms": self.ms[end:end + p.numel()].view(p.shape),
                        "mom": self.mom[end:end + p.numel()].view(p.shape)}
                       for p, end in zip(parameters, ends)]

    @classmethod
    def of(cls, parameters: list[Tensor]) -> _Flat | None:
        """For a group; None where its tensors cannot lie like that, or on a GPU, where nothing is gained."""
        fit = all(p.device.type == "cpu" and p.is_contiguous() and p.dtype == parameters[0].dtype for p in parameters)
        return cls(parameters) if fit and len(parameters) > 1 else None

    def slots(self, i: int) -> dict[str, Tensor]:
        """Of parameter i, parts of the flat memory."""
        return dict(self._views[i])

    def holds(self, parameters: list[Tensor], state: Mapping[Tensor, dict[str, Tensor]]) -> bool:
        """Whether the slots still lie here, and the gradients can be laid beside them."""
        return len(parameters) == len(self._views) and all(
            state[p]["ms"] is own["ms"] and state[p]["mom"] is own["mom"]
            and (p.grad is None or (p.grad.dtype == p.dtype and not p.grad.is_sparse))
            for p, own in zip(parameters, self._views))

    def pieces(self, parameters: list[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor], list[Tensor]]]:
        """Gradients, mean squares and momenta, as lists of one; parameters without gradient part the memory."""
        end, grads = 0, []
        for parameter in [*parameters, None]:
            if parameter is not None and parameter.grad is not None:
                grads.append(parameter.grad.reshape(-1))
                continue
            if grads:
                grad = torch.cat(grads) if len(grads) > 1 else grads[0]
                for at in range(0, len(grad), self.PIECE):
                    there = slice(end + at, end + min(at + self.PIECE, len(grad)))
                    yield [grad[at:at + self.PIECE]], [self.ms[there]], [self.mom[there]]
                end, grads = end + len(grad), []
            end += 0 if parameter is None else parameter.numel()


def _move(grads: list[Tensor], ms: list[Tensor], mom: list[Tensor], lr: float | Tensor, decay: float,
          momentum: float, epsilon: float) -> None:
    """`rmsprop_update` of both slots, in place on many tensors at once: a few kernels instead of six a tensor."""
    torch._foreach_mul_(ms, decay)
    torch._foreach_addcmul_(ms, grads, grads, value=1.0 - decay)
    root = torch._foreach_add(ms, epsilon)
    torch._foreach_sqrt_(root)
    torch._foreach_mul_(mom, momentum)
    # The rate may lie on the device, so that it can change inside a captured graph; in this order of
    # operations both kinds give the same bits as addcdiv.
    scaled = torch._foreach_mul(grads, lr)
    torch._foreach_div_(scaled, root)
    torch._foreach_add_(mom, scaled)
