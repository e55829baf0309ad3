"""The gradients of `pixel_forward`, example by example: a kernel for Numba.

The forward pass leaves what the logits were reduced by and the sums over the components; everything else is computed
again, part by part. Each (example, part) owns its gradients.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np

from port.core.numba_cache import compiled, without_arrays
from port.scae.pixel_components import (
    ABSENT,
    UNDRAWN,
    densities,
    exp,
    largest_logits,
    multiply,
    one_shift,
    take,
    visibility,
    weigh,
)
from port.scae.pixel_footprint import BLOCK, locate, pad, sample_slopes, scatter, trace, widened


@without_arrays
@no_type_check
def _units(gradient, target, mixing_sum, joint_sum, posterior, prior, plain, flat, density):
    """What a component receives at each pixel per unit of its weight exp(logit - shift).

    Written: posterior_c = g_c / Σ joint_c, prior = Σ_c g_c / Σ mixing, and plain, d logit of a component
    that is black there (parts off their footprint): Σ_c posterior_c · density of black - prior.
    """
    pixels = prior.size
    prior[:] = 0.0
    plain[:] = 0.0
    flat[:] = 0.0
    for c in range(target.shape[0]):
        g, joint, unit = gradient[c], joint_sum[c], posterior[c]
        densities(pixels, target[c], flat, density)
        for p in range(pixels):
            unit[p] = g[p] / joint[p]
        for p in range(pixels):
            prior[p] += g[p]
            plain[p] += unit[p] * density[p]
    for p in range(pixels):
        prior[p] /= mixing_sum[p]
    for p in range(pixels):
        plain[p] -= prior[p]


@without_arrays
@no_type_check
def _running_sums(plain, before, behind):
    """Sums of `plain` over the pixels of a row before i and from i on."""
    rows, size = before.shape[0], before.shape[1] - 1
    for row in range(rows):
        before[row, 0], behind[row, size] = 0.0, 0.0
        for i in range(size):
            before[row, i + 1] = before[row, i] + plain[row * size + i]
            behind[row, size - 1 - i] = behind[row, size - i] + plain[row * size + size - 1 - i]


@without_arrays
@no_type_check
def _background_gradients(background, logit, target, shift, posterior, prior, weight, flat, density):
    """Gradients of the background's value and of its logit."""
    pixels = prior.size
    d_value, d_logit = 0.0, 0.0
    flat[:] = background
    for p in range(pixels):
        weight[p] = exp(logit - shift[p])
    for c in range(target.shape[0]):
        densities(pixels, target[c], flat, density)
        for p in range(pixels):
            r = weight[p] * posterior[c, p] * density[p]
            d_value += r * (target[c, p] - flat[p])
            d_logit += r
    for p in range(pixels):
        d_logit -= weight[p] * prior[p]
    return d_value, d_logit


