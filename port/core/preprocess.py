"""Image preparation of the original's `data/preprocess.py`: random shift and Sobel target.

Read beside `reference/core/preprocess.py`: same functions, same order; images are `[B, C, H, W]` here
and a whole batch is moved at once, on whatever device it lies.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Int, Num
from torch import Tensor

Image = Num[Tensor, "batch channels height width"]


def shift_offset(shift: Int[Tensor, "..."], padding: int) -> Int[Tensor, "..."]:
    """Offset of the image on the canvas for a drawn shift: ceil((padding - shift) / 2) (Q08).

    Args:
        shift: integers in [-padding, padding].
        padding: canvas size minus image size.

    Returns:
        Integers in [0, padding]. Every value but 0 has two shifts, so offsets are not uniform.

    Source: original `data/preprocess.py: pad_and_shift`.
    """
    return torch.div(padding - shift + 1, 2, rounding_mode="floor")


def pad_and_shift(image: Image, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"],
                  output_size: int) -> Num[Tensor, "batch channels size size"]:
    """Place each image on a larger black canvas, shifted by its own drawn integers.

    Args:
        image: `[B, C, H, W]`, any dtype, H and W at most `output_size`.
        x: drawn shift of the columns, in [-(S - W), S - W].
        y: drawn shift of the rows.
        output_size: S, the side of the canvas in pixels.

    Returns:
        `[B, C, S, S]` of the same dtype.

    Source: original `data/preprocess.py: pad_and_shift`. The recordings shift both axes alike, so
    which drawn number moves which axis is our reading; both have the same distribution.
    """
    batch, channels, height, width = image.shape
    left = shift_offset(x, output_size - width)
    top = shift_offset(y, output_size - height)
    rows = torch.arange(output_size, device=image.device)[None] - top[:, None]
    columns = torch.arange(output_size, device=image.device)[None] - left[:, None]
    inside = (((rows >= 0) & (rows < height))[:, None, :, None]
              & ((columns >= 0) & (columns < width))[:, None, None, :])
    rows = rows.clamp(0, height - 1)[:, None, :, None].expand(-1, channels, -1, width)
    columns = columns.clamp(0, width - 1)[:, None, None, :].expand(-1, channels, output_size, -1)
    moved = image.gather(2, rows).gather(3, columns)
    return torch.where(inside, moved, torch.zeros((), dtype=image.dtype, device=image.device))


def sobel_edges(image: Image) -> Image:
    """Sum of the vertical and the horizontal Sobel response, signed.

    Kernel [[-1, -2, -1], [0, 0, 0], [1, 2, 1]] and its transpose on the image reflected by one
    pixel (the border pixel is not repeated).

    Args:
        image: `[B, C, H, W]`, H and W at least 2.

    Returns:
        `[B, C, H, W]`.

    Source: `tf.image.sobel_edges`, both responses added in the original's `data/preprocess.py`.
    """
    # Made on the device: copying nine numbers there would stop the host in every step.
    offset = torch.arange(-1, 2, dtype=image.dtype, device=image.device)
    vertical = offset[:, None] * (2.0 - offset.abs())
    kernel = (vertical + vertical.T)[None, None]
    batch, channels, height, width = image.shape
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    planes = padded.reshape(batch * channels, 1, height + 2, width + 2)
    return F.conv2d(planes, kernel).reshape(image.shape)


def normalized_sobel_edges(image: Image) -> Image:
    """|edges - median| scaled to [0, 1] per image and channel (Q19).

    (e - min e) / (max e - min e + 1e-8) with e = |sobel - median sobel| over the pixels.

    Args:
        image: `[B, C, H, W]`.

    Returns:
        `[B, C, H, W]`.

    Source: original `data/preprocess.py: normalized_sobel_edges`, which cannot run as written;
    repaired as its public copies do. The median is TensorFlow Probability's percentile 50 with
    `nearest` of that time: of d pixels the lower of the two middle values when d is a multiple of
    4, the upper when d = 2 mod 4 (it sorted downwards and rounded half to even).
    """
    edges = sobel_edges(image)
    n_pixels = edges.shape[2] * edges.shape[3]
    rank = n_pixels // 2 - 1 if n_pixels % 4 == 0 else n_pixels // 2
    median = torch.sort(edges.flatten(2), dim=2).values[:, :, rank, None, None]
    edges = torch.abs(edges - median)
    low = edges.amin(dim=(2, 3), keepdim=True)
    high = edges.amax(dim=(2, 3), keepdim=True)
    return (edges - low) / (high - low + 1e-8)
