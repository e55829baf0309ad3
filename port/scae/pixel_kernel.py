"""The template decoder's pixel likelihood on a CPU, example by example: a kernel for Numba.

What `warp.warp_templates`, the mixture of `part_decoder.PartDecoder` and `mixture.mixture_log_prob`
do one after the other on arrays of [B, K, C, H, W] is done here part by part, so that no more than a
canvas is ever held. Three things make it short work:

- Outside a template's footprint colour and alpha are exactly 0, so a part enters there with its log
  presence alone: one addition a pixel. Where the footprint can lie on a row is bounded beforehand,
  and its pixels are listed one after the other, in loops long enough for vector instructions.
- With unit scale and colours in [0, 1] a component's density is at least e^-1/2 of its peak, so the
  largest logit serves as the maximum of both sums over the components.
- Each (example, part) owns its gradients: no atomics, and the order of every sum is fixed, so the
  result depends on neither the number of threads nor the run.

`port.scae.pixel_likelihood` decides when this runs and shows it to autograd. Without Numba the functions are plain
Python: right, and far too slow.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from port.core.numba_cache import compiled

try:
    import numba
except ImportError:
    numba = None

# Logits further apart than this are shifted by each pixel's own maximum in place of the example's:
# e^-60 is far above the smallest normal float32 (e^-87), so no sum loses its largest term.
SPREAD = 60.0
# e^x rounds to 0 below -104 in float32 and below -746 in float64.
NOTHING = -800.0
# What a part adds to an example: nothing, its log presence at every pixel alike, or its template too.
ABSENT, UNDRAWN, DRAWN = 0, 1, 2


def _compiled(function):
    """Compile for the types of each call, kept on disk where possible; nothing is reordered.

    What is compiled so allocates nothing and counts no references: an atomic operation for every view of an
    array took more than a quarter of the time of small canvases.
    """
    return compiled(function, _nrt=False)


def _allocating(function):
    """The same for a function that makes arrays."""
    return compiled(function)


@no_type_check
def _exp(x):
    """exp(x): vectorised in float32, the library's in float64."""
    return math.exp(x)


@_compiled
@no_type_check
def _exp32(x):
    """exp(x) of a float32 up to 88, 0 below -87, NaN of NaN: 2^n · Σ r^i / i!, n = round(x / ln 2).

    |r| <= ln2/2 (1 + 1e-6), so the series cut after r^7 lacks r^8/8! < 5.3e-9, 0.09 ulp of
    e^r >= 0.7. Horner's last two steps and r itself round to about 1 ulp more (seen: 1.1).
    """
    n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    # 0.693359375 has 10 bits, so n times it is exact.
    r = (x - n * np.float32(0.693359375)) + n * np.float32(2.12194440e-4)
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + np.float32(1.0)
    p = p * r + np.float32(1.0)
    n = max(n, np.float32(-126.0))
    power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
    # NaN fails every comparison and has to come out again.
    return np.float32(0.0) if x < np.float32(-87.0) else p * power


if numba is not None:
    @numba.extending.overload(_exp)
    @no_type_check
    def _exp_of(x):
        if x == numba.types.float32:
            return lambda x: _exp32(x)
        return lambda x: math.exp(x)


@_compiled
@no_type_check
def _span(start, per_slope, low, high, size):
    """Pixels [first, last) of a row outside of which start + i / per_slope is not in (low, high).

    One pixel of room on either side; `per_slope` 0 stands for a row along which nothing changes.
    """
    if per_slope == 0.0:
        return (0, size) if low <= start <= high else (0, 0)
    one, other = (low - start) * per_slope, (high - start) * per_slope
    first = int(min(max(min(one, other), 0.0), size)) - 1
    last = int(min(max(max(one, other), -3.0), size)) + 2
    return max(first, 0), min(last, size)


@_compiled
@no_type_check
def _reach(slope, across, shift, half, axis, other_axis, rounding):
    """For `_span`: 1 / change of a coordinate from pixel to pixel, and what rounding can move it.

    The spans are found in float64; `rounding` (ulp of the dtype) times the size of the terms covers
    what the coordinates themselves lose.
    """
    size = axis.size
    slope, across = float(slope), float(across)
    terms = abs(slope * axis[size - 1]) + abs(across * other_axis[other_axis.size - 1]) \
        + abs(float(shift)) + float(half)
    step = slope * (float(axis[size - 1]) - float(axis[0])) / max(size - 1, 1)
    return (1.0 / step if abs(step) > 1e-30 else 0.0), 8.0 * rounding * terms


