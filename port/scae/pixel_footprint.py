"""Where a template lies on the canvas, and its samples there: for the pixel likelihood's kernels on a CPU.

Where the footprint can lie on a row is bounded beforehand, and its pixels are listed one after the other, in loops
long enough for vector instructions. Coordinates and bilinear weights are those of `warp.affine_grid` and
`warp.resampler`, operation by operation.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from port.core.numba_cache import compiled, without_arrays

AXIS = 2.0**-22  # of its values, the rounding of an axis: ulp by `warp.grid_axis` after each of two operations
BLOCK = 32  # pixels that one turn of a loop lists: four vectors of eight


@without_arrays
@no_type_check
def _span(start, per_slope, low, high, size):
    """Pixels [first, last) of a row outside of which start + i / per_slope is not in (low, high).

    `per_slope` 0 stands for a row along which nothing changes.
    """
    if per_slope == 0.0:
        return (0, size) if low <= start <= high else (0, 0)
    one, other = (low - start) * per_slope, (high - start) * per_slope
    first = int(min(max(min(one, other), 0.0), size))
    last = int(min(max(max(one, other), -1.0), size)) + 1
    return first, min(last, size)


@without_arrays
@no_type_check
def _reach(slope, across, shift, half, axis, other_axis, rounding):
    """For `_span`: 1 / change of a coordinate from pixel to pixel, and what rounding can move it.

    The spans are found in float64, on an axis with equal steps. Times the size of the terms, `rounding` (ulp of the
    dtype) covers what the coordinates themselves lose, and AXIS what the axis lost, which float64 has in float32 too.
    """
    size = axis.size
    slope, across = float(slope), float(across)
    terms = abs(slope * axis[size - 1]) + abs(across * other_axis[other_axis.size - 1]) \
        + abs(float(shift)) + float(half)
    step = slope * (float(axis[size - 1]) - float(axis[0])) / max(size - 1, 1)
    return (1.0 / step if abs(step) > 1e-30 else 0.0), (8.0 * rounding + AXIS) * terms


@without_arrays
@no_type_check
def _fill(start, count, at, out):
    """start, start + 1, … from place `at` on."""
    for i in range(count):
        out[at + np.uint64(i)] = start + np.int32(i)


@without_arrays
@no_type_check
def _line(slope, axis, first, count, across, shift, half, at, out):
    """Template coordinates of pixels of a row from `first` on, as in `warp.affine_grid`, to place `at`."""
    for i in range(count):
        out[at + np.uint64(i)] = ((slope * axis[first + np.uint64(i)] + across) + shift) + half


@compiled
@no_type_check
def widened(axes):
    """Canvas coordinates `[2, size]` with zeros behind them, for `trace`."""
    wide = np.zeros((2, axes.shape[1] + BLOCK), axes.dtype)
    wide[:, :axes.shape[1]] = axes
    return wide


@without_arrays
@no_type_check
def trace(pose, halves, axes_x, axes_y, extents, rounding, whole, spans, pixel, x, y):
    """List the pixels of a part's footprint and where they sample, as `warp.affine_grid`.

    Args:
        axes_x: `[2, size + BLOCK]`, canvas coordinates and anything behind them.
        whole: take every pixel of the canvas.
        spans: `[rows, 3]`, written: first and last pixel of each row, and its place in the list.
        pixel: number of each listed pixel on the canvas, written, with room for a block behind the last.
        x, y: coordinates of each in template pixels, written, with the same room.

    Returns:
        How many pixels there are.
    """
    size, n = axes_x.shape[1] - BLOCK, 0
    half_x, half_y = halves[0], halves[1]
    a, b, c, d = pose[0], pose[1], pose[3], pose[4]
    shift_x, shift_y = pose[2] * half_x, pose[5] * half_y
    along_x, along_y = axes_x[0], axes_x[1]
    per_x, slack_x = _reach(a, b, shift_x, half_x, along_x[:size], axes_y[0], rounding)
    per_y, slack_y = _reach(c, d, shift_y, half_y, along_y[:size], axes_y[1], rounding)
    whole |= not math.isfinite(slack_x + slack_y)
    for row in range(axes_y.shape[1]):
        across_x, across_y = b * axes_y[0, row], d * axes_y[1, row]
        first, last = 0, size
        if not whole:
            first, last = _span(float(across_x) + shift_x + half_x + float(a) * along_x[0], per_x,
                                -1.0 - slack_x, extents[0] + slack_x, size)
            begin, end = _span(float(across_y) + shift_y + half_y + float(c) * along_y[0], per_y,
                               -1.0 - slack_y, extents[1] + slack_y, size)
            first = max(first, begin)
            last = max(min(last, end), first)
        spans[row, 0], spans[row, 1], spans[row, 2] = first, last, n
        # Whole blocks, so that vector instructions do all of it; what is too much is overwritten by the next row.
        count, left, out = (last - first + BLOCK - 1) // BLOCK * BLOCK, np.uint64(first), np.uint64(n)
        _fill(np.int32(row * size + first), count, out, pixel)
        _line(a, along_x, left, count, across_x, shift_x, half_x, out, x)
        _line(c, along_y, left, count, across_y, shift_y, half_y, out, y)
        n += last - first
    return n


@without_arrays
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


@without_arrays
@no_type_check
def locate(n, x, y, extents, cells, weights):
    """Corner of each pixel's cell in the padded template, and near x, far x, near y, far y."""
    _axis(n, x, extents[0], cells[0], weights[0], weights[1])
    _axis(n, y, extents[1], cells[1], weights[2], weights[3])
    columns, rows, stride = cells[0], cells[1], np.int32(extents[0] + 3)
    for i in range(n):
        columns[i] += rows[i] * stride


@without_arrays
@no_type_check
def pad(plane, padded):
    """Copy a template [h, w] into a flat array with a border of zeros."""
    height, width = plane.shape
    padded[:] = 0.0
    for y in range(height):
        start = (y + 1) * (width + 3) + 1
        for x in range(width):
            padded[start + x] = plane[y, x]


@without_arrays
@no_type_check
def sample_plane(n, padded, stride, corner, weights, out):
    """Bilinear samples of one plane."""
    near_x, far_x, near_y, far_y = weights[0], weights[1], weights[2], weights[3]
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(n):
        at = np.uint32(corner[i])
        out[i] = (((near_x[i] * near_y[i]) * padded[at]
                   + (far_x[i] * far_y[i]) * padded[at + across + right])
                  + (near_x[i] * far_y[i]) * padded[at + across]) \
            + (far_x[i] * near_y[i]) * padded[at + right]


@without_arrays
@no_type_check
def sample_slopes(n, padded, stride, corner, weights, out, by_x, by_y):
    """`sample_plane`, and the derivatives of the samples by the coordinates."""
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


@without_arrays
@no_type_check
def scatter(n, padded, stride, corner, weights, gradient):
    """The transpose of `sample_plane`: add the gradient of each sample to its four pixels."""
    near_x, far_x, near_y, far_y = weights[0], weights[1], weights[2], weights[3]
    across, right = np.uint32(stride), np.uint32(1)
    for i in range(n):
        at, g = np.uint32(corner[i]), gradient[i]
        near, far = g * near_y[i], g * far_y[i]
        padded[at] += near * near_x[i]
        padded[at + right] += near * far_x[i]
        padded[at + across] += far * near_x[i]
        padded[at + across + right] += far * far_x[i]
