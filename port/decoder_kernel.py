"""The template decoder's pixel likelihood on a CPU, example by example: a kernel for Numba.

What `warp.warp_templates`, the mixture of `part_decoder.PartDecoder` and `mixture.mixture_log_prob`
do one after the other on arrays of [B, K, C, H, W] is done here row by row of the canvas, so that
only rows are ever held. Three things make it short work:

- Outside a template's footprint colour and alpha are exactly 0, so a part enters there with its log
  presence alone: one addition a pixel. Where the footprint can lie on a row is bounded beforehand.
- With unit scale and colours in [0, 1] a component's density is at least e^-1/2 of its peak, so the
  largest logit serves as the maximum of both sums over the components.
- Each (example, part) owns its gradients: no atomics, and the order of every sum is fixed, so the
  result depends on neither the number of threads nor the run.

`port.kernels` decides when this runs and shows it to autograd. Without Numba the functions are plain
Python: right, and far too slow.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

try:
    import numba
except ImportError:
    numba = None

# Logits further apart than this are shifted by each pixel's own maximum in place of the example's:
# e^-60 is far above the smallest normal float32 (e^-87), so no sum loses its largest term.
SPREAD = 60.0
# e^x rounds to 0 below -104 in float32 and below -746 in float64.
NOTHING = -800.0


def _compiled(function):
    """Compile for the types of each call, kept on disk; no arithmetic is reordered."""
    if numba is None:
        return function
    return numba.njit(cache=True, nogil=True, error_model="numpy")(function)


@no_type_check
def _exp(x):
    """exp(x): vectorised in float32, the library's in float64."""
    return math.exp(x)


