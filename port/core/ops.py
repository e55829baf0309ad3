"""Pure mathematics of the original's `capsules/math_ops.py` and `tensor_ops.py`, in PyTorch.

Read beside `reference/core/ops.py`: same functions, same order.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Array = Float[Tensor, "..."]


def relu1(x: Array) -> Array:
    """Clip to [0, 1]: relu6(6x) / 6.

    Args:
        x: any shape.

    Returns:
        The same shape; the gradient is 1 strictly inside (0, 1) and 0 at both ends.

    Source: original `math_ops.relu1`.
    """
    return F.relu6(6.0 * x) / 6.0


def softplus(x: Array) -> Array:
    """log(1 + exp(x)), exact in both tails.

    Args:
        x: any shape.

    Returns:
        The same shape, positive.

    Source: `tf.nn.softplus` as used throughout the original. PyTorch's default threshold of 20
    drops log1p(exp(-20)) = 2e-9, which float64 sees; at 40 the dropped term is below half an ulp.
    """
    return F.softplus(x, threshold=40.0)


def safe_log(tensor: Array, eps: float = 1e-16) -> Array:
    """log(x) where x >= eps, else -1e8 with zero gradient (Q14).

    Args:
        tensor: any shape, non-negative.
        eps: the floor below which the logarithm is replaced.

    Returns:
        The same shape.

    Source: original `math_ops.safe_log`.
    """
    if tensor.dtype == torch.float16:  # neither eps nor -1e8 is a number there
        return safe_log(tensor.float(), eps).clamp(min=torch.finfo(torch.float16).min).to(torch.float16)
    is_zero = tensor < eps
    # The inner `where` keeps log(0) out of the gradient: 0 * inf would be nan.
    tensor = torch.where(is_zero, 1.0, tensor)
    return torch.where(is_zero, -1e8, torch.log(tensor))


def safe_ce(labels: Float[Tensor, "*shape"], probs: Float[Tensor, "*shape"], axis: int = -1
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
    return torch.mean(-torch.sum(labels * safe_log(probs), dim=axis))


def flat_reduce(tensor: Float[Tensor, "batch *shape"], reduce_type: str = "sum",
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
    reducers = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax, "min": torch.amin}
    flat = tensor.reshape(tensor.shape[0], -1)
    reduced = reducers[reduce_type](flat, dim=-1)
    if final_reduce is None:
        return reduced
    return reducers[final_reduce](reduced, dim=0)


def log_sum_exp(x: Array, axis: int, keepdims: bool = False) -> Array:
    """log Σ exp(x - sg(max x)) + sg(max x), differentiated as written.

    Args:
        x: any shape.
        axis: the axis that is summed.
        keepdims: keep that axis with size 1.

    Returns:
        `x` without `axis`.

    Source: `tf.reduce_logsumexp` of TensorFlow 1.15. The form matters: `torch.logsumexp` takes its
    gradient from exp(x - result), which is 1 for each of K components at -1e8 in float32, not 1/K.
    """
    raw_max = torch.amax(x.detach(), dim=axis, keepdim=True)
    shift = torch.where(torch.isfinite(raw_max), raw_max, 0.0)
    result = torch.log(torch.sum(torch.exp(x - shift), dim=axis, keepdim=True)) + shift
    return result if keepdims else result.squeeze(axis)


def normalize(tensor: Array, axis: int) -> Array:
    """x / (Σ_axis x + 1e-8).

    Args:
        tensor: any shape, non-negative.
        axis: the axis that is to sum to one.

    Returns:
        The same shape.

    Source: original `math_ops.normalize`.
    """
    return tensor / (torch.sum(tensor, dim=axis, keepdim=True) + 1e-8)


def make_broadcastable(tensor: Array, against: Array) -> Array:
    """Append axes of size 1 until `tensor` has the rank of `against`.

    Args:
        tensor: rank at most that of `against`.
        against: gives the rank.

    Returns:
        `tensor` with trailing axes of size 1.

    Source: original `tensor_ops.make_brodcastable`.
    """
    return expand_dims(tensor, -1, against.ndim - tensor.ndim)


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
        tensor = tensor.unsqueeze(axis)
    return tensor


def to_homogeneous(tensor: Float[Tensor, "*batch d"]) -> Array:
    """Append a coordinate 1 on the last axis.

    Args:
        tensor: `[..., d]`.

    Returns:
        `[..., d + 1]`.

    Source: original `math_ops.to_homogenous`.
    """
    return torch.cat([tensor, torch.ones_like(tensor[..., :1])], -1)


def from_homogeneous(tensor: Float[Tensor, "*batch d"]) -> Array:
    """Divide by the last coordinate: x[:-1] / (x[-1] + 1e-8).

    Args:
        tensor: `[..., d + 1]`.

    Returns:
        `[..., d]`.

    Source: original `math_ops.from_homogenous`.
    """
    return tensor[..., :-1] / (tensor[..., -1:] + 1e-8)


def apply_transform(transform: Float[Tensor, "*batch d1 d1"], tensor: Array | None = None,
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
        moved = tensor @ transform[..., :-1, :-1].mT
        return moved + transform[..., :-1, -1]
    moved = to_homogeneous(tensor) @ transform.mT
    return from_homogeneous(moved)


def geometric_transform(pose_tensor: Float[Tensor, "*batch 6"], similarity: bool = False,
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
    rows = transform_entries(pose_tensor, similarity, nonlinear)
    if not as_matrix:
        return torch.stack(rows, -1)
    plane = -min(2, pose_tensor.ndim)  # as in `transform_entries`
    # Made on the device: copying numbers there would stop the host in every step.
    zero = torch.zeros_like(rows[2])
    entries = torch.stack([*rows, zero, zero, torch.ones_like(zero)], plane)
    return entries.movedim(plane, -1).unflatten(-1, (3, 3))


def transform_entries(pose_tensor: Float[Tensor, "*batch 6"], similarity: bool = False, nonlinear: bool = True
                      ) -> list[Array]:
    """The entries a, b, tx, c, d and ty of `geometric_transform`, each `[...]`; arguments as there."""
    # Taken apart, and put together backward, as planes of one parameter each: long loops like that.
    plane = -min(2, pose_tensor.ndim)
    scale_x, scale_y, theta, shear, trans_x, trans_y = pose_tensor.movedim(-1, plane).unbind(plane)
    if nonlinear:
        scale_x, scale_y = torch.sigmoid(scale_x) + 1e-2, torch.sigmoid(scale_y) + 1e-2
        trans_x, trans_y, shear = (torch.tanh(v * 5.0) for v in (trans_x, trans_y, shear))
        theta = theta * (2.0 * math.pi)
    else:
        scale_x, scale_y = torch.abs(scale_x) + 1e-2, torch.abs(scale_y) + 1e-2
    c, s = torch.cos(theta), torch.sin(theta)
    if similarity:
        return [scale_x * c, -scale_x * s, trans_x, scale_x * s, scale_x * c, trans_y]
    return [scale_x * c + shear * scale_y * s, -scale_x * s + shear * scale_y * c, trans_x,
            scale_y * s, scale_y * c, trans_y]
