"""Adam as TensorFlow 1 computes it, and the routing ancestors' learning-rate schedule.

Read beside `port/core/adam.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]

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
    v = beta2 * v + (1.0 - beta2) * tf.square(grad)
    size = lr * math.sqrt(1.0 - beta2 ** (step + 1)) / (1.0 - beta1 ** (step + 1))
    return var - size * m / (tf.sqrt(v) + epsilon), m, v


class Adam:
    """`adam_update` over named variables.

    Args:
        variables: name → variable.
        lr: learning rate; `step` may be given another one.
        beta1: of the mean.
        beta2: of the mean square.
        epsilon: added to the root.

    Source: `tf.train.AdamOptimizer`. A variable without gradient keeps its slots untouched.
    """

    def __init__(self, variables: Mapping[str, tf.Variable], lr: float, beta1: float = 0.9,
                 beta2: float = 0.999, epsilon: float = 1e-8) -> None:
        self.variables = dict(variables)
        self.lr, self.beta1, self.beta2, self.epsilon = lr, beta1, beta2, epsilon
        self.steps = 0
        self.m = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}
        self.v = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """Apply one step with the learning rate in `lr`; a variable whose gradient is None is skipped."""
        for name, grad in gradients.items():
            if grad is None:
                continue
            variable = self.variables[name]
            var, m, v = adam_update(variable, tf.convert_to_tensor(grad), self.m[name], self.v[name],
                                    self.steps, self.lr, self.beta1, self.beta2, self.epsilon)
            variable.assign(var)
            self.m[name].assign(m)
            self.v[name].assign(v)
        self.steps += 1
