"""Adam as TensorFlow 1 computes it, and the routing ancestors' learning-rate schedule.

Read beside `reference/core/adam.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.adam import adam

from port.core.optimizer import Optimizer

Array = Float[Tensor, "..."]

# The original programs hold the decay base in float32.
DECAY = float(np.float32(0.96))


def exponential_decay(step: int, lr: float = 1e-3, decay: float = DECAY, decay_steps: int = 2000,
                      floor: float = 1e-6) -> float:
    """Learning rate of one step: max(lr·decay^(step/decay_steps), floor), without a staircase.

    Args:
        step: updates made before this one; 0 for the first.
        lr: learning rate at step 0.
        decay: factor per `decay_steps`.
        decay_steps: in updates.
        floor: smallest value.

    Returns:
        The learning rate.

    Source: official CapsNet, `tf.train.exponential_decay` under a `tf.maximum`.
    """
    return max(lr * decay ** (step / decay_steps), floor)


def adam_update(var: Array, grad: Array, m: Array, v: Array, step: int, lr: float, beta1: float = 0.9,
                beta2: float = 0.999, epsilon: float = 1e-8) -> tuple[Array, Array, Array]:
    """One step: var ← var - lr·sqrt(1 - β2ᵗ)/(1 - β1ᵗ)·m / (sqrt(v) + ε), t = step + 1.

    m ← β1 m + (1 - β1) g and v ← β2 v + (1 - β2) g² come first. The correction of v stands outside
    the root that epsilon is added to; PyTorch and Keras have it inside.

    Args:
        var: the variable.
        grad: its gradient, same shape.
        m: mean of the gradients, starts at zeros.
        v: mean of their squares, starts at zeros.
        step: updates made before this one.
        lr: learning rate.
        beta1: β1.
        beta2: β2.
        epsilon: ε.

    Returns:
        var, m and v after the step.

    Source: `tf.train.AdamOptimizer`.
    """
    m = beta1 * m + (1.0 - beta1) * grad
    v = beta2 * v + (1.0 - beta2) * torch.square(grad)
    size = lr * math.sqrt(1.0 - beta2 ** (step + 1)) / (1.0 - beta1 ** (step + 1))
    return var - size * m / (torch.sqrt(v) + epsilon), m, v


class Adam(Optimizer):
    """`adam_update` over parameters; slots `m` and `v` (from zeros), and `step`, updates made so far.

    Args:
        params: parameters, named pairs or groups, as for any `torch.optim.Optimizer`.
        lr: learning rate; a tensor on the device lets it change without the host.
        beta1: of the mean.
        beta2: of the mean square.
        epsilon: added to the root.

    Source: `tf.train.AdamOptimizer`. `torch.optim.Adam` differs where the root of v is near epsilon
    (1.6e-2 after five steps of a recorded network). A parameter without gradient keeps m and v, but
    its count goes on: TensorFlow has one for all.
    """

    def __init__(self, params: Iterable, lr: float | Tensor, beta1: float = 0.9, beta2: float = 0.999,
                 epsilon: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "beta1": beta1, "beta2": beta2, "epsilon": epsilon})

    def make_slots(self, parameters: list[Tensor]) -> None:
        for parameter in parameters:
            self.state[parameter] = {"m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter),
                                     # Float64 is exact for every count, and so are its powers' digits.
                                     "step": torch.zeros((), dtype=torch.float64, device=parameter.device)}

    @torch.no_grad()
    def step(self, closure=None):
        """Apply one step; parameters whose `grad` is None are skipped."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                apply = _adam_foreach if parameters[0].is_cuda else _adam_fused
                apply(parameters, [p.grad for p in parameters],
                      [self.state[p]["m"] for p in parameters],
                      [self.state[p]["v"] for p in parameters], self.state[parameters[0]]["step"],
                      group)
            torch._foreach_add_([self.state[p]["step"] for p in group["params"]], 1.0)
        return loss


def _adam_fused(parameters: list[Tensor], grads: list[Tensor], m: list[Tensor], v: list[Tensor],
                step: Tensor, group: dict) -> None:
    """`adam_update` in place in one pass over memory; the host has to know the step.

    torch's rule divides by sqrt(v)/sqrt(1 - β2ᵗ) + ε'; with ε' = ε/sqrt(1 - β2ᵗ) that is TensorFlow's.
    """
    beta2, steps = group["beta2"], int(step)
    adam([*parameters], grads, m, v, [],
         [torch.tensor(float(steps), device=p.device) for p in parameters], fused=True, amsgrad=False,
         beta1=group["beta1"], beta2=beta2, lr=float(group["lr"]), weight_decay=0.0, maximize=False,
         eps=group["epsilon"] / math.sqrt(1.0 - beta2 ** (steps + 1)))


def _adam_foreach(parameters: list[Tensor], grads: list[Tensor], m: list[Tensor], v: list[Tensor],
                  step: Tensor, group: dict) -> None:
    """`adam_update` in place without the host: step and rate stay on the device, so a graph can hold it."""
    beta1, beta2 = group["beta1"], group["beta2"]
    rate = torch.as_tensor(group["lr"], dtype=torch.float64, device=step.device)
    size = rate * torch.sqrt(1.0 - beta2 ** (step + 1)) / (1.0 - beta1 ** (step + 1))
    torch._foreach_mul_(m, beta1)
    torch._foreach_add_(m, grads, alpha=1.0 - beta1)
    torch._foreach_mul_(v, beta2)
    torch._foreach_addcmul_(v, grads, grads, value=1.0 - beta2)
    root = torch._foreach_sqrt(v)
    torch._foreach_add_(root, group["epsilon"])
    change = torch._foreach_div(m, root)
    torch._foreach_mul_(change, size.to(parameters[0].dtype))
    torch._foreach_sub_(parameters, change)