@_compiled
@no_type_check
def _fill(start, count, at, out):
    """start, start + 1, … from place `at` on."""
    for i in range(count):
        out[at + i] = start + i


@_compiled
@no_type_check
def _line(slope, axis, first, count, across, shift, half, at, out):
    """Template coordinates of `count` pixels of a row from `first` on, as in `warp.affine_grid`, to place `at`."""
    for i in range(count):
        out[at + i] = ((slope * axis[first + i] + across) + shift) + half


@_compiled
@no_type_check
def _trace(pose, halves, axes_x, axes_y, extents, rounding, whole, spans, pixel, x, y):
    """List the pixels of a part's footprint and where they sample, as `warp.affine_grid`.

    Args:
        whole: take every pixel of the canvas.
        spans: `[rows, 3]`, written: first and last pixel of each row, and its place in the list.
        pixel: number of each listed pixel on the canvas, written.
        x, y: coordinates of each in template pixels, written.

    Returns:
        How many pixels there are.
    """
    size, n = axes_x.shape[1], 0
    half_x, half_y = halves[0], halves[1]
    a, b, c, d = pose[0], pose[1], pose[3], pose[4]
    shift_x, shift_y = pose[2] * half_x, pose[5] * half_y
    per_x, slack_x = _reach(a, b, shift_x, half_x, axes_x[0], axes_y[0], rounding)
    per_y, slack_y = _reach(c, d, shift_y, half_y, axes_x[1], axes_y[1], rounding)
    whole |= not math.isfinite(slack_x + slack_y)
    for row in range(axes_y.shape[1]):
        across_x, across_y = b * axes_y[0, row], d * axes_y[1, row]
        first, last = 0, size
        if not whole:
            first, last = _span(float(across_x) + shift_x + half_x + float(a) * axes_x[0, 0], per_x,
                                -1.0 - slack_x, extents[0] + slack_x, size)
            begin, end = _span(float(across_y) + shift_y + half_y + float(c) * axes_x[1, 0], per_y,
                               -1.0 - slack_y, extents[1] + slack_y, size)
            first = max(first, begin)
            last = max(min(last, end), first)
        spans[row, 0], spans[row, 1], spans[row, 2] = first, last, n
        _fill(row * size + first, last - first, n, pixel)
        _line(a, axes_x[0], first, last - first, across_x, shift_x, half_x, n, x)
        _line(c, axes_x[1], first, last - first, across_y, shift_y, half_y, n, y)
        n += last - first
    return n


@_compiled
@no_type_check
def _axis(n, x, extent, cell, near, far):
    """Cell and bilinear weights along one axis, as `warp.resampler`.

    The template lies in a border of zeros, one pixel before and two behind: a pixel outside it gets
    the last cell, where all four taps are 0 and so is every derivative.
    """
    real = near.dtype.type
    one, border, end = real(1.0), real(-1.0), real(extent)
    for i in range(n):
        inside = (x[i] > border) & (x[i] < end)
        at = x[i] if inside else end
        floor = np.floor(at)
        near[i] = (floor + one) - at
        far[i] = at - floor
        cell[i] = np.int32(floor) + np.int32(1)


@_compiled
@no_type_check
def _cells(n, x, y, extents, cells, weights):
    """Corner of each pixel's cell in the padded template, and near x, far x, near y, far y."""
    _axis(n, x, extents[0], cells[0], weights[0], weights[1])
    _axis(n, y, extents[1], cells[1], weights[2], weights[3])
    columns, rows, stride = cells[0], cells[1], np.int32(extents[0] + 3)
    for i in range(n):
        columns[i] += rows[i] * stride


@_compiled
@no_type_check
def _pad(plane, padded):
    """Copy a template [h, w] into a flat array with a border of zeros."""
    height, width = plane.shape
    padded[:] = 0.0
    for y in range(height):
        start = (y + 1) * (width + 3) + 1
        for x in range(width):
            padded[start + x] = plane[y, x]


@_compiled
@no_type_check
def _sample(n, padded, stride, corner, weights, out):
    """Bilinear samples of one plane."""
    near_x, far_x, near_y, far_y = weights[0], weights[1], weights[2], weights[3]
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(n):
        at = np.uint32(corner[i])
        out[i] = (((near_x[i] * near_y[i]) * padded[at]
                   + (far_x[i] * far_y[i]) * padded[at + across + right])
                  + (near_x[i] * far_y[i]) * padded[at + across]) \
            + (far_x[i] * near_y[i]) * padded[at + right]


