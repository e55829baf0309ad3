"""Pure mathematics of the original's `capsules/math_ops.py` and `tensor_ops.py`, in TensorFlow 2.

Read beside `port/core/ops.py`: same functions, same order.
"""

from __future__ import annotations

import math

import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


def relu1(x: Array) -> Array:
    """Clip to [0, 1]: relu6(6x) / 6.

    Args:
        x: any shape.

    Returns:
        The same shape; the gradient is 1 strictly inside (0, 1) and 0 at both ends.

    Source: original `math_ops.relu1`.
    """
    return tf.nn.relu6(6.0 * x) / 6.0


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), exact in both tails.

    Args:
        x: any shape.

    Returns:
        The same shape, positive.

    Source: `tf.nn.softplus` as used throughout the original.
    """
    return tf.nn.softplus(x)


def safe_log(tensor: Array, eps: float = 1e-16) -> Array:
    """log(x) where x >= eps, else -1e8 with zero gradient (Q14).

    Args:
        tensor: any shape, non-negative.
        eps: the floor below which the logarithm is replaced.

    Returns:
        The same shape.

    Source: original `math_ops.safe_log`.
    """
    is_zero = tf.less(tensor, tf.constant(eps, tensor.dtype))
    # The inner `where` keeps log(0) out of the gradient: 0 * inf would be nan.
    tensor = tf.where(is_zero, tf.ones_like(tensor), tensor)
    return tf.where(is_zero, tf.constant(-1e8, tensor.dtype), tf.math.log(tensor))


def safe_ce(labels: Float[tf.Tensor, "*shape"], probs: Float[tf.Tensor, "*shape"], axis: int = -1
            ) -> Array:
    """Mean cross-entropy: mean(-Σ_axis labels · safe_log(probs)).

    Args:
        labels: probabilities, any shape.
        probs: the same shape.
        axis: the axis of the classes.

    Returns:
        A scalar.

    Source: original `math_ops.safe_ce`.
    """
    return tf.reduce_mean(-tf.reduce_sum(labels * safe_log(probs), axis=axis))


def flat_reduce(tensor: Float[tf.Tensor, "batch *shape"], reduce_type: str = "sum",
                final_reduce: str | None = "mean") -> Array:
    """Reduce each example over all its entries, then the batch.

    Args:
        tensor: `[B, ...]`.
        reduce_type: `sum`, `mean`, `max` or `min`, over everything but the first axis.
        final_reduce: the same, over the batch; None leaves `[B]`.

    Returns:
        A scalar, or `[B]`.

    Source: original `math_ops.flat_reduce`.
    """
    flat = tf.reshape(tensor, [tensor.shape[0], -1])
    reduced = getattr(tf, f"reduce_{reduce_type}")(flat, axis=-1)
    if final_reduce is None:
        return reduced
    return getattr(tf, f"reduce_{final_reduce}")(reduced)


def log_sum_exp(x: Array, axis: int, keepdims: bool = False) -> Array:
    """log Σ exp(x - sg(max x)) + sg(max x), differentiated as written.

    Args:
        x: any shape.
        axis: the axis that is summed.
        keepdims: keep that axis with size 1.

    Returns:
        `x` without `axis`.

    Source: `tf.reduce_logsumexp` of TensorFlow 1.15. The form matters: with every component at
    -1e8 the normalised exponential has another gradient in float32.
    """
    raw_max = tf.reduce_max(x, axis=axis, keepdims=True)
    shift = tf.stop_gradient(tf.where(tf.math.is_finite(raw_max), raw_max, tf.zeros_like(raw_max)))
    result = tf.math.log(tf.reduce_sum(tf.exp(x - shift), axis=axis, keepdims=True)) + shift
    return result if keepdims else tf.squeeze(result, axis)


def normalize(tensor: Array, axis: int) -> Array:
    """x / (Σ_axis x + 1e-8).

    Args:
        tensor: any shape, non-negative.
        axis: the axis that is to sum to one.

    Returns:
        The same shape.

    Source: original `math_ops.normalize`.
    """
    return tensor / (tf.reduce_sum(tensor, axis=axis, keepdims=True) + 1e-8)


def make_broadcastable(tensor: Array, against: Array) -> Array:
    """Append axes of size 1 until `tensor` has the rank of `against`.

    Args:
        tensor: rank at most that of `against`.
        against: gives the rank.

    Returns:
        `tensor` with trailing axes of size 1.

    Source: original `tensor_ops.make_brodcastable`.
    """
    return expand_dims(tensor, -1, len(against.shape) - len(tensor.shape))


def expand_dims(tensor: Array, axis: int = -1, n_dims: int = 1) -> Array:
    """Insert `n_dims` axes of size 1 at `axis`.

    Args:
        tensor: any shape.
        axis: where.
        n_dims: how many.

    Returns:
        The tensor with `n_dims` more axes.

    Source: original `tensor_ops.expand_dims`.
    """
    for _ in range(n_dims):
        tensor = tf.expand_dims(tensor, axis)
    return tensor


def to_homogeneous(tensor: Float[tf.Tensor, "*batch d"]) -> Array:
    """Append a coordinate 1 on the last axis.

    Args:
        tensor: `[..., d]`.

    Returns:
        `[..., d + 1]`.

    Source: original `math_ops.to_homogenous`.
    """
    return tf.concat([tensor, tf.ones_like(tensor[..., :1])], -1)


def from_homogeneous(tensor: Float[tf.Tensor, "*batch d"]) -> Array:
    """Divide by the last coordinate: x[:-1] / (x[-1] + 1e-8).

    Args:
        tensor: `[..., d + 1]`.

    Returns:
        `[..., d]`.

    Source: original `math_ops.from_homogenous`.
    """
    return tensor[..., :-1] / (tensor[..., -1:] + 1e-8)


def apply_transform(transform: Float[tf.Tensor, "*batch d1 d1"], tensor: Array | None = None,
                    affine: bool = True) -> Array:
    """Move points by a matrix: x Aᵀ + t, or the projective x Mᵀ.

    Args:
        transform: `[..., d + 1, d + 1]`.
        tensor: points `[..., n, d]`; None returns the translation.
        affine: use the upper rows alone; else divide by the last homogeneous coordinate.

    Returns:
        `[..., n, d]`; `[..., d]` for None. The affine translation `[..., d]` is added with plain
        broadcasting (Q18): for `[B, 1, d]` points this gives `[B, B, d]`.

    Source: original `math_ops.apply_transform`.
    """
    if tensor is None:
        return transform[..., :-1, -1]
    if affine:
        moved = tf.matmul(tensor, transform[..., :-1, :-1], transpose_b=True)
        return moved + transform[..., :-1, -1]
    moved = tf.matmul(to_homogeneous(tensor), transform, transpose_b=True)
    return from_homogeneous(moved)


def geometric_transform(pose_tensor: Float[tf.Tensor, "*batch 6"], similarity: bool = False,
                        nonlinear: bool = True, as_matrix: bool = False) -> Array:
    """Six raw parameters to an affine or similarity transform of the plane.

    Affine: [sx c + h sy s, -sx s + h sy c, tx, sy s, sy c, ty]; similarity: [s c, -s s, tx, s s,
    s c, ty], with c = cos θ, s = sin θ and h the shear.

    Args:
        pose_tensor: `[..., 6]` = (sx, sy, θ, h, tx, ty).
        similarity: use sx as the only scale and no shear.
        nonlinear: squash: scales σ(·) + 1e-2, θ to turns (2πθ), shear and translation tanh(5·);
            else scales |·| + 1e-2 and the rest raw.
        as_matrix: append the row [0, 0, 1].

    Returns:
        `[..., 6]` = [a b tx c d ty], or `[..., 3, 3]`.

    Source: original `math_ops.geometric_transform`; paper section 2.1.
    """
    pose = tf.stack(transform_entries(pose_tensor, similarity, nonlinear), -1)
    if not as_matrix:
        return pose
    batch = pose.shape[:-1]
    last = tf.broadcast_to(tf.constant([0.0, 0.0, 1.0], pose.dtype), [*batch, 1, 3])
    return tf.concat([tf.reshape(pose, [*batch, 2, 3]), last], -2)


def transform_entries(pose_tensor: Float[tf.Tensor, "*batch 6"], similarity: bool = False, nonlinear: bool = True
                      ) -> list[Array]:
    """The entries a, b, tx, c, d and ty of `geometric_transform`, each `[...]`; arguments as there."""
    scale_x, scale_y, theta, shear, trans_x, trans_y = tf.unstack(pose_tensor, 6, -1)
    if nonlinear:
        scale_x, scale_y = tf.nn.sigmoid(scale_x) + 1e-2, tf.nn.sigmoid(scale_y) + 1e-2
        trans_x, trans_y, shear = (tf.nn.tanh(v * 5.0) for v in (trans_x, trans_y, shear))
        theta = theta * (2.0 * math.pi)
    else:
        scale_x, scale_y = tf.abs(scale_x) + 1e-2, tf.abs(scale_y) + 1e-2
    c, s = tf.cos(theta), tf.sin(theta)
    if similarity:
        return [scale_x * c, -scale_x * s, trans_x, scale_x * s, scale_x * c, trans_y]
    return [scale_x * c + shear * scale_y * s, -scale_x * s + shear * scale_y * c, trans_x,
            scale_y * s, scale_y * c, trans_y]
