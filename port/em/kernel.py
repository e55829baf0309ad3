"""The two sums over votes that EM routing is made of, example by example: a kernel for Numba.

A vote is 64 multiplications; kept for every child and parent, the votes of one layer are hundreds of
megabytes that each step of the routing reads again. Here a parent's votes are made in a buffer that
stays in the first-level cache, used and forgotten, forwards and backwards alike:

- `moments_*`: mass, mean and variance of each parent (the sums of the M step);
- `distances_*`: Σ_h ((V - μ)/σ)² of each vote (the sum of the E step).

Everything between them (cost, activation, competition) is small and stays PyTorch. The children of a
window lie on the last axis, so every loop runs along memory. Each example owns its gradients, so the
result does not depend on the number of threads.

`port.em.fused` decides when this runs and shows it to autograd. Without Numba the functions are plain
Python: right, and far too slow.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np

from port.core.numba_cache import compiled

POSE = 16


def _compiled(function):
    """Compile for the types of each call, kept where possible; sums may be taken in another order."""
    return compiled(function, fastmath={"contract", "reassoc", "nsz"})


@_compiled
@no_type_check
def _gather(pose, row, column, high, wide, out):
    """The window's poses `[H, W, I, 16]` → `[16, K·L·I]`."""
    types = pose.shape[2]
    for u in range(high):
        for v in range(wide):
            at = (u * wide + v) * types
            for i in range(types):
                for h in range(POSE):
                    out[h, at + i] = pose[row + u, column + v, i, h]


@_compiled
@no_type_check
def _votes(pose, weight, out):
    """V[4r + a] = Σ_m P[4r + m] W[4m + a], for every child of the window."""
    for r in range(4):
        for a in range(4):
            p0, p1, p2, p3 = pose[4 * r], pose[4 * r + 1], pose[4 * r + 2], pose[4 * r + 3]
            w0, w1, w2, w3 = weight[a], weight[4 + a], weight[8 + a], weight[12 + a]
            target = out[4 * r + a]
            for c in range(target.shape[0]):
                target[c] = p0[c] * w0[c] + p1[c] * w1[c] + p2[c] * w2[c] + p3[c] * w3[c]


@_compiled
@no_type_check
def _votes_back(grad, pose, weight, grad_pose, grad_weight):
    """Add what a gradient of the votes gives to poses and weights: dP = dV Wᵀ, dW = Pᵀ dV."""
    for r in range(4):
        g0, g1, g2, g3 = grad[4 * r], grad[4 * r + 1], grad[4 * r + 2], grad[4 * r + 3]
        for m in range(4):
            w0, w1, w2, w3 = weight[4 * m], weight[4 * m + 1], weight[4 * m + 2], weight[4 * m + 3]
            target = grad_pose[4 * r + m]
            for c in range(target.shape[0]):
                target[c] += g0[c] * w0[c] + g1[c] * w1[c] + g2[c] * w2[c] + g3[c] * w3[c]
    for m in range(4):
        p0, p1, p2, p3 = pose[m], pose[4 + m], pose[8 + m], pose[12 + m]
        for a in range(4):
            g0, g1, g2, g3 = grad[a], grad[4 + a], grad[8 + a], grad[12 + a]
            target = grad_weight[4 * m + a]
            for c in range(target.shape[0]):
                target[c] += p0[c] * g0[c] + p1[c] * g1[c] + p2[c] * g2[c] + p3[c] * g3[c]


@_compiled
@no_type_check
def _scatter(window, row, column, high, wide, out):
    """Add a window's gradient to the children: the adjoint of `_gather`."""
    types = out.shape[2]
    for u in range(high):
        for v in range(wide):
            at = (u * wide + v) * types
            for i in range(types):
                for h in range(POSE):
                    out[row + u, column + v, i, h] += window[h, at + i]


@_compiled
@no_type_check
def moments_forward(first, last, pose, weight, share, previous, stride, high, wide, momentum, epsilon,
                    floor, smallest, mass, mean, variance):
    """Mass, mean and variance of the parents of examples first … last - 1.

    Args:
        pose: `[B, H, W, I, 16]`.
        weight: `[J, 16, C]`, C = K·L·I children of a window.
        share: weight of each vote `[B, P, Q, J, C]`.
        previous: mean of the iteration before `[B, P, Q, J, 16]`.
        stride: s.
        high, wide: K, L.
        momentum, epsilon, floor: of `em.settings.Routing`.
        smallest: a mass below it counts as none.
        mass, mean, variance: results `[B, P, Q, J]`, `[B, P, Q, J, 16]` twice.
    """
    types, children = weight.shape[0], weight.shape[2]
    window = np.empty((POSE, children), pose.dtype)
    votes = np.empty((POSE, children), pose.dtype)
    for b in range(first, last):
        for p in range(share.shape[1]):
            for q in range(share.shape[2]):
                _gather(pose[b], p * stride, q * stride, high, wide, window)
                for j in range(types):
                    _votes(window, weight[j], votes)
                    w = share[b, p, q, j]
                    total = pose.dtype.type(0)
                    for c in range(children):
                        total += w[c]
                    mass[b, p, q, j] = total
                    divisor = total + epsilon
                    alive = divisor >= smallest
                    for h in range(POSE):
                        vote = votes[h]
                        mu = pose.dtype.type(0)
                        for c in range(children):
                            mu += w[c] * vote[c]
                        mu = mu / divisor if alive else pose.dtype.type(0)
                        mu = (1 - momentum) * mu + momentum * previous[b, p, q, j, h]
                        spread = pose.dtype.type(0)
                        for c in range(children):
                            spread += w[c] * (vote[c] - mu) * (vote[c] - mu)
                        mean[b, p, q, j, h] = mu
                        variance[b, p, q, j, h] = (spread / divisor if alive
                                                   else pose.dtype.type(0)) + floor


