"""Oracles of TensorFlow 1's Adam and the decaying learning rate."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles.scalars import as64


def exponential_decay(
    step: int,
    lr: float = 1e-3,
    decay: float = float(np.float32(0.96)),
    decay_steps: int = 2000,
    floor: float = 1e-6,
) -> float:
    """lr decay^(step / decay_steps), at least floor.

    Source: tf.train.exponential_decay, staircase=False.
    """
    rate = lr * math.exp(math.log(decay) * step / decay_steps)
    return rate if rate > floor else floor


def adam_update(
    var, grad, m, v, step: int, lr: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """m' = beta1 m + (1 - beta1) g; v' = beta2 v + (1 - beta2) g^2;
    var' = var - lr sqrt(1 - beta2^t) / (1 - beta1^t) m' / (sqrt(v') + eps), t = step + 1.

    Args: four arrays of one shape. Returns (var', m', v').
    Source: tf.train.AdamOptimizer.
    """
    var, grad, m, v = as64(var), as64(grad), as64(m), as64(v)
    new_var, new_m, new_v = (np.zeros(var.shape) for _ in range(3))
    left1, left2 = 1.0, 1.0
    for _ in range(step + 1):
        left1 *= beta1
        left2 *= beta2
    for index in np.ndindex(var.shape):
        g = float(grad[index])
        mean = beta1 * float(m[index]) + (1.0 - beta1) * g
        square = beta2 * float(v[index]) + (1.0 - beta2) * g * g
        rate = lr * math.sqrt(1.0 - left2) / (1.0 - left1)
        new_m[index], new_v[index] = mean, square
        new_var[index] = float(var[index]) - rate * mean / (math.sqrt(square) + epsilon)
    return new_var, new_m, new_v


def adam(
    variables: Mapping[str, np.ndarray],
    gradients: Sequence[Mapping[str, np.ndarray | None]],
    rates: Sequence[float],
) -> dict[str, np.ndarray]:
    """Several steps from zero slots, each with its learning rate; a gradient of None skips its variable.

    Args: variables by name; one mapping of gradients per step. Returns the variables afterwards.
    Source: tf.train.AdamOptimizer, apply_gradients.
    """
    current = {name: as64(value) for name, value in variables.items()}
    slots = {name: (np.zeros(v.shape), np.zeros(v.shape)) for name, v in current.items()}
    for step, (found, rate) in enumerate(zip(gradients, rates)):
        for name, grad in found.items():
            if grad is None:
                continue
            m, v = slots[name]
            current[name], m, v = adam_update(current[name], grad, m, v, step, rate)
            slots[name] = m, v
    return current
