"""Inverse affine grid and bilinear resampler: what `snt.AffineGridWarper` and `tf.contrib.resampler` did.

Read beside `reference/core/warp.py`: same functions, same order; images are channels first here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from port.core import warp_hat

Array = Float[Tensor, "..."]


def grid_axis(size: int, template_size: int,
              device: torch.device | str | None = None) -> Float[Tensor, " size"]:
    """Canvas coordinates of one axis in template pixels: linspace(-1, 1, S)·(T - 1)/2 (Q17).

    Args:
        size: S, canvas pixels along the axis.
        template_size: T, template pixels along the source axis.
        device: where the result lies.

    Returns:
        float32 `[S]`, rounded to float32 after linspace and again after the product, as the original
        holds them even when everything else is float64.

    Source: `snt.AffineGridWarper._create_features`; `np.linspace` step by step, so that it is device
    code which the compiler can see.
    """
    step = 2.0 / (size - 1) if size > 1 else 0.0
    axis = torch.arange(size, dtype=torch.float64, device=device) * step - 1.0
    return axis.float() * ((template_size - 1) / 2.0)


def inverse_affine(pose: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 6"]:
    """Inverse of the affine map [a b tx; c d ty]: M⁻¹ = [d -b; -c a] / det, t' = -M⁻¹ t.

    Args:
        pose: `[..., 6]` = [a b tx c d ty].

    Returns:
        `[..., 6]` in the same order; inf or nan where det = 0 (there is no epsilon).

    Source: `snt.AffineGridWarper.inverse`.
    """
    a, b, tx, c, d, ty = pose.unbind(-1)
    det = a * d - b * c
    inv_a, inv_b, inv_c, inv_d = d / det, -b / det, -c / det, a / det
    inv_tx = -(inv_a * tx + inv_b * ty)
    inv_ty = -(inv_c * tx + inv_d * ty)
    return torch.stack([inv_a, inv_b, inv_tx, inv_c, inv_d, inv_ty], -1)


def affine_grid(inverse_pose: Float[Tensor, "n 6"], canvas_shape: tuple[int, int],
                template_shape: tuple[int, int]) -> Float[Tensor, "n height width 2"]:
    """Template coordinates that each canvas pixel samples: M'·(u, v) + t', in template pixels.

    Both grid terms of x are scaled by (w - 1)/2 and those of y by (h - 1)/2, with linspace(-1, 1)
    through the outermost pixel centres (align_corners).

    Args:
        inverse_pose: `[N, 6]`, canvas to template.
        canvas_shape: (H, W) in pixels.
        template_shape: (h, w) in pixels.

    Returns:
        `[N, H, W, 2]`, (x, y) = (column, row).

    Source: `snt.AffineGridWarper._build`.
    """
    coordinates = []
    for row, size in enumerate((template_shape[1], template_shape[0])):
        grid_x = grid_axis(canvas_shape[1], size, inverse_pose.device).to(inverse_pose.dtype)
        grid_y = grid_axis(canvas_shape[0], size, inverse_pose.device).to(inverse_pose.dtype)
        half = (size - 1) / 2.0
        a, b, t = (inverse_pose[:, 3 * row + i][:, None, None] for i in range(3))
        coordinates.append(a * grid_x + b * grid_y[:, None] + t * half + half)
    return torch.stack(coordinates, -1)


def resampler(data: Float[Tensor, "n channels h w"], warp: Float[Tensor, "n *points 2"]
              ) -> Float[Tensor, "n channels *points"]:
    """Bilinear samples with zeros around the image; nothing at or beyond one pixel outside.

    A point counts only if -1 < x < w and -1 < y < h; its missing neighbours are 0, so the image
    fades over one pixel. The gradient at integer coordinates is the right-hand one (floor).

    Args:
        data: `[N, C, h, w]`.
        warp: `[N, ..., 2]`, (x, y) in pixels.

    Returns:
        `[N, C, ...]`; 0 where a coordinate is not a number.

    Source: `tf.contrib.resampler.resampler`. Not `grid_sample`: it has a gradient at a coordinate of
    exactly -1, and its normalised coordinates lose the last bits near 0, where the fading samples
    are as small as what is lost (a recording in float32 shows it).
    """
    n, channels, height, width = data.shape
    x, y = warp.reshape(n, -1, 2).unbind(-1)
    inside = (x > -1.0) & (y > -1.0) & (x < width) & (y < height)
    x, y = (torch.where(inside, v, 0.0) for v in (x, y))
    floor_x, floor_y = torch.floor(x.detach()), torch.floor(y.detach())
    far_x, far_y = x - floor_x, y - floor_y
    near_x, near_y = floor_x + 1.0 - x, floor_y + 1.0 - y
    # A border of zeros stands for the missing neighbours, so no tap needs a mask of its own.
    padded = F.pad(data, (1, 1, 1, 1)).flatten(2)
    stride = width + 2
    corner = (floor_y.long() + 1) * stride + floor_x.long() + 1

    def neighbour(offset: int) -> Tensor:
        return padded.gather(2, (corner + offset)[:, None].expand(-1, channels, -1))

    out = ((near_x * near_y)[:, None] * neighbour(0)
           + (far_x * far_y)[:, None] * neighbour(stride + 1)
           + (near_x * far_y)[:, None] * neighbour(stride)
           + (far_x * near_y)[:, None] * neighbour(1))
    out = torch.where(inside[:, None], out, 0.0)
    return out.reshape(n, channels, *warp.shape[1:-1])


def warp_templates(templates: Float[Tensor, "batch parts channels h w"],
                   pose: Float[Tensor, "batch parts 6"], canvas_shape: tuple[int, int],
                   inverse: bool = True
                   ) -> Float[Tensor, "batch parts channels height width"]:
    """Draw every template on the canvas under its part's pose.

    The pose maps the template to the canvas, so the canvas samples at the inverse (paper 2.1).

    Args:
        templates: `[B, K, C, h, w]`.
        pose: `[B, K, 6]`, template to canvas.
        canvas_shape: (H, W) in pixels.
        inverse: sample at the pose's inverse; False samples at the pose itself, which then maps the
            canvas to the template (the ML@B port's option).

    Returns:
        `[B, K, C, H, W]`.

    Source: original `primary.py: TemplateBasedImageDecoder._build`.
    """
    batch, n_parts, channels, height, width = templates.shape
    pose = pose.reshape(batch * n_parts, 6)
    grid = affine_grid(inverse_affine(pose) if inverse else pose, canvas_shape, (height, width))
    # On a GPU the gather's backward adds with atomics, whose order changes; the hat weights move several
    # times its bytes, so they are for who asks for the same bits.
    repeatable = grid.is_cuda and torch.are_deterministic_algorithms_enabled()
    sample = warp_hat.resampler if repeatable else resampler
    drawn = sample(templates.reshape(batch * n_parts, channels, height, width), grid)
    return drawn.reshape(batch, n_parts, channels, *canvas_shape)
