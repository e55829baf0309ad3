"""The pixel mixture of the original's `capsules/prob.py: MixtureDistribution`, Normal components.

Read beside `port/core/mixture.py`: same functions, same order. The component axis is 1; images are
channels last here.
"""

from __future__ import annotations

import math

import tensorflow as tf
from jaxtyping import Float

from reference.core import ops

Array = Float[tf.Tensor, "..."]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_HALF_LOG_PI = 0.5 * math.log(math.pi)


def normal_log_prob(x: Array, mean: Array, scale: Array) -> Array:
    """log N(x; mean, scale) = -½((x - mean)/scale)² - log scale - ½ log 2π.

    Args:
        x: broadcasts against `mean`.
        mean: any shape.
        scale: broadcasts against `mean`, positive.

    Returns:
        The broadcast shape.

    Source: `tfd.Normal.log_prob`.
    """
    standardised = (x - mean) / scale
    return -0.5 * tf.square(standardised) - tf.math.log(scale) - _HALF_LOG_TWO_PI


def student_log_prob(x: Array, df: Array, loc: Array, scale: Array) -> Array:
    """Student's t: log Γ((ν+1)/2) - log Γ(ν/2) - ½ log(πν) - log scale - (ν+1)/2 log(1 + y²/ν).

    y = (x - loc) / scale.

    Args:
        x: broadcasts against `loc`.
        df: ν, degrees of freedom, a positive scalar.
        loc: any shape.
        scale: broadcasts against `loc`, positive.

    Returns:
        The broadcast shape.

    Source: `tfd.StudentT.log_prob`.
    """
    standardised = (x - loc) / scale
    normaliser = (tf.math.log(scale) + 0.5 * tf.math.log(df) + _HALF_LOG_PI
                  + tf.math.lgamma(0.5 * df) - tf.math.lgamma(0.5 * (df + 1.0)))
    return -0.5 * (df + 1.0) * tf.math.log1p(tf.square(standardised) / df) - normaliser


def mixing_log_prob(mixing_logits: Array) -> Array:
    """logits - lse(logits) over the components.

    Args:
        mixing_logits: `[B, K, ...]`.

    Returns:
        The same shape.

    Source: original `prob.MixtureDistribution.mixing_log_prob`. Not `log_softmax`: with every
    component absent (all at -1e8) that differs by 1.4 in float32.
    """
    return mixing_logits - ops.log_sum_exp(mixing_logits, 1, keepdims=True)


def mixture_log_prob(x: Float[tf.Tensor, "batch h w channels"],
                     mixing_logits: Float[tf.Tensor, "batch parts h w #channels"],
                     mean: Float[tf.Tensor, "batch parts h w channels"], scale: Array
                     ) -> Float[tf.Tensor, "batch h w channels"]:
    """Σ over components inside the logarithm: lse_k(log N(x; mean_k, scale) + log π_k).

    Args:
        x: `[B, H, W, C]`.
        mixing_logits: `[B, K, H, W, 1 or C]`.
        mean: `[B, K, H, W, C]`.
        scale: broadcasts against `mean`.

    Returns:
        `[B, H, W, C]`: every channel is its own mixture.

    Source: original `prob.MixtureDistribution.log_prob`; paper equation (4).
    """
    component = normal_log_prob(tf.expand_dims(x, 1), mean, scale)
    return ops.log_sum_exp(component + mixing_log_prob(mixing_logits), 1)


def mixture_mean(mixing_logits: Float[tf.Tensor, "batch parts h w #channels"],
                 mean: Float[tf.Tensor, "batch parts h w channels"]
                 ) -> Float[tf.Tensor, "batch h w channels"]:
    """Σ_k softmax(logits)_k · mean_k.

    Args:
        mixing_logits: `[B, K, H, W, 1 or C]`.
        mean: `[B, K, H, W, C]`.

    Returns:
        `[B, H, W, C]`.

    Source: original `prob.MixtureDistribution.mean`.
    """
    return tf.reduce_sum(tf.nn.softmax(mixing_logits, 1) * mean, 1)


def mixture_mode(mixing_logits: Array, mean: Array, scale: Array | float = 1.0,
                 presence: Array | None = None, straight_through_gradient: bool = False,
                 maximum: bool = False) -> Array:
    """Mean of the component with the largest mixing probability, not the mode of the density (Q13).

    Args:
        mixing_logits: `[B, K, H, W, 1 or C]`.
        mean: `[B, K, H, W, C]`.
        scale: of the components; used by `maximum`.
        presence: `[B, K]`; used by `maximum`, 1 if None.
        straight_through_gradient: pass the gradient of the softmax of the score.
        maximum: add presence · (-log scale - ½ log 2π), each component's density at its own mode.

    Returns:
        `[B, H, W, C]`; ties take the lowest component.

    Source: original `prob.MixtureDistribution.mode`.
    """
    score = mixing_log_prob(mixing_logits)
    if maximum:
        scale = tf.convert_to_tensor(scale, mean.dtype)
        peak = tf.broadcast_to(normal_log_prob(mean, mean, scale), mean.shape)
        if presence is not None:
            peak = peak * ops.make_broadcastable(presence, peak)
        score = score + peak
    mask = tf.one_hot(tf.argmax(score, 1), score.shape[1], axis=1, dtype=mean.dtype)
    if straight_through_gradient:
        soft = tf.nn.softmax(score, 1)
        mask = tf.stop_gradient(mask) - tf.stop_gradient(soft) + soft
    return tf.reduce_sum(mask * mean, 1)
