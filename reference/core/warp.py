"""Inverse affine grid and bilinear resampler: what `snt.AffineGridWarper` and `tf.contrib.resampler` did.

Read beside `port/core/warp.py`: same functions, same order; images are channels last here.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from jaxtyping import Float

Array = Float[tf.Tensor, "..."]


def grid_axis(size: int, template_size: int) -> np.ndarray:
    """Canvas coordinates of one axis in template pixels: linspace(-1, 1, S)·(T - 1)/2 (Q17).

    Args:
        size: S, canvas pixels along the axis.
        template_size: T, template pixels along the source axis.

    Returns:
        float32 `[S]`, rounded to float32 after linspace and again after the product, as the original
        holds them even when everything else is float64.

    Source: `snt.AffineGridWarper._create_features`.
    """
    axis = np.linspace(-1.0, 1.0, size).astype(np.float32)
    return (axis * np.float32((template_size - 1) / 2.0)).astype(np.float32)


def inverse_affine(pose: Float[tf.Tensor, "*batch 6"]) -> Float[tf.Tensor, "*batch 6"]:
    """Inverse of the affine map [a b tx; c d ty]: M⁻¹ = [d -b; -c a] / det, t' = -M⁻¹ t.

    Args:
        pose: `[..., 6]` = [a b tx c d ty].

    Returns:
        `[..., 6]` in the same order; inf or nan where det = 0 (there is no epsilon).

    Source: `snt.AffineGridWarper.inverse`.
    """
    a, b, tx, c, d, ty = tf.unstack(pose, axis=-1)
    det = a * d - b * c
    inv_a, inv_b, inv_c, inv_d = d / det, -b / det, -c / det, a / det
    inv_tx = -(inv_a * tx + inv_b * ty)
    inv_ty = -(inv_c * tx + inv_d * ty)
    return tf.stack([inv_a, inv_b, inv_tx, inv_c, inv_d, inv_ty], -1)


def affine_grid(inverse_pose: Float[tf.Tensor, "n 6"], canvas_shape: tuple[int, int],
                template_shape: tuple[int, int]) -> Float[tf.Tensor, "n height width 2"]:
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
        grid_x = tf.constant(grid_axis(canvas_shape[1], size), inverse_pose.dtype)[None, None, :]
        grid_y = tf.constant(grid_axis(canvas_shape[0], size), inverse_pose.dtype)[None, :, None]
        half = (size - 1) / 2.0
        a, b, t = (inverse_pose[:, 3 * row + i][:, None, None] for i in range(3))
        coordinates.append(a * grid_x + b * grid_y + t * half + half)
    return tf.stack(coordinates, -1)


def resampler(data: Float[tf.Tensor, "n h w channels"], warp: Float[tf.Tensor, "n *points 2"]
              ) -> Float[tf.Tensor, "n *points channels"]:
    """Bilinear samples with zeros around the image; nothing at or beyond one pixel outside.

    A point counts only if -1 < x < w and -1 < y < h; its missing neighbours are 0, so the image
    fades over one pixel. The gradient at integer coordinates is the right-hand one (floor).

    Args:
        data: `[N, h, w, C]`.
        warp: `[N, ..., 2]`, (x, y) in pixels.

    Returns:
        `[N, ..., C]`; 0 where a coordinate is not a number.

    Source: `tf.contrib.resampler.resampler`.
    """
    n, height, width, channels = data.shape
    points = tf.reshape(warp, [n, -1, 2])
    x, y = points[..., 0], points[..., 1]
    inside = (x > -1.0) & (y > -1.0) & (x < width) & (y < height)
    x, y = (tf.where(inside, v, tf.zeros_like(v)) for v in (x, y))
    floor_x, floor_y = tf.floor(x), tf.floor(y)
    near_x, near_y = floor_x + 1.0 - x, floor_y + 1.0 - y
    flat = tf.reshape(data, [n, height * width, channels])

    def neighbour(column: Array, row: Array) -> Array:
        exists = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        index = tf.clip_by_value(row, 0, height - 1) * width + tf.clip_by_value(column, 0, width - 1)
        values = tf.gather(flat, tf.cast(index, tf.int32), batch_dims=1)
        return tf.where(exists[..., None], values, tf.zeros_like(values))

    out = ((near_x * near_y)[..., None] * neighbour(floor_x, floor_y)
           + ((1.0 - near_x) * (1.0 - near_y))[..., None] * neighbour(floor_x + 1, floor_y + 1)
           + (near_x * (1.0 - near_y))[..., None] * neighbour(floor_x, floor_y + 1)
           + ((1.0 - near_x) * near_y)[..., None] * neighbour(floor_x + 1, floor_y))
    return tf.reshape(out, [*warp.shape[:-1], channels])


def warp_templates(templates: Float[tf.Tensor, "batch parts h w channels"],
                   pose: Float[tf.Tensor, "batch parts 6"], canvas_shape: tuple[int, int],
                   inverse: bool = True
                   ) -> Float[tf.Tensor, "batch parts height width channels"]:
    """Draw every template on the canvas under its part's pose.

    The pose maps the template to the canvas, so the canvas samples at the inverse (paper 2.1).

    Args:
        templates: `[B, K, h, w, C]`.
        pose: `[B, K, 6]`, template to canvas.
        canvas_shape: (H, W) in pixels.
        inverse: sample at the pose's inverse; False samples at the pose itself, which then maps the
            canvas to the template (the ML@B port's option).

    Returns:
        `[B, K, H, W, C]`.

    Source: original `primary.py: TemplateBasedImageDecoder._build`.
    """
    batch, n_parts, height, width, channels = templates.shape
    pose = tf.reshape(pose, [batch * n_parts, 6])
    grid = affine_grid(inverse_affine(pose) if inverse else pose, canvas_shape, (height, width))
    drawn = resampler(tf.reshape(templates, [batch * n_parts, height, width, channels]), grid)
    return tf.reshape(drawn, [batch, n_parts, *canvas_shape, channels])