@_compiled
@no_type_check
def moments_backward(first, last, pose, weight, share, stride, high, wide, momentum, epsilon, floor, smallest,
                     mass, mean, variance, grad_mass, grad_mean, grad_variance,
                     grad_pose, grad_weight, grad_share, grad_previous):
    """Gradients of `moments_forward`; `grad_weight` is one array an example.

    With D = N + ε, q = gvar/D, G = gμ - 2q Σ w(V - μ) and M = (1 - m)G/D:
    dV = w(2q(V - μ) + M); dw = Σ_h[q((V - μ)² - (σ² - floor)) + M(V - Σ wV/D)] + gN; dμ_previous = mG.
    """
    types, children = weight.shape[0], weight.shape[2]
    window = np.empty((POSE, children), pose.dtype)
    votes = np.empty((POSE, children), pose.dtype)
    back = np.empty((POSE, children), pose.dtype)
    for b in range(first, last):
        for p in range(share.shape[1]):
            for q in range(share.shape[2]):
                _gather(pose[b], p * stride, q * stride, high, wide, window)
                into = np.zeros((POSE, children), pose.dtype)
                for j in range(types):
                    w, out = share[b, p, q, j], grad_share[b, p, q, j]
                    divisor = mass[b, p, q, j] + epsilon
                    for c in range(children):
                        out[c] = grad_mass[b, p, q, j]
                    if not divisor >= smallest:
                        for h in range(POSE):
                            grad_previous[b, p, q, j, h] = momentum * grad_mean[b, p, q, j, h]
                        continue
                    _votes(window, weight[j], votes)
                    for h in range(POSE):
                        vote, target = votes[h], back[h]
                        mu = mean[b, p, q, j, h]
                        scaled = grad_variance[b, p, q, j, h] / divisor
                        deviation, weighted = pose.dtype.type(0), pose.dtype.type(0)
                        for c in range(children):
                            deviation += w[c] * (vote[c] - mu)
                            weighted += w[c] * vote[c]
                        to_mean = grad_mean[b, p, q, j, h] - 2 * scaled * deviation
                        grad_previous[b, p, q, j, h] = momentum * to_mean
                        each = (1 - momentum) * to_mean / divisor
                        centre = weighted / divisor
                        spread = variance[b, p, q, j, h] - floor
                        for c in range(children):
                            d = vote[c] - mu
                            target[c] = w[c] * (2 * scaled * d + each)
                            out[c] += scaled * (d * d - spread) + each * (vote[c] - centre)
                    _votes_back(back, window, weight[j], into, grad_weight[b, j])
                _scatter(into, p * stride, q * stride, high, wide, grad_pose[b])


@_compiled
@no_type_check
def distances_forward(first, last, pose, weight, mean, root, stride, high, wide, out):
    """Σ_h ((V - μ)·root)² of each vote, `[B, P, Q, J, C]`, for examples first … last - 1.

    Args:
        pose, weight, stride, high, wide: as for `moments_forward`.
        mean, root: μ and 1/σ `[B, P, Q, J, 16]`.
        out: the result.
    """
    types, children = weight.shape[0], weight.shape[2]
    window = np.empty((POSE, children), pose.dtype)
    votes = np.empty((POSE, children), pose.dtype)
    for b in range(first, last):
        for p in range(out.shape[1]):
            for q in range(out.shape[2]):
                _gather(pose[b], p * stride, q * stride, high, wide, window)
                for j in range(types):
                    _votes(window, weight[j], votes)
                    target = out[b, p, q, j]
                    for c in range(children):
                        target[c] = 0
                    for h in range(POSE):
                        vote, mu, r = votes[h], mean[b, p, q, j, h], root[b, p, q, j, h]
                        for c in range(children):
                            d = (vote[c] - mu) * r
                            target[c] += d * d


@_compiled
@no_type_check
def distances_backward(first, last, pose, weight, mean, root, stride, high, wide, grad, grad_pose,
                       grad_weight, grad_mean, grad_root):
    """Gradients of `distances_forward`: with d = (V - μ)r, dV = 2g·d·r = -dμ, dr = Σ 2g·d(V - μ)."""
    types, children = weight.shape[0], weight.shape[2]
    window = np.empty((POSE, children), pose.dtype)
    votes = np.empty((POSE, children), pose.dtype)
    back = np.empty((POSE, children), pose.dtype)
    for b in range(first, last):
        for p in range(grad.shape[1]):
            for q in range(grad.shape[2]):
                _gather(pose[b], p * stride, q * stride, high, wide, window)
                into = np.zeros((POSE, children), pose.dtype)
                for j in range(types):
                    _votes(window, weight[j], votes)
                    g = grad[b, p, q, j]
                    for h in range(POSE):
                        vote, target = votes[h], back[h]
                        mu, r = mean[b, p, q, j, h], root[b, p, q, j, h]
                        to_mean, to_root = pose.dtype.type(0), pose.dtype.type(0)
                        for c in range(children):
                            twice = 2 * g[c] * ((vote[c] - mu) * r)
                            target[c] = twice * r
                            to_mean += target[c]
                            to_root += twice * (vote[c] - mu)
                        grad_mean[b, p, q, j, h] = -to_mean
                        grad_root[b, p, q, j, h] = to_root
                    _votes_back(back, window, weight[j], into, grad_weight[b, j])
                _scatter(into, p * stride, q * stride, high, wide, grad_pose[b])


def smallest_mass(dtype: np.dtype) -> float:
    """Where `em.routing.safe_divide` begins to divide: the root of the smallest normal number."""
    return math.sqrt(float(np.finfo(dtype).tiny))
