"""Oracles of the optimizer: TensorFlow's RMSProp and gradient clipping."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles.scalars import as64


def rmsprop_epsilon(batch_size: int) -> float:
    """1e-2 / B^2.

    Source: configs/model_config.py:86.
    """
    return 1e-2 / (batch_size * batch_size)


def rmsprop_update(
    var, grad, ms, mom, lr: float, decay: float = 0.9, momentum: float = 0.9, epsilon: float = 1e-10
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step: ms' = decay ms + (1 - decay) g^2; mom' = momentum mom + lr g / sqrt(ms' + eps);
    var' = var - mom'.

    Epsilon is inside the root and the learning rate inside the momentum; ms starts at one, mom at
    zero.
    Args: four arrays of one shape. Returns (var', ms', mom').
    Source: tf.train.RMSPropOptimizer, centered=False.
    """
    var, grad, ms, mom = as64(var), as64(grad), as64(ms), as64(mom)
    new_var, new_ms, new_mom = (np.zeros(var.shape) for _ in range(3))
    for index in np.ndindex(var.shape):
        g = float(grad[index])
        square = decay * float(ms[index]) + (1.0 - decay) * g * g
        step = momentum * float(mom[index]) + lr * g / math.sqrt(square + epsilon)
        new_ms[index] = square
        new_mom[index] = step
        new_var[index] = float(var[index]) - step
    return new_var, new_ms, new_mom


def rmsprop(
    variables: Mapping[str, np.ndarray],
    gradients: Sequence[Mapping[str, np.ndarray | None]],
    lr: float,
    epsilon: float,
    decay: float = 0.9,
    momentum: float = 0.9,
) -> dict[str, np.ndarray]:
    """Several steps from fresh slots (ms ones, mom zeros); a gradient of None skips its variable.

    Args: variables by name; one mapping of gradients per step. Returns the variables afterwards.
    Source: tf.train.RMSPropOptimizer, apply_gradients.
    """
    current = {name: as64(value) for name, value in variables.items()}
    slots = {name: (np.ones(v.shape), np.zeros(v.shape)) for name, v in current.items()}
    for step in gradients:
        for name, grad in step.items():
            if grad is None:
                continue
            ms, mom = slots[name]
            current[name], ms, mom = rmsprop_update(
                current[name], grad, ms, mom, lr, decay, momentum, epsilon
            )
            slots[name] = ms, mom
    return current


def clip_gradients(
    grads: Sequence[np.ndarray | None], value_clip: float = 0.0, norm_clip: float = 0.0
) -> list[np.ndarray | None]:
    """Cuts each entry to [-value_clip, value_clip], then the global norm to norm_clip sqrt(n).

    n is the number of entries of all gradients that are there; g' = g limit / max(norm, limit)
    with the norm over all of them after the first cut. A clip of zero does nothing; None stays.
    Args: gradients of any shapes. Returns a list in the same order.
    Source: train/tools.py, clip_gradients.
    """
    clipped = [None if grad is None else as64(grad).copy() for grad in grads]
    if value_clip > 0:
        for grad in clipped:
            if grad is not None:
                for index in np.ndindex(grad.shape):
                    value = float(grad[index])
                    grad[index] = min(max(value, -value_clip), value_clip)
    if norm_clip > 0:
        n_params, squares = 0, 0.0
        for grad in clipped:
            if grad is not None:
                for index in np.ndindex(grad.shape):
                    n_params += 1
                    squares += float(grad[index]) * float(grad[index])
        limit = norm_clip * math.sqrt(n_params)
        norm = math.sqrt(squares)
        for grad in clipped:
            if grad is not None:
                for index in np.ndindex(grad.shape):
                    grad[index] = float(grad[index]) * limit / max(norm, limit)
    return clipped
