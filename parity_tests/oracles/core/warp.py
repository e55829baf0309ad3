"""Oracles of the template warp: inverse affine map, sampling grid, bilinear resampler."""

import math

import numpy as np

from parity_tests.oracles.scalars import as64


def grid_axis(size: int, template_size: int) -> np.ndarray:
    """The canvas axis in template pixels, as float32 holds it: round32(round32(u) (T - 1) / 2).

    u = linspace(-1, 1, size), computed in double. The original keeps these constants in float32
    even where all else is float64, so the rounding is part of the formula.
    Returns float64 [size] (each value exactly a float32).
    Source: Sonnet AffineGridWarper._create_features; facts sheet, section 4.
    """
    half = np.float32((template_size - 1) / 2.0)
    out = np.zeros(size)
    for i in range(size):
        u = -1.0 if size == 1 else i * (2.0 / (size - 1)) - 1.0
        if i == size - 1 and size > 1:
            u = 1.0
        out[i] = float(np.float32(np.float32(u) * half))
    return out


def inverse_affine(pose) -> np.ndarray:
    """Inverts affine maps: M^-1 = [d, -b; -c, a] / det, t' = -M^-1 t, no epsilon.

    det = 0 gives infinities and NaN, as in the original.
    Args: pose [..., 6] = (a, b, tx, c, d, ty). Returns [..., 6] in the same order.
    Source: Sonnet AffineWarpConstraints / AffineGridWarper.inverse.
    """
    pose = as64(pose)
    out = np.zeros(pose.shape)
    with np.errstate(all="ignore"):
        for index in np.ndindex(pose.shape[:-1]):
            a, b, tx, c, d, ty = pose[index]
            det = a * d - b * c
            ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
            itx = -(ia * tx + ib * ty)
            ity = -(ic * tx + id_ * ty)
            out[index] = ia, ib, itx, ic, id_, ity
    return out


def affine_grid(inverse_pose, canvas_shape, template_shape) -> np.ndarray:
    """Template pixel coordinates (x, y) for every canvas pixel.

    x = ia gx_w(j) + ib gy_w(i) + itx (w - 1)/2 + (w - 1)/2
    y = ic gx_h(j) + id gy_h(i) + ity (h - 1)/2 + (h - 1)/2
    gx_w = grid_axis(W, w), gy_w = grid_axis(H, w): both terms of x are scaled by the template's
    width, both of y by its height.
    Args: inverse_pose [N, 6]; canvas_shape (H, W); template_shape (h, w). Returns [N, H, W, 2].
    Source: Sonnet AffineGridWarper._build.
    """
    inverse_pose = as64(inverse_pose)
    height, width = canvas_shape
    template_height, template_width = template_shape
    half_x, half_y = (template_width - 1) / 2.0, (template_height - 1) / 2.0
    gx_w, gy_w = grid_axis(width, template_width), grid_axis(height, template_width)
    gx_h, gy_h = grid_axis(width, template_height), grid_axis(height, template_height)
    out = np.zeros((inverse_pose.shape[0], height, width, 2))
    with np.errstate(all="ignore"):
        for n in range(inverse_pose.shape[0]):
            ia, ib, itx, ic, id_, ity = inverse_pose[n].tolist()
            for i in range(height):
                for j in range(width):
                    x = ia * float(gx_w[j]) + ib * float(gy_w[i]) + (itx * half_x + half_x)
                    y = ic * float(gx_h[j]) + id_ * float(gy_h[i]) + (ity * half_y + half_y)
                    out[n, i, j, 0] = x
                    out[n, i, j, 1] = y
    return out


def _bilinear(image: list, height: int, width: int, x: float, y: float) -> list[float]:
    """The channels of one sample; missing neighbours count as zero."""
    n_channels = len(image[0][0])
    total = [0.0] * n_channels
    # Outside by a whole pixel, and not-a-number, sample nothing.
    if not (x > -1.0 and y > -1.0 and x < width and y < height):
        return total
    left, top = math.floor(x), math.floor(y)
    for row, weight_y in ((top, 1.0 - (y - top)), (top + 1, y - top)):
        for column, weight_x in ((left, 1.0 - (x - left)), (left + 1, x - left)):
            if 0 <= row < height and 0 <= column < width:
                for c in range(n_channels):
                    total[c] += weight_x * weight_y * image[row][column][c]
    return total


def resampler(data, warp) -> np.ndarray:
    """Bilinear samples with zero padding, faded over one pixel.

    out = sum over the four neighbours of data * (1 - |x - column|) (1 - |y - row|), and zero
    unless x > -1, y > -1, x < w, y < h.
    Args: data [N, h, w, C]; warp [N, ..., 2] = (x, y) in pixels, x along the columns.
    Returns [N, ..., C].
    Source: tf.contrib.resampler.
    """
    data, warp = as64(data), as64(warp)
    n_maps, height, width, n_channels = data.shape
    out = np.zeros((*warp.shape[:-1], n_channels))
    for n in range(n_maps):
        image = data[n].tolist()
        for index in np.ndindex(warp.shape[1:-1]):
            x, y = warp[(n, *index)].tolist()
            out[(n, *index)] = _bilinear(image, height, width, x, y)
    return out


def warp_templates(templates, pose, canvas_shape, inverse: bool = True) -> np.ndarray:
    """Draws each template at its pose on the canvas.

    Args: templates [B, K, h, w, C] (or [1, K, ...], shared by the batch); pose [B, K, 6] maps
    template to canvas, or with inverse False the canvas to the template. Returns [B, K, H, W, C].
    Source: primary.py, TemplateBasedImageDecoder._build.
    """
    templates, pose = as64(templates), as64(pose)
    n_images, n_templates = pose.shape[:2]
    template_shape = templates.shape[2:4]
    out = np.zeros((n_images, n_templates, *canvas_shape, templates.shape[-1]))
    for b in range(n_images):
        for k in range(n_templates):
            sampled = inverse_affine(pose[b, k][None]) if inverse else pose[b, k][None]
            grid = affine_grid(sampled, canvas_shape, template_shape)
            template = templates[b if templates.shape[0] > 1 else 0, k]
            out[b, k] = resampler(template[None], grid)[0]
    return out
