"""RMSProp as TensorFlow 1 computes it, and the original's gradient clipping.

Read beside `port/core/rmsprop.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


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
    ms = decay * ms + (1.0 - decay) * tf.square(grad)
    mom = momentum * mom + lr * grad / tf.sqrt(ms + epsilon)
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
        given = [tf.clip_by_value(grad, -value_clip, value_clip) for grad in given]
    if norm_clip > 0:
        n_parameters = sum(int(np.prod(grad.shape)) for grad in given)
        given, _ = tf.clip_by_global_norm(given, norm_clip * math.sqrt(n_parameters))
    clipped = iter(given)
    return [None if grad is None else next(clipped) for grad in grads]


class RMSProp:
    """`rmsprop_update` over named variables, with slots under the original's names.

    Args:
        variables: name → variable.
        lr: learning rate.
        epsilon: see `rmsprop_epsilon`.
        decay: of the mean square.
        momentum: of the step.

    Source: `tf.train.RMSPropOptimizer`. A variable without gradient keeps its slots untouched.
    """

    def __init__(self, variables: Mapping[str, tf.Variable], lr: float, epsilon: float,
                 decay: float = 0.9, momentum: float = 0.9) -> None:
        self.variables = dict(variables)
        self.lr, self.epsilon, self.decay, self.momentum = lr, epsilon, decay, momentum
        self.ms = {name: tf.Variable(tf.ones_like(v)) for name, v in self.variables.items()}
        self.mom = {name: tf.Variable(tf.zeros_like(v)) for name, v in self.variables.items()}

    def load_slots(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Take `<name>/RMSProp` and `<name>/RMSProp_1` where given; True if any was."""
        found = False
        for name, variable in self.variables.items():
            for slot, suffix in ((self.ms, "RMSProp"), (self.mom, "RMSProp_1")):
                if f"{name}/{suffix}" in arrays:
                    slot[name].assign(tf.cast(arrays[f"{name}/{suffix}"], variable.dtype))
                    found = True
        return found

    def step(self, gradients: Mapping[str, Array | None]) -> None:
        """Apply one step; variables whose gradient is None are skipped."""
        for name, grad in gradients.items():
            if grad is None:
                continue
            variable = self.variables[name]
            var, ms, mom = rmsprop_update(variable, tf.convert_to_tensor(grad), self.ms[name],
                                          self.mom[name], self.lr, self.decay, self.momentum,
                                          self.epsilon)
            variable.assign(var)
            self.ms[name].assign(ms)
            self.mom[name].assign(mom)
