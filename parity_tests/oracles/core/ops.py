"""Oracles of the pure mathematics: safe logarithms, reductions, transforms."""

import math

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.scalars import as64


def _elementwise(function, tensor) -> np.ndarray:
    """Applies a function of one float to every element."""
    tensor = as64(tensor)
    out = np.zeros(tensor.shape)
    for index in np.ndindex(tensor.shape):
        out[index] = function(float(tensor[index]))
    return out


def _lines(shape, axis):
    """Yields the index of every line along `axis`: (before, after) around that axis."""
    axis = axis % len(shape)
    for before in np.ndindex(shape[:axis]):
        for after in np.ndindex(shape[axis + 1 :]):
            yield before, after


def relu1(x) -> np.ndarray:
    """Cuts to [0, 1]: relu6(6 x) / 6.

    Source: math_ops.py, relu1.
    """
    return _elementwise(scalars.relu1, x)


def softplus(x) -> np.ndarray:
    """log(1 + exp(x)), elementwise.

    Source: tf.nn.softplus.
    """
    return _elementwise(scalars.softplus, x)


def sigmoid(x) -> np.ndarray:
    """1 / (1 + exp(-x)), elementwise.

    Source: tf.nn.sigmoid.
    """
    return _elementwise(scalars.sigmoid, x)


def safe_log(tensor, eps: float = 1e-16) -> np.ndarray:
    """log x where x >= eps, else -1e8.

    Source: math_ops.py, safe_log.
    """
    return _elementwise(lambda value: scalars.safe_log(value, eps), tensor)


def safe_ce(labels, probs, axis: int = -1) -> np.ndarray:
    """Mean cross-entropy: mean over the other axes of -sum_axis labels * safe_log(probs).

    Args: labels, probs of one shape. Returns a scalar.
    Source: math_ops.py, safe_ce.
    """
    labels, probs = as64(labels), as64(probs)
    axis = axis % probs.ndim
    total, n_lines = 0.0, 0
    for before, after in _lines(probs.shape, axis):
        line = 0.0
        for i in range(probs.shape[axis]):
            index = (*before, i, *after)
            line += float(labels[index]) * scalars.safe_log(float(probs[index]))
        total += -line
        n_lines += 1
    return np.float64(total / n_lines)


def flat_reduce(tensor, reduce_type: str = "sum", final_reduce: str | None = "mean") -> np.ndarray:
    """Reduces each example over all its elements, then the batch: final_b(reduce_i x[b, i]).

    Args: tensor [B, ...]; reduce types 'sum', 'mean', 'max', 'min'; no final one keeps [B].
    Source: math_ops.py, flat_reduce.
    """
    tensor = as64(tensor)
    per_example = np.zeros(tensor.shape[0])
    for b in range(tensor.shape[0]):
        values = [float(tensor[(b, *index)]) for index in np.ndindex(tensor.shape[1:])]
        per_example[b] = _reduce(values, reduce_type)
    if final_reduce is None:
        return per_example
    return np.float64(_reduce([float(value) for value in per_example], final_reduce))


def _reduce(values: list[float], how: str) -> float:
    """Sum, mean, max or min of a list."""
    if how in ("max", "min"):
        best = values[0]
        for value in values:
            if (how == "max" and value > best) or (how == "min" and value < best):
                best = value
        return best
    total = 0.0
    for value in values:
        total += value
    if how == "sum":
        return total
    if how == "mean":
        return total / len(values)
    raise ValueError(f"unknown reduction {how!r}")


def log_sum_exp(x, axis: int, keepdims: bool = False) -> np.ndarray:
    """log sum exp(x - m) + m along an axis, m = max x, or zero where that is not finite.

    Source: tf.reduce_logsumexp, as prob.py and capsule.py use it.
    """
    x = as64(x)
    axis = axis % x.ndim
    out = np.zeros(x.shape[:axis] + (1,) + x.shape[axis + 1 :])
    for before, after in _lines(x.shape, axis):
        line = [float(x[(*before, i, *after)]) for i in range(x.shape[axis])]
        out[(*before, 0, *after)] = scalars.log_sum_exp(line)
    return out if keepdims else out.reshape(x.shape[:axis] + x.shape[axis + 1 :])


def normalize(tensor, axis: int) -> np.ndarray:
    """x / (sum_axis x + 1e-8).

    Source: math_ops.py, normalize.
    """
    tensor = as64(tensor)
    axis = axis % tensor.ndim
    out = np.zeros(tensor.shape)
    for before, after in _lines(tensor.shape, axis):
        total = 0.0
        for i in range(tensor.shape[axis]):
            total += float(tensor[(*before, i, *after)])
        for i in range(tensor.shape[axis]):
            index = (*before, i, *after)
            out[index] = scalars.divide(float(tensor[index]), total + 1e-8)
    return out


def make_broadcastable(tensor, against) -> np.ndarray:
    """Appends axes of length one until the ranks agree.

    Source: tensor_ops.py, make_brodcastable.
    """
    tensor = as64(tensor)
    return expand_dims(tensor, n_dims=np.ndim(against) - tensor.ndim)


def expand_dims(tensor, axis: int = -1, n_dims: int = 1) -> np.ndarray:
    """Inserts `n_dims` axes of length one at `axis`.

    Source: tensor_ops.py, expand_dims.
    """
    tensor = as64(tensor)
    for _ in range(n_dims):
        shape = list(tensor.shape)
        shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, 1)
        tensor = tensor.reshape(shape)
    return tensor


