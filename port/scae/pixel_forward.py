"""The template decoder's pixel likelihood on a CPU, example by example: a kernel for Numba.

What `warp.warp_templates`, the mixture of `part_decoder.PartDecoder` and `mixture.mixture_log_prob`
do one after the other on arrays of [B, K, C, H, W] is done here part by part, so that no more than a
canvas is ever held. Three things make it short work:

- Outside a template's footprint (`pixel_footprint`) colour and alpha are exactly 0, so a part enters there
  with its log presence alone: one addition a pixel.
- One number an example serves as the maximum of both sums over the components (`pixel_components`).
- Each (example, part) owns its gradients (`pixel_backward`): no atomics, and the order of every sum is fixed, so
  the result depends on neither the number of threads nor the run.

`port.scae.pixel_likelihood` decides when this runs and shows it to autograd. Without Numba the functions are plain
Python: right, and far too slow.
"""

from __future__ import annotations

import math
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
from port.scae.pixel_footprint import BLOCK, locate, pad, sample_plane, trace, widened


@without_arrays
@no_type_check
def _pixel_shifts(alpha, inverse, log_presence, background_logit, halves, extents, axes_x, axes_y, shift,
                  padded, spans, pixel, x, y, cells, weights):
    """The largest logit of each pixel, where one number for all does not serve."""
    shift[:] = background_logit
    for k in range(alpha.shape[0]):
        pad(alpha[k], padded)
        n = trace(inverse[k], halves, axes_x, axes_y, extents, 0.0, True, spans, pixel, x, y)
        locate(n, x, y, extents, cells, weights)
        sample_plane(n, padded, extents[0] + 3, cells[0], weights, x)
        for i in range(n):
            shift[i] = max(shift[i], x[i] + log_presence[k])


@without_arrays
@no_type_check
def _leave_out(spans, outside, until, since):
    """Note a part's weight at the ends of its footprint in each row: it holds before the first and from the last on."""
    for row in range(spans.shape[0]):
        until[row, spans[row, 0]] += outside
        since[row, spans[row, 1]] += outside


@without_arrays
@no_type_check
def _beyond(everywhere, until, since, out):
    """What the parts add to each pixel that is off their footprints; sums of positive terms, so nothing cancels.

    Args:
        everywhere: weights of the parts that have no footprint.
        until: `[rows, size + 1]`, weights that end before a pixel.
        since: `[rows, size + 1]`, weights that begin with it.
        out: `[rows · size]`, written.
    """
    rows, size = until.shape[0], until.shape[1] - 1
    for row in range(rows):
        total = everywhere
        for i in range(size):
            total += since[row, i]
            out[row * size + i] = total
        total = 0.0
        for i in range(size - 1, -1, -1):
            total += until[row, i + 1]
            out[row * size + i] += total


@compiled
@no_type_check
def forward_examples(start, stop, templates, alpha, inverse, log_presence, background,
                     background_logit, target, axes_x, axes_y, rounding, log_prob, shifts, mixing_sum,
                     joint_sum):
    """Pixel log-likelihoods of examples [start, stop).

    Args:
        start, stop: the examples.
        templates: `[B or 1, K, C, h, w]`, colours in [0, 1].
        alpha: `[K, h, w]` logits.
        inverse: `[B, K, 6]`, canvas to template.
        log_presence: `[B, K]`.
        background, background_logit: `[1]`.
        target: `[B, C, S·S]` in [0, 1].
        axes_x, axes_y: `[2, S]`, canvas coordinates for the source's x and y.
        rounding: ulp of the dtype.
        log_prob: `[B, C, S·S]`, written.
        shifts: `[B, S·S]`, what the logits are reduced by; written, for the backward.
        mixing_sum, joint_sum: `[B, S·S]` and `[B, C, S·S]`, the sums over the components of
            exp(logit - shift) without and with their densities; written, for the backward.
    """
    dtype = templates.dtype
    n_parts, channels, height, width = templates.shape[1:]
    rows, size = axes_y.shape[1], axes_x.shape[1]
    pixels, stride, extents, tops = rows * size, width + 3, (width, height), largest_logits(alpha)
    halves = np.array([(width - 1) / 2.0, (height - 1) / 2.0]).astype(dtype)
    log_peak = dtype.type(-0.5 * math.log(2.0 * math.pi))
    padded = np.empty((channels + 1, (height + 3) * stride), dtype)
    spans, pixel = np.empty((rows, 3), np.int64), np.empty(pixels + BLOCK, np.int32)
    cells, weights = np.empty((2, pixels), np.int32), np.empty((4, pixels), dtype)
    wide = widened(axes_x)
    ends = np.empty((2, rows, size + 1))
    until, since = ends[0], ends[1]
    # Row by row, since rows that are unpacked together may have any stride, and loops over them no vectors.
    rooms = np.empty((8, pixels + BLOCK), dtype)
    beyond, x, y, weight = rooms[0], rooms[1], rooms[2], rooms[3]
    sample, density, seen_target, flat = rooms[4], rooms[5], rooms[6], rooms[7]
    for b in range(start, stop):
        shift, total = shifts[b], mixing_sum[b]
        top, uniform = one_shift(tops, log_presence[b], background_logit[0])
        if uniform:
            shift[:] = top
        else:
            _pixel_shifts(alpha, inverse[b], log_presence[b], background_logit[0], halves, extents, wide,
                          axes_y, shift, padded[0], spans, pixel, x, y, cells, weights)
        # The background first; the parts' weights off their footprints come last, in one sum.
        ends[:] = 0.0
        everywhere = 0.0
        for p in range(pixels):
            total[p] = exp(background_logit[0] - shift[p])
        flat[:] = background[0]
        for c in range(channels):
            densities(pixels, target[b, c], flat, density)
            multiply(pixels, total, density, joint_sum[b, c])
        source = templates[b if templates.shape[0] > 1 else 0]
        for k in range(n_parts):
            seen = visibility(inverse[b, k], log_presence[b, k], tops[k], shift[0], uniform)
            if seen == ABSENT:
                continue
            outside = exp(log_presence[b, k] - shift[0])
            if seen == UNDRAWN:
                everywhere += outside
                continue
            n = trace(inverse[b, k], halves, wide, axes_y, extents, rounding, not uniform, spans,
                       pixel, x, y)
            _leave_out(spans, outside, until, since)
            locate(n, x, y, extents, cells, weights)
            pad(alpha[k], padded[channels])
            sample_plane(n, padded[channels], stride, cells[0], weights, sample)
            weigh(n, sample, log_presence[b, k], shift, weight)
            for i in range(n):
                total[np.uint32(pixel[i])] += weight[i]
            for c in range(channels):
                joint = joint_sum[b, c]
                pad(source[k, c], padded[c])
                sample_plane(n, padded[c], stride, cells[0], weights, sample)
                take(n, target[b, c], pixel, seen_target)
                densities(n, seen_target, sample, density)
                for i in range(n):
                    joint[np.uint32(pixel[i])] += weight[i] * density[i]
        _beyond(everywhere, until, since, beyond)
        for p in range(pixels):
            total[p] += beyond[p]
        flat[:] = 0.0
        for c in range(channels):
            joint, out = joint_sum[b, c], log_prob[b, c]
            densities(pixels, target[b, c], flat, density)
            for p in range(pixels):
                joint[p] += beyond[p] * density[p]
                out[p] = math.log(joint[p] / total[p]) + log_peak
