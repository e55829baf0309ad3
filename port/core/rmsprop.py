"""RMSProp as TensorFlow 1 computes it, and the original's gradient clipping.

Read beside `reference/core/rmsprop.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Array = Float[Tensor, "..."]


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


class RMSProp(torch.optim.Optimizer):
    """`rmsprop_update` over parameters; slots `ms` (from ones) and `mom` (from zeros).

    Args:
        params: parameters, named pairs or groups, as for any `torch.optim.Optimizer`.
        lr: learning rate; a tensor on the device lets it change without the host.
        epsilon: see `rmsprop_epsilon`.
        decay: of the mean square.
        momentum: of the step.

    Source: `tf.train.RMSPropOptimizer`. `torch.optim.RMSprop` is another rule: epsilon outside the
    root, mean square from zeros, learning rate outside the momentum. A parameter without gradient
    is skipped; one with a zero gradient still decays its slots.
    """

    def __init__(self, params: Iterable, lr: float | Tensor, epsilon: float, decay: float = 0.9,
                 momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "epsilon": epsilon, "decay": decay,
                                  "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter] = {"ms": torch.ones_like(parameter),
                                         "mom": torch.zeros_like(parameter)}

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one step; parameters whose `grad` is None are skipped."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            grads = [p.grad for p in parameters]
            ms = [self.state[p]["ms"] for p in parameters]
            mom = [self.state[p]["mom"] for p in parameters]
            _rmsprop_foreach(parameters, grads, ms, mom, group["lr"], group["decay"],
                             group["momentum"], group["epsilon"])
        return loss


def _rmsprop_foreach(parameters: list[Tensor], grads: list[Tensor], ms: list[Tensor],
                     mom: list[Tensor], lr: float | Tensor, decay: float, momentum: float,
                     epsilon: float) -> None:
    """`rmsprop_update` in place on many tensors at once: a few kernels instead of six a tensor."""
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
    torch._foreach_sub_(parameters, mom)
