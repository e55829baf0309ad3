"""Initial values, drawn with NumPy so that reference and port start bit-equal from one seed.

The twin file in the other package is the same text: no framework is involved.
"""

from __future__ import annotations

import numpy as np


def truncated_normal(rng: np.random.Generator, shape: tuple[int, ...], stddev: float) -> np.ndarray:
    """Normal draws redrawn until within two standard deviations, not rescaled afterwards (Q16).

    Args:
        rng: the source of randomness.
        shape: shape of the result.
        stddev: standard deviation before the cut; the result has 0.8796 of it.

    Returns:
        float32 array.

    Source: `tf.truncated_normal_initializer`; the original passes 1 / sqrt(fan_in).
    """
    values = rng.standard_normal(shape)
    outside = np.abs(values) > 2.0
    while outside.any():
        values[outside] = rng.standard_normal(int(outside.sum()))
        outside = np.abs(values) > 2.0
    return (values * stddev).astype(np.float32)


def glorot_uniform(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in ± sqrt(6 / (fan_in + fan_out)), with TensorFlow's rule for the fans.

    For more than two axes the leading ones are a receptive field r: fan_in = r·shape[-2], fan_out =
    r·shape[-1]. A single axis n has both fans n.

    Args:
        rng: the source of randomness.
        shape: shape of the result, at least one axis.

    Returns:
        float32 array.

    Source: `tf.get_variable`'s default initializer (`tf.glorot_uniform_initializer`).
    """
    if len(shape) == 1:
        fan_in = fan_out = shape[0]
    else:
        receptive = int(np.prod(shape[:-2]))
        fan_in, fan_out = receptive * shape[-2], receptive * shape[-1]
    limit = np.sqrt(6.0 / (fan_in + fan_out))
    return rng.uniform(-limit, limit, shape).astype(np.float32)


def orthogonal_templates(rng: np.random.Generator, n_templates: int, template_size: tuple[int, int],
                         n_channels: int) -> np.ndarray:
    """Rows of a random orthogonal matrix, scaled together to [0, 1].

    Q from the QR decomposition of an n × n matrix of U[0, 1), n = max(K, T·T·C); its first K rows
    and T·T·C columns, then (q - min) / (max - min) over everything.

    Args:
        rng: the source of randomness.
        n_templates: K.
        template_size: (T, T) in pixels, rows first.
        n_channels: C.

    Returns:
        float32 `[1, K, T, T, C]`.

    Source: original `primary.py: TemplateBasedImageDecoder` (its initial templates).
    """
    n_elements = template_size[0] * template_size[1] * n_channels
    n = max(n_templates, n_elements)
    q = np.linalg.qr(rng.uniform(size=(n, n)))[0][:n_templates, :n_elements]
    q = (q - q.min()) / (q.max() - q.min())
    return q.reshape(1, n_templates, *template_size, n_channels).astype(np.float32)