@compiled
@no_type_check
def backward_examples(start, stop, templates, alpha, inverse, log_presence, background,
                      background_logit, target, axes_x, axes_y, rounding, shifts, mixing_sum, joint_sum,
                      gradient, d_templates, d_alpha, d_inverse, d_log_presence, d_background,
                      d_background_logit):
    """Gradients of Σ gradient · log_prob; with r the posterior and π the prior of a component,

    d logit = Σ_c g_c (r_c - π) and d mean_c = g_c r_c (x_c - mean_c).

    Args:
        start, …, joint_sum: as in `forward_examples`.
        gradient: `[B, C, S·S]`.
        d_templates: `[B, K, C, h, w]`, written; so are the others.
        d_alpha: `[B, K, h, w]`.
        d_inverse: `[B, K, 6]`.
        d_log_presence: `[B, K]`.
        d_background, d_background_logit: `[B]`.
    """
    dtype = templates.dtype
    n_parts, channels, height, width = templates.shape[1:]
    rows, size = axes_y.shape[1], axes_x.shape[1]
    pixels, stride, extents, tops = rows * size, width + 3, (width, height), largest_logits(alpha)
    halves = np.array([(width - 1) / 2.0, (height - 1) / 2.0]).astype(dtype)
    padded = np.empty((height + 3) * stride, dtype)
    spread = np.empty((channels + 1, (height + 3) * stride), dtype)
    spans, pixel = np.empty((rows, 3), np.int64), np.empty(pixels + BLOCK, np.int32)
    cells, weights = np.empty((2, pixels), np.int32), np.empty((4, pixels), dtype)
    rooms = np.empty((18, pixels + BLOCK), dtype)  # row by row, as in the forward pass
    x, y, weight, sample = rooms[0], rooms[1], rooms[2], rooms[3]
    density, seen_target, seen_unit, flat = rooms[4], rooms[5], rooms[6], rooms[7]
    d_logit, d_mean, prior, plain = rooms[8], rooms[9], rooms[10][:pixels], rooms[11][:pixels]
    by_x, by_y, moved_x, moved_y = rooms[12], rooms[13], rooms[14], rooms[15]
    alpha_x, alpha_y = rooms[16], rooms[17]
    wide = widened(axes_x)
    posterior = np.empty((channels, pixels), dtype)
    sums = np.empty((2, rows, size + 1))
    before, behind = sums[0], sums[1]
    for b in range(start, stop):
        shift = shifts[b]
        _, uniform = one_shift(tops, log_presence[b], background_logit[0])
        _units(gradient[b], target[b], mixing_sum[b], joint_sum[b], posterior, prior, plain, flat,
               density)
        _running_sums(plain, before, behind)
        d_background[b], d_background_logit[b] = _background_gradients(
            background[0], background_logit[0], target[b], shift, posterior, prior, weight, flat,
            density)
        source = templates[b if templates.shape[0] > 1 else 0]
        for k in range(n_parts):
            d_templates[b, k] = 0.0
            d_alpha[b, k] = 0.0
            d_inverse[b, k] = 0.0
            d_log_presence[b, k] = 0.0
            seen = visibility(inverse[b, k], log_presence[b, k], tops[k], shift[0], uniform)
            if seen == ABSENT:
                continue
            outside = exp(log_presence[b, k] - shift[0])
            if seen == UNDRAWN:
                d_log_presence[b, k] = np.sum(before[:, size]) * outside
                continue
            n = trace(inverse[b, k], halves, wide, axes_y, extents, rounding, not uniform, spans,
                       pixel, x, y)
            locate(n, x, y, extents, cells, weights)
            moved_x[:n] = 0.0
            moved_y[:n] = 0.0
            spread[:] = 0.0
            pad(alpha[k], padded)
            sample_slopes(n, padded, stride, cells[0], weights, sample, alpha_x, alpha_y)
            weigh(n, sample, log_presence[b, k], shift, weight)
            # d logit per unit of weight: the prior's share, then colour by colour the posterior's.
            for i in range(n):
                d_logit[i] = -prior[np.uint32(pixel[i])]
            for c in range(channels):
                pad(source[k, c], padded)
                sample_slopes(n, padded, stride, cells[0], weights, sample, by_x, by_y)
                take(n, target[b, c], pixel, seen_target)
                densities(n, seen_target, sample, density)
                take(n, posterior[c], pixel, seen_unit)
                multiply(n, density, seen_unit, density)
                for i in range(n):
                    d_logit[i] += density[i]
                    d_mean[i] = (seen_target[i] - sample[i]) * (weight[i] * density[i])
                for i in range(n):
                    moved_x[i] += d_mean[i] * by_x[i]
                    moved_y[i] += d_mean[i] * by_y[i]
                scatter(n, spread[c], stride, cells[0], weights, d_mean)
            multiply(n, d_logit, weight, d_logit)
            for i in range(n):
                moved_x[i] += d_logit[i] * alpha_x[i]
                moved_y[i] += d_logit[i] * alpha_y[i]
            scatter(n, spread[channels], stride, cells[0], weights, d_logit)
            # One loop for all sums, whose additions wait for each other and not for the next sum's; in a
            # function of its own it takes the backward pass 10 % longer.
            away, near = 0.0, 0.0
            a_x, b_x, t_x, a_y, b_y, t_y = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for row in range(rows):
                first, last, place = spans[row]
                away += before[row, first] + behind[row, last]
                row_x, row_y = 0.0, 0.0
                for i in range(last - first):
                    near += d_logit[place + i]
                    row_x += moved_x[place + i]
                    row_y += moved_y[place + i]
                    a_x += moved_x[place + i] * axes_x[0, first + i]
                    a_y += moved_y[place + i] * axes_x[1, first + i]
                b_x += row_x * axes_y[0, row]
                b_y += row_y * axes_y[1, row]
                t_x += row_x
                t_y += row_y
            d_inverse[b, k, 0], d_inverse[b, k, 1], d_inverse[b, k, 2] = a_x, b_x, t_x * halves[0]
            d_inverse[b, k, 3], d_inverse[b, k, 4], d_inverse[b, k, 5] = a_y, b_y, t_y * halves[1]
            # Where each pixel has a shift of its own, nothing lies outside.
            d_log_presence[b, k] = near + away * outside if uniform else near
            for row in range(height):
                at = (row + 1) * stride + 1
                for i in range(width):
                    d_alpha[b, k, row, i] = spread[channels, at + i]
                    for c in range(channels):
                        d_templates[b, k, c, row, i] = spread[c, at + i]