@_compiled
@no_type_check
def _sample_slopes(n, padded, stride, corner, weights, out, by_x, by_y):
    """`_sample`, and the derivatives of the samples by the coordinates."""
    near_x, far_x, near_y, far_y = weights[0], weights[1], weights[2], weights[3]
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(n):
        at = np.uint32(corner[i])
        t00, t01 = padded[at], padded[at + right]
        t10, t11 = padded[at + across], padded[at + across + right]
        nx, fx, ny, fy = near_x[i], far_x[i], near_y[i], far_y[i]
        out[i] = (((nx * ny) * t00 + (fx * fy) * t11) + (nx * fy) * t10) + (fx * ny) * t01
        by_x[i] = ny * (t01 - t00) + fy * (t11 - t10)
        by_y[i] = nx * (t10 - t00) + fx * (t11 - t01)


@_compiled
@no_type_check
def _scatter(n, padded, stride, corner, weights, gradient):
    """The transpose of `_sample`: add the gradient of each sample to its four pixels."""
    near_x, far_x, near_y, far_y = weights[0], weights[1], weights[2], weights[3]
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(n):
        at, g = np.uint32(corner[i]), gradient[i]
        near, far = g * near_y[i], g * far_y[i]
        padded[at] += near * near_x[i]
        padded[at + right] += near * far_x[i]
        padded[at + across] += far * near_x[i]
        padded[at + across + right] += far * far_x[i]


@_compiled
@no_type_check
def _take(n, source, pixel, out):
    """The listed pixels of a canvas."""
    for i in range(n):
        out[i] = source[np.uint32(pixel[i])]


@_compiled
@no_type_check
def _multiply(n, one, other, out):
    """out = one · other."""
    for i in range(n):
        out[i] = one[i] * other[i]


@_compiled
@no_type_check
def _weigh(n, logit, log_presence, shift, weight):
    """exp(logit + log presence - shift); where not every pixel is listed, `shift` is constant."""
    for i in range(n):
        weight[i] = _exp((logit[i] + log_presence) - shift[i])


@_compiled
@no_type_check
def _density(n, x, mean, out):
    """exp(-½ (x - mean)²), 1 at its peak."""
    minus_half = out.dtype.type(-0.5)
    for i in range(n):
        off = x[i] - mean[i]
        out[i] = _exp(minus_half * off * off)


@_allocating
@no_type_check
def _tops(alpha):
    """The largest logit of each template."""
    tops = np.empty(alpha.shape[0], alpha.dtype)
    for k in range(alpha.shape[0]):
        tops[k] = alpha[k].max()
    return tops


@_compiled
@no_type_check
def _one_shift(tops, log_presence, background_logit):
    """What may be subtracted from every logit of an example, and whether that serves all pixels.

    A sample lies between the template's extremes and 0, which bounds the logits.
    """
    top = float(background_logit)
    for k in range(tops.size):
        top = max(top, float(log_presence[k]) + max(float(tops[k]), 0.0))
    return top, top - float(background_logit) <= SPREAD


@_compiled
@no_type_check
def _pixel_shifts(alpha, inverse, log_presence, background_logit, halves, extents, axes_x, axes_y, shift,
                  padded, spans, pixel, x, y, cells, weights):
    """The largest logit of each pixel, where one number for all does not serve."""
    shift[:] = background_logit
    for k in range(alpha.shape[0]):
        _pad(alpha[k], padded)
        n = _trace(inverse[k], halves, axes_x, axes_y, extents, 0.0, True, spans, pixel, x, y)
        _cells(n, x, y, extents, cells, weights)
        _sample(n, padded, extents[0] + 3, cells[0], weights, x)
        for i in range(n):
            shift[i] = max(shift[i], x[i] + log_presence[k])


@_compiled
@no_type_check
def _visible(inverse, log_presence, alpha_top, shift, uniform):
    """ABSENT, UNDRAWN or DRAWN; where each pixel has a shift of its own, every part is drawn."""
    if not uniform:
        return DRAWN
    if float(log_presence) + max(float(alpha_top), 0.0) - float(shift) < NOTHING:
        return ABSENT
    for i in range(6):
        if not math.isfinite(inverse[i]):
            return UNDRAWN
    return DRAWN


