"""Oracles of CapsNet: squash, votes, dynamic routing, losses, layers and the whole network.

Both rooms of the packages (`capsnet_routing` and `capsnet`) have their oracles here. Settings come as
a plain mapping of the names and defaults of the paper's network.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from parity_tests.oracles.core.layers import conv_2d
from parity_tests.oracles.scalars import as64, sigmoid, sub_scope


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


def margin_terms(
    lengths, labels, upper: float = 0.9, lower: float = 0.1, down_weight: float = 0.5
) -> np.ndarray:
    """T max(0, upper - l)^2 + down_weight (1 - T) max(0, l - lower)^2."""
    lengths, labels = as64(lengths), as64(labels)
    result = np.zeros(lengths.shape)
    for index in np.ndindex(lengths.shape):
        length, label = float(lengths[index]), float(labels[index])
        result[index] = (label * max(0.0, upper - length) ** 2
                         + down_weight * (1.0 - label) * max(0.0, length - lower) ** 2)
    return result


def margin_loss(lengths, labels, reduction: str = "sum") -> float:
    """The paper's: class sum, batch mean; `mean`: that over 2 classes."""
    terms = margin_terms(lengths, labels)
    batch, classes = terms.shape
    total = sum(float(v) for v in terms.ravel()) / batch
    return total if reduction == "sum" else total / (2.0 * classes)


def reconstruction_loss(image, reconstruction, weight: float = 0.0005) -> float:
    """weight (sum of squared differences of everything) / batch."""
    x, r = as64(image), as64(reconstruction)
    total = sum((float(r[index]) - float(x[index])) ** 2 for index in np.ndindex(x.shape))
    return weight * total / x.shape[0]


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


def caps_net(image, variables: Mapping[str, np.ndarray], settings: Mapping[str, Any], label=None,
             mask: str = "label") -> dict[str, np.ndarray]:
    """The whole network and its losses; images are channels last, pixels decoded channel by channel."""
    image = as64(image)
    features = np.maximum(
        convolution(image, sub_scope(variables, "conv1"), settings.get("conv1_stride", 1)), 0.0)
    grid = primary_capsules(features, sub_scope(variables, "conv_capsule1"), settings)
    capsules = routing_capsules(flatten_grid(grid), sub_scope(variables, "capsule2"),
                                settings.get("classes", 10), settings)
    lengths = capsule_lengths(capsules)
    longest = [int(np.argmax(row)) for row in lengths]
    found = {"capsules": capsules, "lengths": lengths, "loss": 0.0}
    joint = settings.get("reconstruction", "joint") == "joint"
    if label is not None:
        labels = np.zeros(lengths.shape)
        for b, value in enumerate(label):
            labels[b, int(value)] = 1.0
        found["margin_loss"] = margin_loss(lengths, labels, settings.get("margin", "sum"))
        found["accuracy"] = sum(a == int(b) for a, b in zip(longest, label)) / len(longest)
        found["loss"] += found["margin_loss"] if joint else 0.0
    if settings.get("decoder", (512, 1024)):
        keep = longest if label is None or mask == "length" else label
        flat = capsule_decoder(mask_capsules(capsules, keep), sub_scope(variables, "recons"))
        batch, side, _, channels = image.shape
        picture = np.zeros(image.shape)
        for b, y, x, c in np.ndindex(image.shape):
            picture[b, y, x, c] = flat[b, (c * side + y) * side + x]
        weight = settings.get("reconstruction_weight", 0.0005)
        found["reconstruction"] = picture
        found["reconstruction_loss"] = reconstruction_loss(image, picture, weight)
        found["loss"] += found["reconstruction_loss"]
    return found
