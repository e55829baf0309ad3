"""The bilinear resampler as two products with hat weights: no gather, so no scatter on the way back.

On a GPU the backward of a gather adds with atomics, in an order that changes from run to run; products
are repeatable, and templates are only about 11 pixels wide. The gather of `warp.resampler` moves less
everywhere, so this is for the deterministic mode on a GPU (`port.training.precision`).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def hat_weights(x: Float[Tensor, "n points"], inside: Tensor, size: int
                ) -> Float[Tensor, "n points size"]:
    """max(0, 1 - |x - j|) for j = 0, …, size - 1; 0 for points that are not inside.

    Differentiated on the piece to the right of an integer, as `warp.resampler` is.

    Args:
        x: coordinates in pixels; anything finite where not inside.
        inside: booleans, broadcast against `x`.
        size: number of pixels.

    Returns:
        `[n, points, size]`.
    """
    floor = torch.floor(x.detach())
    near, far = floor + 1.0 - x, x - floor
    offset = torch.arange(size, dtype=x.dtype, device=x.device) - floor[..., None]
    weights = torch.where(offset == 0.0, near[..., None], 0.0) + torch.where(
        offset == 1.0, far[..., None], 0.0)
    return torch.where(inside[..., None], weights, 0.0)


def resampler(data: Float[Tensor, "n channels h w"], warp: Float[Tensor, "n *points 2"]
              ) -> Float[Tensor, "n channels *points"]:
    """out[p] = Σ_i hat(y_p - i) Σ_j hat(x_p - j) data[i, j].

    Args:
        data: `[N, C, h, w]`.
        warp: `[N, ..., 2]`, (x, y) in pixels.

    Returns:
        `[N, C, ...]`, as `warp.resampler`. The first product follows the TF32 setting.

    Source: `tf.contrib.resampler.resampler`.
    """
    n, channels, height, width = data.shape
    x, y = warp.reshape(n, -1, 2).unbind(-1)
    inside = (x > -1.0) & (y > -1.0) & (x < width) & (y < height)
    x, y = (torch.where(inside, v, 0.0) for v in (x, y))
    columns = data.permute(0, 3, 1, 2).reshape(n, width, channels * height)
    rows = torch.bmm(hat_weights(x, inside, width), columns).unflatten(2, (channels, height))
    out = torch.sum(rows * hat_weights(y, inside, height)[:, :, None], -1).mT
    return out.reshape(n, channels, *warp.shape[1:-1])