@_compiled
@no_type_check
def _add_beyond(spans, size, outside, beyond):
    """Add a part's weight off its footprint to the pixels there, row by row."""
    for row in range(spans.shape[0]):
        begin = row * size
        for i in range(begin, begin + spans[row, 0]):
            beyond[i] += outside
        for i in range(begin + spans[row, 1], begin + size):
            beyond[i] += outside


@_allocating
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
    pixels, stride, extents, tops = rows * size, width + 3, (width, height), _tops(alpha)
    halves = np.array([(width - 1) / 2.0, (height - 1) / 2.0]).astype(dtype)
    log_peak = dtype.type(-0.5 * math.log(2.0 * math.pi))
    padded = np.empty((channels + 1, (height + 3) * stride), dtype)
    spans, pixel = np.empty((rows, 3), np.int64), np.empty(pixels, np.int32)
    cells, weights = np.empty((2, pixels), np.int32), np.empty((4, pixels), dtype)
    # Row by row, since rows that are unpacked together may have any stride, and loops over them no vectors.
    rooms = np.empty((8, pixels), dtype)
    beyond, x, y, weight = rooms[0], rooms[1], rooms[2], rooms[3]
    sample, density, seen_target, flat = rooms[4], rooms[5], rooms[6], rooms[7]
    for b in range(start, stop):
        shift, total = shifts[b], mixing_sum[b]
        top, uniform = _one_shift(tops, log_presence[b], background_logit[0])
        if uniform:
            shift[:] = top
        else:
            _pixel_shifts(alpha, inverse[b], log_presence[b], background_logit[0], halves, extents, axes_x,
                          axes_y, shift, padded[0], spans, pixel, x, y, cells, weights)
        # The background first; the parts' weights off their footprints come last, in one sum.
        beyond[:] = 0.0
        for p in range(pixels):
            total[p] = _exp(background_logit[0] - shift[p])
        flat[:] = background[0]
        for c in range(channels):
            _density(pixels, target[b, c], flat, density)
            _multiply(pixels, total, density, joint_sum[b, c])
        source = templates[b if templates.shape[0] > 1 else 0]
        for k in range(n_parts):
            seen = _visible(inverse[b, k], log_presence[b, k], tops[k], shift[0], uniform)
            if seen == ABSENT:
                continue
            outside = _exp(log_presence[b, k] - shift[0])
            if seen == UNDRAWN:
                beyond += outside
                continue
            n = _trace(inverse[b, k], halves, axes_x, axes_y, extents, rounding, not uniform, spans,
                       pixel, x, y)
            _add_beyond(spans, size, outside, beyond)
            _cells(n, x, y, extents, cells, weights)
            _pad(alpha[k], padded[channels])
            _sample(n, padded[channels], stride, cells[0], weights, sample)
            _weigh(n, sample, log_presence[b, k], shift, weight)
            for i in range(n):
                total[np.uint32(pixel[i])] += weight[i]
            for c in range(channels):
                joint = joint_sum[b, c]
                _pad(source[k, c], padded[c])
                _sample(n, padded[c], stride, cells[0], weights, sample)
                _take(n, target[b, c], pixel, seen_target)
                _density(n, seen_target, sample, density)
                for i in range(n):
                    joint[np.uint32(pixel[i])] += weight[i] * density[i]
        for p in range(pixels):
            total[p] += beyond[p]
        flat[:] = 0.0
        for c in range(channels):
            joint, out = joint_sum[b, c], log_prob[b, c]
            _density(pixels, target[b, c], flat, density)
            for p in range(pixels):
                joint[p] += beyond[p] * density[p]
                out[p] = math.log(joint[p] / total[p]) + log_peak


@_compiled
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
        _density(pixels, target[c], flat, density)
        for p in range(pixels):
            unit[p] = g[p] / joint[p]
        for p in range(pixels):
            prior[p] += g[p]
            plain[p] += unit[p] * density[p]
    for p in range(pixels):
        prior[p] /= mixing_sum[p]
    for p in range(pixels):
        plain[p] -= prior[p]


