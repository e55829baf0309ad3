"""Oracles of `capsnet/layers.py`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity_tests.oracles.capsnet.routing import capsule_votes, dynamic_routing, squash
from parity_tests.oracles.core.layers import conv_2d
from parity_tests.oracles.scalars import as64, sigmoid


def mask_capsules(capsules, keep) -> np.ndarray:
    """result[b, j D + d] = v[b, j, d] where j = keep[b], else 0."""
    v = as64(capsules)
    batch, parents, atoms = v.shape
    result = np.zeros((batch, parents * atoms))
    for b, d in np.ndindex(batch, atoms):
        kept = int(keep[b])
        result[b, kept * atoms + d] = v[b, kept, d]
    return result


def flatten_grid(grid) -> np.ndarray:
    """result[b, t H W + y W + x, a] = grid[b, t, a, y, x]."""
    grid = as64(grid)
    batch, types, atoms, height, width = grid.shape
    result = np.zeros((batch, types * height * width, atoms))
    for b, t, a, y, x in np.ndindex(grid.shape):
        result[b, t * height * width + y * width + x, a] = grid[b, t, a, y, x]
    return result


def convolution(image, variables: Mapping[str, np.ndarray], stride: int) -> np.ndarray:
    """VALID convolution with the official program's names."""
    return conv_2d(image, {"w": variables["weights"], "b": variables["biases"]}, stride)


def primary_capsules(features, variables: Mapping[str, np.ndarray], settings: Mapping[str, Any]
                     ) -> np.ndarray:
    """Channel t A + a at (y, x) is number a of the capsule of type t there; then squash."""
    types, atoms = settings.get("primary_types", 32), settings.get("primary_atoms", 8)
    plain = {"w": variables["weights"], "b": np.zeros(types * atoms)}
    y = conv_2d(features, plain, settings.get("primary_stride", 2))
    share = 1.0 / (types + settings.get("leaky", False)) if settings.get("primary_coupling") else 1.0
    result = np.zeros((y.shape[0], types, atoms, *y.shape[1:3]))
    for b, t, a, row, col in np.ndindex(result.shape):
        result[b, t, a, row, col] = (float(y[b, row, col, t * atoms + a]) * share
                                     + float(variables["biases"][t, a, 0, 0]))
    return squash(result, 2, settings.get("squash_epsilon", 0.0))


def routing_capsules(capsules, variables: Mapping[str, np.ndarray], parents: int,
                     settings: Mapping[str, Any]) -> np.ndarray:
    """Votes, then routing."""
    votes = capsule_votes(capsules, variables["weights"], parents)
    return dynamic_routing(votes, variables.get("biases"), settings.get("iterations", 3),
                           settings.get("leaky", False),
                           epsilon=settings.get("squash_epsilon", 0.0))["capsules"]


def capsule_decoder(masked, variables: Mapping[str, np.ndarray]) -> np.ndarray:
    """x W + b with max(0, .) after each layer but the last, which has a sigmoid."""
    x = as64(masked)
    layers = len(variables) // 2
    for layer in range(1, layers + 1):
        w, b = as64(variables[f"recons_{layer}/weights"]), as64(variables[f"recons_{layer}/biases"])
        y = np.zeros((x.shape[0], w.shape[1]))
        for n, k in np.ndindex(y.shape):
            value = float(b[k]) + sum(float(x[n, m]) * float(w[m, k]) for m in range(w.shape[0]))
            y[n, k] = sigmoid(value) if layer == layers else max(0.0, value)
        x = y
    return x