@_compiled
@no_type_check
def _exp32(x):
    """exp(x) of a float32 up to 88, 0 below -87: 2^n · Σ r^i / i! with n = round(x / ln 2).

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
    return p * power if x >= np.float32(-87.0) else np.float32(0.0)


if numba is not None:
    @numba.extending.overload(_exp)
    @no_type_check
    def _exp_of(x):
        if x == numba.types.float32:
            return lambda x: _exp32(x)
        return lambda x: math.exp(x)


@_compiled
@no_type_check
def _bounds(start, stop, size, low, high):
    """Indices [first, last) of a row outside of which start + i (stop - start)/(size - 1) is not in
    (low, high); one index of room on either side."""
    if not (start < high or stop < high) or not (start > low or stop > low):
        return 0, 0
    slope = (stop - start) / max(size - 1, 1)
    if slope == 0.0 or not math.isfinite(slope):
        return 0, size
    one, other = (low - start) / slope, (high - start) / slope
    first = math.floor(max(min(one, other), 0.0)) - 1.0
    last = math.ceil(min(max(one, other), size + 0.0)) + 2.0
    return max(int(first), 0), min(int(last), size)


@_compiled
@no_type_check
def _footprint(pose, half_x, half_y, axes_x, axes_y, row, width, height, rounding):
    """Pixels [first, last) of a canvas row that can lie on the template.

    The coordinates are bounded in float64; `rounding` (ulp of the dtype) times the size of their
    terms covers what the pixels' own coordinates lose.
    """
    size = axes_x.shape[1]
    first, last = 0, size
    for source in range(2):
        a, b, t = float(pose[3 * source]), float(pose[3 * source + 1]), float(pose[3 * source + 2])
        half = half_x if source == 0 else half_y
        extent = (width if source == 0 else height) + 0.0
        left, right = float(axes_x[source, 0]), float(axes_x[source, size - 1])
        fixed = b * axes_y[source, row] + t * half + half
        slack = 8.0 * rounding * (abs(a * left) + abs(b * axes_y[source, row]) + abs(t * half) + half)
        begin, end = _bounds(fixed + a * left, fixed + a * right, size, -1.0 - slack, extent + slack)
        first, last = max(first, begin), min(last, end)
    return first, max(last, first)


@_compiled
@no_type_check
def _weights(pose, half_x, half_y, axes_x, axes_y, row, first, last, width, height, corner, near_x,
             far_x, near_y, far_y):
    """Cell and bilinear weights of each pixel of a row, as `warp.affine_grid` and `warp.resampler`."""
    real = near_x.dtype.type
    one, zero, border = real(1.0), real(0.0), real(-1.0)
    a, c = pose[0], pose[3]
    fixed_x, fixed_y = pose[1] * axes_y[0, row], pose[4] * axes_y[1, row]
    shift_x, shift_y = pose[2] * half_x, pose[5] * half_y
    end_x, end_y = real(width), real(height)
    stride = np.int32(width + 2)
    for i in range(first, last):
        x = ((a * axes_x[0, i] + fixed_x) + shift_x) + half_x
        y = ((c * axes_x[1, i] + fixed_y) + shift_y) + half_y
        inside = (x > border) & (y > border) & (x < end_x) & (y < end_y)
        x = x if inside else zero
        y = y if inside else zero
        floor_x, floor_y = np.floor(x), np.floor(y)
        near_x[i] = (floor_x + one) - x if inside else zero
        far_x[i] = x - floor_x
        near_y[i] = (floor_y + one) - y if inside else zero
        far_y[i] = y - floor_y
        # The template lies in a border of zeros.
        corner[i] = (np.int32(floor_y) + np.int32(1)) * stride + np.int32(floor_x) + np.int32(1)


@_compiled
@no_type_check
def _pad(plane, padded):
    """Copy a template [h, w] into a flat array with a border of zeros."""
    height, width = plane.shape
    padded[:] = 0.0
    for y in range(height):
        start = (y + 1) * (width + 2) + 1
        for x in range(width):
            padded[start + x] = plane[y, x]


@_compiled
@no_type_check
def _sample(padded, stride, first, last, corner, near_x, far_x, near_y, far_y, out):
    """Bilinear samples of one plane."""
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(first, last):
        at = corner[i]
        out[i] = (((near_x[i] * near_y[i]) * padded[at]
                   + (far_x[i] * far_y[i]) * padded[at + across + right])
                  + (near_x[i] * far_y[i]) * padded[at + across]) \
            + (far_x[i] * near_y[i]) * padded[at + right]


@_compiled
@no_type_check
def _sample_slopes(padded, stride, first, last, corner, near_x, far_x, near_y, far_y, out, by_x, by_y):
    """`_sample`, and the derivatives of the samples by the coordinates."""
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(first, last):
        at = corner[i]
        t00, t01 = padded[at], padded[at + right]
        t10, t11 = padded[at + across], padded[at + across + right]
        nx, fx, ny, fy = near_x[i], far_x[i], near_y[i], far_y[i]
        out[i] = (((nx * ny) * t00 + (fx * fy) * t11) + (nx * fy) * t10) + (fx * ny) * t01
        by_x[i] = ny * (t01 - t00) + fy * (t11 - t10)
        by_y[i] = nx * (t10 - t00) + fx * (t11 - t01)


@_compiled
@no_type_check
def _scatter(padded, stride, first, last, corner, near_x, far_x, near_y, far_y, gradient):
    """The transpose of `_sample`: add the gradient of each sample to its four pixels."""
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(first, last):
        at, g = corner[i], gradient[i]
        near, far = g * near_y[i], g * far_y[i]
        padded[at] += near * near_x[i]
        padded[at + right] += near * far_x[i]
        padded[at + across] += far * near_x[i]
        padded[at + across + right] += far * far_x[i]


@_compiled
@no_type_check
def _top_logit(alpha, log_presence, background_logit):
    """A bound on the logits of an example: a sample lies between the template's extremes and 0."""
    top = float(background_logit)
    for k in range(alpha.shape[0]):
        top = max(top, float(log_presence[k]) + max(float(alpha[k].max()), 0.0))
    return top