def to_homogeneous(tensor) -> np.ndarray:
    """Appends a coordinate of one: [..., d] -> [..., d + 1].

    Source: math_ops.py, to_homogenous.
    """
    tensor = as64(tensor)
    out = np.zeros((*tensor.shape[:-1], tensor.shape[-1] + 1))
    for index in np.ndindex(tensor.shape[:-1]):
        for i in range(tensor.shape[-1]):
            out[(*index, i)] = tensor[(*index, i)]
        out[(*index, tensor.shape[-1])] = 1.0
    return out


def from_homogeneous(tensor) -> np.ndarray:
    """Divides by the last coordinate: x[..., :-1] / (x[..., -1] + 1e-8).

    Source: math_ops.py, from_homogenous.
    """
    tensor = as64(tensor)
    out = np.zeros((*tensor.shape[:-1], tensor.shape[-1] - 1))
    for index in np.ndindex(tensor.shape[:-1]):
        for i in range(tensor.shape[-1] - 1):
            last = float(tensor[(*index, -1)]) + 1e-8
            out[(*index, i)] = scalars.divide(float(tensor[(*index, i)]), last)
    return out


def apply_transform(transform, tensor=None, affine: bool = True) -> np.ndarray:
    """Applies [..., d+1, d+1] matrices to [..., N, d] points, or returns the translations.

    affine: A p + t, with A the upper left block and t the last column; otherwise the homogeneous
    product T (p, 1) divided by its last coordinate; without points the column t, [..., d].
    The translation is added as the original does, t with shape [..., d] against points
    [..., N, d], so with N > 1 the axes before the last must broadcast.
    Source: math_ops.py, apply_transform.
    """
    transform = as64(transform)
    n_dims = transform.shape[-1] - 1
    if tensor is None:
        out = np.zeros((*transform.shape[:-2], n_dims))
        for index in np.ndindex(out.shape):
            out[index] = transform[(*index, n_dims)]
        return out
    tensor = as64(tensor)
    if not affine:
        points = to_homogeneous(tensor)
        return from_homogeneous(_points_times_transposed(points, transform))
    rotated = _points_times_transposed(tensor, transform[..., :n_dims, :n_dims])
    offset = apply_transform(transform)
    shape = np.broadcast_shapes(rotated.shape, offset.shape)
    rotated, offset = np.broadcast_to(rotated, shape), np.broadcast_to(offset, shape)
    out = np.zeros(shape)
    for index in np.ndindex(shape):
        out[index] = rotated[index] + offset[index]
    return out


def _points_times_transposed(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """out[..., n, i] = sum_j points[..., n, j] matrix[..., i, j], leading axes broadcast."""
    lead = np.broadcast_shapes(points.shape[:-2], matrix.shape[:-2])
    points = np.broadcast_to(points, lead + points.shape[-2:])
    matrix = np.broadcast_to(matrix, lead + matrix.shape[-2:])
    out = np.zeros((*lead, points.shape[-2], matrix.shape[-2]))
    for index in np.ndindex(lead):
        for n in range(points.shape[-2]):
            for i in range(matrix.shape[-2]):
                total = 0.0
                for j in range(matrix.shape[-1]):
                    total += float(points[(*index, n, j)]) * float(matrix[(*index, i, j)])
                out[(*index, n, i)] = total
    return out


def geometric_transform(
    pose_tensor, similarity: bool = False, nonlinear: bool = True, as_matrix: bool = False
) -> np.ndarray:
    """Turns six pose parameters (sx, sy, theta, shear, tx, ty) into an affine map.

    nonlinear: s -> sigmoid(s) + 1e-2, tx, ty, shear -> tanh(5 .), theta -> 2 pi theta;
    otherwise s -> |s| + 1e-2, the others as they are. With c = cos theta, s = sin theta
    affine:     [sx c + shear sy s, -sx s + shear sy c, tx;  sy s, sy c, ty]
    similarity: [sx c, -sx s, tx;  sx s, sx c, ty]
    Args: pose_tensor [..., 6]. Returns [..., 6], as_matrix [..., 3, 3] with the row (0, 0, 1).
    Source: math_ops.py, geometric_transform.
    """
    pose_tensor = as64(pose_tensor)
    lead = pose_tensor.shape[:-1]
    out = np.zeros((*lead, 3, 3) if as_matrix else (*lead, 6))
    for index in np.ndindex(lead):
        sx, sy, theta, shear, tx, ty = (float(value) for value in pose_tensor[index])
        if nonlinear:
            sx, sy = scalars.sigmoid(sx) + 1e-2, scalars.sigmoid(sy) + 1e-2
            tx, ty, shear = math.tanh(5.0 * tx), math.tanh(5.0 * ty), math.tanh(5.0 * shear)
            theta = theta * 2.0 * math.pi
        else:
            sx, sy = abs(sx) + 1e-2, abs(sy) + 1e-2
        c, s = math.cos(theta), math.sin(theta)
        if similarity:
            rows = [[sx * c, -sx * s, tx], [sx * s, sx * c, ty]]
        else:
            rows = [[sx * c + shear * sy * s, -sx * s + shear * sy * c, tx], [sy * s, sy * c, ty]]
        for i in range(2):
            for j in range(3):
                out[(*index, i, j) if as_matrix else (*index, 3 * i + j)] = rows[i][j]
        if as_matrix:
            out[(*index, 2, 2)] = 1.0
    return out


def transform_entries(pose_tensor, similarity: bool = False, nonlinear: bool = True) -> tuple[np.ndarray, ...]:
    """The entries a, b, tx, c, d, ty of `geometric_transform`, each [...].

    Source: math_ops.py, geometric_transform.
    """
    return tuple(np.moveaxis(geometric_transform(pose_tensor, similarity, nonlinear), -1, 0))
