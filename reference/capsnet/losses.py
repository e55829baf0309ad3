"""Losses of CapsNet in TensorFlow: the margin on lengths, and the reconstruction.

Read beside `port/capsnet/losses.py`: same names, same order.
"""

from __future__ import annotations

import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


def margin_terms(lengths: Array, labels: Array, upper: float = 0.9, lower: float = 0.1,
                 down_weight: float = 0.5) -> Array:
    """T max(0, m⁺ - |v|)² + λ (1 - T) max(0, |v| - m⁻)² of every example and class.

    Args:
        lengths: |v|, `[batch, class]`.
        labels: T, one-hot of the same shape and dtype.
        upper: m⁺.
        lower: m⁻.
        down_weight: λ.

    Returns:
        `[batch, class]`.

    Source: CapsNet paper, equation 4.
    """
    present = labels * tf.square(tf.nn.relu(upper - lengths))
    absent = (1.0 - labels) * tf.square(tf.nn.relu(lengths - lower))
    return present + down_weight * absent


def margin_loss(lengths: Array, labels: Array, reduction: str = "sum") -> Array:
    """The margin loss in either published scale.

    Args:
        lengths: |v|, `[batch, class]`.
        labels: one-hot, same shape and dtype.
        reduction: `sum`: over classes, mean over the batch (paper); `mean`: half the mean over batch
            and classes (official), the paper's divided by 2·classes.

    Returns:
        A scalar.

    Source: CapsNet paper, section 3; official `layers.py: _margin_loss` and `evaluate`.
    """
    terms = margin_terms(lengths, labels)
    if reduction == "sum":
        return tf.reduce_mean(tf.reduce_sum(terms, 1))
    return 0.5 * tf.reduce_mean(terms)


def reconstruction_loss(image: Array, reconstruction: Array, weight: float = 0.0005) -> Array:
    """weight · Σ (x - r)², summed over an image's numbers, mean over the batch.

    Args:
        image: x, `[batch, …]`.
        reconstruction: r, of the same shape.
        weight: of the sum.

    Returns:
        A scalar.

    Source: CapsNet paper, section 4.1 (its 0.0005 is on the sum: 0.392 on the mean of 784).
    """
    square = tf.square(reconstruction - image)
    return weight * tf.reduce_mean(tf.reduce_sum(tf.reshape(square, [square.shape[0], -1]), 1))