@_compiled
@no_type_check
def _running_sums(plain, before, behind):
    """Sums of `plain` over the pixels of a row before i and from i on."""
    rows, size = before.shape[0], before.shape[1] - 1
    for row in range(rows):
        before[row, 0], behind[row, size] = 0.0, 0.0
        for i in range(size):
            before[row, i + 1] = before[row, i] + plain[row * size + i]
            behind[row, size - 1 - i] = behind[row, size - i] + plain[row * size + size - 1 - i]


@_compiled
@no_type_check
def _background_gradients(background, logit, target, shift, posterior, prior, weight, flat, density):
    """Gradients of the background's value and of its logit."""
    pixels = prior.size
    d_value, d_logit = 0.0, 0.0
    flat[:] = background
    for p in range(pixels):
        weight[p] = _exp(logit - shift[p])
    for c in range(target.shape[0]):
        _density(pixels, target[c], flat, density)
        for p in range(pixels):
            r = weight[p] * posterior[c, p] * density[p]
            d_value += r * (target[c, p] - flat[p])
            d_logit += r
    for p in range(pixels):
        d_logit -= weight[p] * prior[p]
    return d_value, d_logit


@_allocating
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
    pixels, stride, extents, tops = rows * size, width + 3, (width, height), _tops(alpha)
    halves = np.array([(width - 1) / 2.0, (height - 1) / 2.0]).astype(dtype)
    padded = np.empty((height + 3) * stride, dtype)
    spread = np.empty((channels + 1, (height + 3) * stride), dtype)
    spans, pixel = np.empty((rows, 3), np.int64), np.empty(pixels, np.int32)
    cells, weights = np.empty((2, pixels), np.int32), np.empty((4, pixels), dtype)
    rooms = np.empty((16, pixels), dtype)  # row by row, as in the forward pass
    x, y, weight, sample = rooms[0], rooms[1], rooms[2], rooms[3]
    density, seen_target, seen_unit, flat = rooms[4], rooms[5], rooms[6], rooms[7]
    d_logit, d_mean, prior, plain = rooms[8], rooms[9], rooms[10], rooms[11]
    by_x, by_y, moved_x, moved_y = rooms[12], rooms[13], rooms[14], rooms[15]
    posterior = np.empty((channels, pixels), dtype)
    sums = np.empty((2, rows, size + 1))
    before, behind = sums[0], sums[1]
    for b in range(start, stop):
        shift = shifts[b]
        _, uniform = _one_shift(tops, log_presence[b], background_logit[0])
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
            seen = _visible(inverse[b, k], log_presence[b, k], tops[k], shift[0], uniform)
            if seen == ABSENT:
                continue
            outside = _exp(log_presence[b, k] - shift[0])
            if seen == UNDRAWN:
                d_log_presence[b, k] = np.sum(before[:, size]) * outside
                continue
            n = _trace(inverse[b, k], halves, axes_x, axes_y, extents, rounding, not uniform, spans,
                       pixel, x, y)
            _cells(n, x, y, extents, cells, weights)
            moved_x[:n] = 0.0
            moved_y[:n] = 0.0
            spread[:] = 0.0
            _pad(alpha[k], padded)
            _sample(n, padded, stride, cells[0], weights, sample)
            _weigh(n, sample, log_presence[b, k], shift, weight)
            # d logit per unit of weight: the prior's share, then colour by colour the posterior's.
            for i in range(n):
                d_logit[i] = -prior[np.uint32(pixel[i])]
            for c in range(channels):
                _pad(source[k, c], padded)
                _sample_slopes(n, padded, stride, cells[0], weights, sample, by_x, by_y)
                _take(n, target[b, c], pixel, seen_target)
                _density(n, seen_target, sample, density)
                _take(n, posterior[c], pixel, seen_unit)
                _multiply(n, density, seen_unit, density)
                for i in range(n):
                    d_logit[i] += density[i]
                    d_mean[i] = (seen_target[i] - sample[i]) * (weight[i] * density[i])
                for i in range(n):
                    moved_x[i] += d_mean[i] * by_x[i]
                    moved_y[i] += d_mean[i] * by_y[i]
                _scatter(n, spread[c], stride, cells[0], weights, d_mean)
            _multiply(n, d_logit, weight, d_logit)
            _pad(alpha[k], padded)
            _sample_slopes(n, padded, stride, cells[0], weights, sample, by_x, by_y)
            for i in range(n):
                moved_x[i] += d_logit[i] * by_x[i]
                moved_y[i] += d_logit[i] * by_y[i]
            _scatter(n, spread[channels], stride, cells[0], weights, d_logit)
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
