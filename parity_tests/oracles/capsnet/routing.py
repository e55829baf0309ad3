"""Oracles of `capsnet/routing.py`."""

import math

import numpy as np

from parity_tests.oracles.scalars import as64


def capsule_lengths(capsules, axis: int = -1) -> np.ndarray:
    """sqrt(sum_a v_a^2) along one axis."""
    moved = np.moveaxis(as64(capsules), axis, -1)
    result = np.zeros(moved.shape[:-1])
    for index in np.ndindex(result.shape):
        result[index] = math.sqrt(sum(float(v) ** 2 for v in moved[index]))
    return result


def squash(s, axis: int = -1, epsilon: float = 0.0) -> np.ndarray:
    """(n^2 / (1 + n^2)) s / (n + epsilon), and 0 where n = |s| is 0."""
    moved = np.moveaxis(as64(s), axis, -1)
    result = np.zeros(moved.shape)
    for index in np.ndindex(moved.shape[:-1]):
        square = sum(float(v) ** 2 for v in moved[index])
        norm = math.sqrt(square)
        for atom in range(moved.shape[-1]):
            if norm > 0.0:
                result[index][atom] = square / (1.0 + square) * float(moved[index][atom]) / (norm + epsilon)
    return np.moveaxis(result, -1, axis)


def capsule_votes(capsules, weights, n_parents: int) -> np.ndarray:
    """votes[b, i, j, d] = sum_m u[b, i, m] W[i, m, j D + d]."""
    u, w = as64(capsules), as64(weights)
    batch, children, before = u.shape
    atoms = w.shape[2] // n_parents
    votes = np.zeros((batch, children, n_parents, atoms))
    for b, i, j, d in np.ndindex(votes.shape):
        votes[b, i, j, d] = sum(float(u[b, i, m]) * float(w[i, m, j * atoms + d]) for m in range(before))
    return votes


def coupling_coefficients(logits, leaky: bool = False) -> np.ndarray:
    """c[b, i, j] = exp(b_ij) / (sum_k exp(b_ik) [+ exp 0 if leaky]), at each trailing position."""
    values = as64(logits)
    result = np.zeros(values.shape)
    for b, i, *place in np.ndindex(values.shape[:2] + values.shape[3:]):
        row = [float(values[(b, i, j, *place)]) for j in range(values.shape[2])]
        largest = max(row + [0.0] * leaky)
        total = sum(math.exp(v - largest) for v in row) + leaky * math.exp(-largest)
        for j, value in enumerate(row):
            result[(b, i, j, *place)] = math.exp(value - largest) / total
    return result


def dynamic_routing(
    votes, bias=None, iterations: int = 3, leaky: bool = False, gradient: str = "all", epsilon: float = 0.0
) -> dict[str, np.ndarray]:
    """Procedure 1 of the paper, one loop per index; `gradient` changes no value."""
    votes = as64(votes)
    batch, children, parents, atoms, *grid = votes.shape
    logits = np.zeros((batch, children, parents, *grid))
    for iteration in range(iterations):
        coupling = coupling_coefficients(logits, leaky)
        sums = np.zeros((batch, parents, atoms, *grid))
        for b, j, d, *place in np.ndindex(sums.shape):
            at = tuple(place)
            total = sum(float(coupling[(b, i, j, *at)] * votes[(b, i, j, d, *at)]) for i in range(children))
            extra = 0.0 if bias is None else float(np.asarray(bias).reshape(parents, atoms)[j, d])
            sums[(b, j, d, *at)] = total + extra
        capsules = squash(sums, 2, epsilon)
        if iteration == iterations - 1:
            return {"capsules": capsules, "logits": logits, "coupling": coupling}
        for b, i, j, *place in np.ndindex(logits.shape):
            at = tuple(place)
            logits[(b, i, j, *at)] += sum(
                float(votes[(b, i, j, d, *at)] * capsules[(b, j, d, *at)]) for d in range(atoms))
    raise ValueError("at least one iteration")
