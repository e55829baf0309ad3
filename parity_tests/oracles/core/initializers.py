"""Oracles of the initial values: the bounds and moments a draw must keep, and the templates."""

import math

import numpy as np

from parity_tests.oracles.scalars import as64


def fans(shape) -> tuple[int, int]:
    """TensorFlow's fan rule: (fan_in, fan_out) of a variable's shape.

    rank 0: (1, 1); rank 1: (n, n); rank 2: (n, m); beyond, all axes but the last two are a
    receptive field r that multiplies both: (r n, r m). So cpr_static [1, O, V, 6] has
    fan_in = O V and fan_out = 6 O.
    Source: tensorflow/python/ops/init_ops.py, as used by tf.glorot_uniform_initializer.
    """
    shape = list(shape)
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], shape[0]
    receptive = 1
    for length in shape[:-2]:
        receptive *= length
    return receptive * shape[-2], receptive * shape[-1]


def glorot_limit(shape) -> float:
    """Bound of the uniform draw: sqrt(6 / (fan_in + fan_out)).

    Source: tf.glorot_uniform_initializer (variance scaling, scale 1, fan_avg, uniform).
    """
    fan_in, fan_out = fans(shape)
    return math.sqrt(3.0 / max(1.0, (fan_in + fan_out) / 2.0))


def uniform_stddev(limit: float) -> float:
    """Standard deviation of U(-limit, limit): limit / sqrt(3)."""
    return limit / math.sqrt(3.0)


def fan_in_stddev(shape) -> float:
    """Stddev of a convolution or linear weight before truncation: 1 / sqrt(fan_in).

    Args: HWIO kernel (fan_in = h w c_in) or [in, out].
    Source: Sonnet's default for snt.Conv2D and snt.Linear.
    """
    fan_in = 1
    for length in list(shape)[:-1]:
        fan_in *= length
    return 1.0 / math.sqrt(fan_in)


def capsule_fan_in_stddev(shape) -> float:
    """Stddev of the per-capsule weights [1, O, in, out] before truncation: 1 / sqrt(in).

    Each capsule has a matrix of its own, so the number of capsules does not count.
    Source: neural.py, BatchLinear.
    """
    return 1.0 / math.sqrt(shape[-2])


def truncated_normal_limit(stddev: float) -> float:
    """Largest magnitude of a draw: 2 stddev.

    Source: tf.truncated_normal_initializer (redraws beyond two standard deviations).
    """
    return 2.0 * stddev


def truncated_normal_stddev(stddev: float) -> float:
    """Standard deviation left after the cut: stddev sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).

    The draw is not re-scaled, so it is 0.8796 stddev. Source: the same.
    """
    density = math.exp(-2.0) / math.sqrt(2.0 * math.pi)
    mass = math.erf(2.0 / math.sqrt(2.0))
    return stddev * math.sqrt(1.0 - 4.0 * density / mass)


def orthogonal_templates(q, n_templates: int, template_size, n_channels: int) -> np.ndarray:
    """Templates from an orthogonal matrix Q, given: (q - min q) / (max q - min q).

    The rows :K and columns :h w C of Q, each row read in the order (row, column, channel); the
    extremes are over what is kept. Only Q itself (of the QR of a U[0, 1) matrix of
    n = max(K, h w C)) is an input, since a factorisation is no loop of ours.
    Args: q [n, n]; template_size (h, w). Returns [1, K, h, w, C].
    Source: primary.py, TemplateBasedImageDecoder.make_templates.
    """
    q = as64(q)
    height, width = template_size
    out = np.zeros((1, n_templates, height, width, n_channels))
    smallest, largest = math.inf, -math.inf
    for k in range(n_templates):
        for i in range(height):
            for j in range(width):
                for c in range(n_channels):
                    value = float(q[k, (i * width + j) * n_channels + c])
                    out[0, k, i, j, c] = value
                    smallest, largest = min(smallest, value), max(largest, value)
    for index in np.ndindex(out.shape):
        out[index] = (float(out[index]) - smallest) / (largest - smallest)
    return out