@_compiled
@no_type_check
def _shifts(alpha, inverse, log_presence, background_logit, half_x, half_y, axes_x, axes_y,
            rows, shift, padded, logit, corner, near_x, far_x, near_y, far_y):
    """Fill `shift` with what every logit of a pixel is reduced by; whether it is one for all."""
    top = _top_logit(alpha, log_presence, background_logit)
    if top - float(background_logit) <= SPREAD:
        shift[:] = top
        return True
    size = axes_x.shape[1]
    shift[:] = background_logit
    for k in range(alpha.shape[0]):
        _pad(alpha[k], padded)
        for row in range(rows):
            _weights(inverse[k], half_x, half_y, axes_x, axes_y, row, 0, size, alpha.shape[2],
                     alpha.shape[1], corner, near_x, far_x, near_y, far_y)
            _sample(padded, alpha.shape[2] + 2, 0, size, corner, near_x, far_x, near_y, far_y, logit)
            for i in range(size):
                at = row * size + i
                shift[at] = max(shift[at], logit[i] + log_presence[k])
    return False


@_compiled
@no_type_check
def _visible(inverse, log_presence, alpha_top, shift, uniform):
    """0: the part adds nothing anywhere; 1: only its log presence; 2: its template too."""
    if not uniform:
        return 2
    if float(log_presence) + max(float(alpha_top), 0.0) - float(shift) < NOTHING:
        return 0
    for i in range(6):
        if not math.isfinite(inverse[i]):
            return 1
    return 2


