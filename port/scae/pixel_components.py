"""A part as a component of the pixel mixture: weights, densities and what the logits are reduced by.

For the pixel likelihood's kernels on a CPU. With unit scale and colours in [0, 1] a component's density is at least
e^-1/2 of its peak, so the largest logit serves as the maximum of both sums over the components.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from port.core.numba_cache import compiled, without_arrays

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


@no_type_check
def exp(x):
    """exp(x): vectorised in float32, the library's in float64."""
    return math.exp(x)


@without_arrays
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
    @numba.extending.overload(exp)
    @no_type_check
    def _exp_of(x):
        if x == numba.types.float32:
            return lambda x: _exp32(x)
        return lambda x: math.exp(x)


@without_arrays
@no_type_check
def take(n, source, pixel, out):
    """The listed pixels of a canvas."""
    for i in range(n):
        out[i] = source[np.uint32(pixel[i])]


@without_arrays
@no_type_check
def multiply(n, one, other, out):
    """out = one · other."""
    for i in range(n):
        out[i] = one[i] * other[i]


@without_arrays
@no_type_check
def weigh(n, logit, log_presence, shift, weight):
    """exp(logit + log presence - shift); where not every pixel is listed, `shift` is constant."""
    for i in range(n):
        weight[i] = exp((logit[i] + log_presence) - shift[i])


@without_arrays
@no_type_check
def densities(n, x, mean, out):
    """exp(-½ (x - mean)²), 1 at its peak."""
    minus_half = out.dtype.type(-0.5)
    for i in range(n):
        off = x[i] - mean[i]
        out[i] = exp(minus_half * off * off)


@compiled
@no_type_check
def largest_logits(alpha):
    """The largest logit of each template."""
    tops = np.empty(alpha.shape[0], alpha.dtype)
    for k in range(alpha.shape[0]):
        tops[k] = alpha[k].max()
    return tops


@without_arrays
@no_type_check
def one_shift(tops, log_presence, background_logit):
    """What may be subtracted from every logit of an example, and whether that serves all pixels.

    A sample lies between the template's extremes and 0, which bounds the logits.
    """
    top = float(background_logit)
    for k in range(tops.size):
        top = max(top, float(log_presence[k]) + max(float(tops[k]), 0.0))
    return top, top - float(background_logit) <= SPREAD


@without_arrays
@no_type_check
def visibility(inverse, log_presence, alpha_top, shift, uniform):
    """ABSENT, UNDRAWN or DRAWN; where each pixel has a shift of its own, every part is drawn."""
    if not uniform:
        return DRAWN
    if float(log_presence) + max(float(alpha_top), 0.0) - float(shift) < NOTHING:
        return ABSENT
    for i in range(6):
        if not math.isfinite(inverse[i]):
            return UNDRAWN
    return DRAWN
