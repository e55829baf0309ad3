"""Oracles of the pixel mixture: every pixel and channel is a mixture of K normals."""

import math

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.scalars import as64


def _pixels(shape):
    """Yields (b, h, w, c) over a [B, K, H, W, C] shape."""
    n_images, _, height, width, n_channels = shape
    yield from np.ndindex(n_images, height, width, n_channels)


def _full(*arrays) -> list[np.ndarray]:
    """The arrays at their common [B, K, H, W, C] shape."""
    return list(np.broadcast_arrays(*[as64(array) for array in arrays]))


def _column(array: np.ndarray, b: int, h: int, w: int, c: int) -> list[float]:
    """The K components at one pixel."""
    return [float(array[b, k, h, w, c]) for k in range(array.shape[1])]


def normal_log_prob(x, mean, scale) -> np.ndarray:
    """Log-density of a normal: -(x - mean)^2 / (2 scale^2) - log scale - log(2 pi) / 2.

    Args: three arrays that broadcast. Returns their common shape.
    Source: tfp Normal.log_prob.
    """
    x, mean, scale = _full(x, mean, scale)
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = scalars.normal_log_prob(
            float(x[index]), float(mean[index]), float(scale[index])
        )
    return out


def mixing_log_prob(mixing_logits) -> np.ndarray:
    """logits - lse_k(logits).

    Args: mixing_logits [B, K, H, W, C or 1], with the log presences added. Returns the same shape.
    Source: prob.py, MixtureDistribution.mixing_log_prob.
    """
    logits = as64(mixing_logits)
    out = np.zeros(logits.shape)
    for b, h, w, c in _pixels(logits.shape):
        column = _column(logits, b, h, w, c)
        normaliser = scalars.log_sum_exp(column)
        for k, value in enumerate(column):
            out[b, k, h, w, c] = value - normaliser
    return out


def mixing_prob(mixing_logits) -> np.ndarray:
    """softmax over the components.

    Args: mixing_logits [B, K, H, W, C or 1]. Returns the same shape.
    Source: prob.py, MixtureDistribution.mixing_prob.
    """
    logits = as64(mixing_logits)
    out = np.zeros(logits.shape)
    for b, h, w, c in _pixels(logits.shape):
        for k, value in enumerate(scalars.softmax(_column(logits, b, h, w, c))):
            out[b, k, h, w, c] = value
    return out


def mixture_log_prob(x, mixing_logits, mean, scale) -> np.ndarray:
    """lse_k(mixing_log_prob + log N(x; mean_k, scale)), per pixel and channel.

    Args: x [B, H, W, C]; mixing_logits [B, K, H, W, C or 1]; mean [B, K, H, W, C]; scale
    broadcasts against it. Returns [B, H, W, C].
    Source: prob.py, MixtureDistribution.log_prob.
    """
    x = as64(x)
    log_mixing, mean, scale = _full(mixing_log_prob(mixing_logits), mean, scale)
    out = np.zeros((mean.shape[0], *mean.shape[2:]))
    for b, h, w, c in _pixels(mean.shape):
        terms = []
        for k in range(mean.shape[1]):
            density = scalars.normal_log_prob(
                float(x[b, h, w, c]), float(mean[b, k, h, w, c]), float(scale[b, k, h, w, c])
            )
            terms.append(density + float(log_mixing[b, k, h, w, c]))
        out[b, h, w, c] = scalars.log_sum_exp(terms)
    return out


def mixture_mean(mixing_logits, mean) -> np.ndarray:
    """sum_k softmax(logits)_k mean_k.

    Args: as mixture_log_prob. Returns [B, H, W, C].
    Source: prob.py, MixtureDistribution.mean.
    """
    weights, mean = _full(mixing_prob(mixing_logits), mean)
    out = np.zeros((mean.shape[0], *mean.shape[2:]))
    for b, h, w, c in _pixels(mean.shape):
        total = 0.0
        for k in range(mean.shape[1]):
            total += float(weights[b, k, h, w, c]) * float(mean[b, k, h, w, c])
        out[b, h, w, c] = total
    return out


def mixture_mode(
    mixing_logits,
    mean,
    scale=1.0,
    presence=None,
    straight_through_gradient: bool = False,
    maximum: bool = False,
) -> np.ndarray:
    """The mean of the component with the best score, not the mode of the density.

    score = mixing_log_prob; with `maximum` plus presence * (-log scale - log(2 pi) / 2), the
    component's log-density at its own mode, presence 1 if not given. mask = one_hot(argmax score),
    lowest index at a tie; straight through: mask - softmax(score) + softmax(score). out = sum_k
    mask_k mean_k.
    Args: mixing_logits [B, K, H, W, C or 1] with the log presences already added; presence [B, K].
    Returns [B, H, W, C].
    Source: prob.py, MixtureDistribution.mode.
    """
    log_mixing, mean, scale = _full(mixing_log_prob(mixing_logits), mean, scale)
    out = np.zeros((mean.shape[0], *mean.shape[2:]))
    for b, h, w, c in _pixels(mean.shape):
        scores = []
        for k in range(mean.shape[1]):
            score = float(log_mixing[b, k, h, w, c])
            if maximum:
                peak = -math.log(float(scale[b, k, h, w, c])) - 0.5 * scalars.LOG_2PI
                score += peak if presence is None else float(presence[b][k]) * peak
            scores.append(score)
        best = scalars.argmax(scores)
        soft = scalars.softmax(scores)
        total = 0.0
        for k in range(mean.shape[1]):
            mask = 1.0 if k == best else 0.0
            if straight_through_gradient:
                mask = mask - soft[k] + soft[k]
            total += mask * float(mean[b, k, h, w, c])
        out[b, h, w, c] = total
    return out