@_compiled
@no_type_check
def forward_examples(start, stop, templates, alpha, inverse, log_presence, background,
                     background_logit, target, axes_x, axes_y, rounding, log_prob, mixing_sum,
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
        mixing_sum, joint_sum: `[B, S·S]` and `[B, C, S·S]`, the sums over the components of
            exp(logit - shift) without and with their densities; written, for the backward.
    """
    real = templates.dtype.type
    n_parts, channels, height, width = templates.shape[1:]
    rows, size = axes_y.shape[1], axes_x.shape[1]
    pixels = rows * size
    half_x, half_y = real((width - 1) / 2.0), real((height - 1) / 2.0)
    minus_half, log_peak = real(-0.5), real(-0.5 * math.log(2.0 * math.pi))
    padded = np.empty((channels + 1, (height + 2) * (width + 2)), templates.dtype)
    corner = np.empty(size, np.uint32)
    buffers = np.empty((7, size), templates.dtype)
    near_x, far_x, near_y, far_y, logit, weight, mean = buffers
    shift, beyond = np.empty(pixels, templates.dtype), np.empty(pixels, templates.dtype)
    for b in range(start, stop):
        uniform = _shifts(alpha, inverse[b], log_presence[b], background_logit[0], half_x, half_y,
                          axes_x, axes_y, rows, shift, padded[0], logit, corner, near_x, far_x, near_y,
                          far_y)
        total = mixing_sum[b]
        beyond[:] = 0.0
        for p in range(pixels):
            total[p] = _exp(background_logit[0] - shift[p])
        for c in range(channels):
            joint, x = joint_sum[b, c], target[b, c]
            for p in range(pixels):
                d = x[p] - background[0]
                joint[p] = total[p] * _exp(minus_half * d * d)
        source = templates[b if templates.shape[0] > 1 else 0]
        for k in range(n_parts):
            seen = _visible(inverse[b, k], log_presence[b, k], alpha[k].max(), shift[0], uniform)
            if seen == 0:
                continue
            outside = _exp(log_presence[b, k] - shift[0])
            if seen == 1:
                beyond += outside
                continue
            _pad(alpha[k], padded[channels])
            for c in range(channels):
                _pad(source[k, c], padded[c])
            for row in range(rows):
                first, last = 0, size
                if uniform:
                    first, last = _footprint(inverse[b, k], half_x, half_y, axes_x, axes_y, row, width,
                                             height, rounding)
                begin = row * size
                for i in range(begin, begin + first):
                    beyond[i] += outside
                for i in range(begin + last, begin + size):
                    beyond[i] += outside
                if first == last:
                    continue
                _weights(inverse[b, k], half_x, half_y, axes_x, axes_y, row, first, last, width, height,
                         corner, near_x, far_x, near_y, far_y)
                _sample(padded[channels], width + 2, first, last, corner, near_x, far_x, near_y, far_y,
                        logit)
                for i in range(first, last):
                    weight[i] = _exp((logit[i] + log_presence[b, k]) - shift[begin + i])
                    total[begin + i] += weight[i]
                for c in range(channels):
                    _sample(padded[c], width + 2, first, last, corner, near_x, far_x, near_y, far_y,
                            mean)
                    joint, x = joint_sum[b, c], target[b, c]
                    for i in range(first, last):
                        d = x[begin + i] - mean[i]
                        joint[begin + i] += weight[i] * _exp(minus_half * d * d)
        for p in range(pixels):
            total[p] += beyond[p]
        for c in range(channels):
            joint, x, out = joint_sum[b, c], target[b, c], log_prob[b, c]
            for p in range(pixels):
                joint[p] += beyond[p] * _exp(minus_half * x[p] * x[p])
                out[p] = math.log(joint[p] / total[p]) + log_peak


@_compiled
@no_type_check
def backward_examples(start, stop, templates, alpha, inverse, log_presence, background,
                      background_logit, target, axes_x, axes_y, rounding, mixing_sum, joint_sum,
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
    real = templates.dtype.type
    n_parts, channels, height, width = templates.shape[1:]
    rows, size = axes_y.shape[1], axes_x.shape[1]
    pixels = rows * size
    half_x, half_y = real((width - 1) / 2.0), real((height - 1) / 2.0)
    minus_half, zero = real(-0.5), real(0.0)
    padded = np.empty((channels + 1, (height + 2) * (width + 2)), templates.dtype)
    spread = np.empty((channels + 1, (height + 2) * (width + 2)), templates.dtype)
    corner = np.empty(size, np.uint32)
    buffers = np.empty((13, size), templates.dtype)
    near_x, far_x, near_y, far_y, logit, weight, mean, by_x, by_y, alpha_x, alpha_y, move_x, move_y = \
        buffers
    d_logit, d_mean = np.empty(size, templates.dtype), np.empty(size, templates.dtype)
    shift, density = np.empty(pixels, templates.dtype), np.empty(pixels, templates.dtype)
    prior, plain = np.empty(pixels, templates.dtype), np.empty(pixels, templates.dtype)
    posterior = np.empty((channels, pixels), templates.dtype)
    for b in range(start, stop):
        uniform = _shifts(alpha, inverse[b], log_presence[b], background_logit[0], half_x, half_y,
                          axes_x, axes_y, rows, shift, padded[0], logit, corner, near_x, far_x, near_y,
                          far_y)
        # Per unit of exp(logit - shift): g_c / Σ joint, Σ_c g_c / Σ mixing, and d logit where a
        # component is black (`plain`, the parts beyond their footprint).
        prior[:] = 0.0
        plain[:] = 0.0
        for c in range(channels):
            g, joint, x, unit = gradient[b, c], joint_sum[b, c], target[b, c], posterior[c]
            for p in range(pixels):
                prior[p] += g[p]
                unit[p] = g[p] / joint[p]
                plain[p] += unit[p] * _exp(minus_half * x[p] * x[p])
        for p in range(pixels):
            prior[p] /= mixing_sum[b, p]
            plain[p] -= prior[p]
        for p in range(pixels):
            density[p] = _exp(background_logit[0] - shift[p])
        value, chosen = 0.0, 0.0
        for c in range(channels):
            x, unit = target[b, c], posterior[c]
            for p in range(pixels):
                d = x[p] - background[0]
                r = density[p] * unit[p] * _exp(minus_half * d * d)
                value += r * d
                chosen += r
        for p in range(pixels):
            chosen -= density[p] * prior[p]
        d_background[b], d_background_logit[b] = value, chosen
        source = templates[b if templates.shape[0] > 1 else 0]
        for k in range(n_parts):
            d_templates[b, k] = 0.0
            d_alpha[b, k] = 0.0
            d_inverse[b, k] = 0.0
            d_log_presence[b, k] = 0.0
            seen = _visible(inverse[b, k], log_presence[b, k], alpha[k].max(), shift[0], uniform)
            if seen == 0:
                continue
            outside = _exp(log_presence[b, k] - shift[0])
            if seen == 2:
                _pad(alpha[k], padded[channels])
                for c in range(channels):
                    _pad(source[k, c], padded[c])
                spread[:] = 0.0
            away, near = 0.0, 0.0
            a_x, b_x, t_x, a_y, b_y, t_y = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for row in range(rows):
                first, last = 0, size
                if seen == 1:
                    last = 0
                elif uniform:
                    first, last = _footprint(inverse[b, k], half_x, half_y, axes_x, axes_y, row, width,
                                             height, rounding)
                begin = row * size
                for i in range(begin, begin + first):
                    away += plain[i]
                for i in range(begin + last, begin + size):
                    away += plain[i]
                if first == last:
                    continue
                _weights(inverse[b, k], half_x, half_y, axes_x, axes_y, row, first, last, width, height,
                         corner, near_x, far_x, near_y, far_y)
                _sample_slopes(padded[channels], width + 2, first, last, corner, near_x, far_x, near_y,
                               far_y, logit, alpha_x, alpha_y)
                for i in range(first, last):
                    weight[i] = _exp((logit[i] + log_presence[b, k]) - shift[begin + i])
                    d_logit[i] = -prior[begin + i]
                    move_x[i] = zero
                    move_y[i] = zero
                for c in range(channels):
                    _sample_slopes(padded[c], width + 2, first, last, corner, near_x, far_x, near_y,
                                   far_y, mean, by_x, by_y)
                    x, unit = target[b, c], posterior[c]
                    for i in range(first, last):
                        d = x[begin + i] - mean[i]
                        r = unit[begin + i] * _exp(minus_half * d * d)
                        d_logit[i] += r
                        d_mean[i] = weight[i] * r * d
                        move_x[i] += d_mean[i] * by_x[i]
                        move_y[i] += d_mean[i] * by_y[i]
                    _scatter(spread[c], width + 2, first, last, corner, near_x, far_x, near_y, far_y,
                             d_mean)
                for i in range(first, last):
                    d_logit[i] *= weight[i]
                    move_x[i] += d_logit[i] * alpha_x[i]
                    move_y[i] += d_logit[i] * alpha_y[i]
                _scatter(spread[channels], width + 2, first, last, corner, near_x, far_x, near_y, far_y,
                         d_logit)
                sum_x, sum_y = 0.0, 0.0
                for i in range(first, last):
                    near += d_logit[i]
                    sum_x += move_x[i]
                    sum_y += move_y[i]
                    a_x += move_x[i] * axes_x[0, i]
                    a_y += move_y[i] * axes_x[1, i]
                b_x += sum_x * axes_y[0, row]
                b_y += sum_y * axes_y[1, row]
                t_x += sum_x * half_x
                t_y += sum_y * half_y
            d_log_presence[b, k] = near + away * outside if away != 0.0 else near
            if seen == 1:
                continue
            d_inverse[b, k, 0], d_inverse[b, k, 1], d_inverse[b, k, 2] = a_x, b_x, t_x
            d_inverse[b, k, 3], d_inverse[b, k, 4], d_inverse[b, k, 5] = a_y, b_y, t_y
            for y in range(height):
                at = (y + 1) * (width + 2) + 1
                for x in range(width):
                    d_alpha[b, k, y, x] = spread[channels, at + x]
                    for c in range(channels):
                        d_templates[b, k, c, y, x] = spread[c, at + x]
