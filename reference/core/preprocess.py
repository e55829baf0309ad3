"""Image preparation of the original's `data/preprocess.py`: random shift and Sobel target.

Read beside `port/core/preprocess.py`: same functions, same order; images are `[B, H, W, C]` here.
"""

from __future__ import annotations

import tensorflow as tf
from jaxtyping import Float, Int

Image = Float[tf.Tensor, "batch height width channels"]


def shift_offset(shift: Int[tf.Tensor, "..."], padding: int) -> Int[tf.Tensor, "..."]:
    """Offset of the image on the canvas for a drawn shift: ceil((padding - shift) / 2) (Q08).

    Args:
        shift: integers in [-padding, padding].
        padding: canvas size minus image size.

    Returns:
        Integers in [0, padding]. Every value but 0 has two shifts, so offsets are not uniform.

    Source: original `data/preprocess.py: pad_and_shift`.
    """
    return (padding - shift + 1) // 2


def pad_and_shift(image: Image, x: Int[tf.Tensor, " batch"], y: Int[tf.Tensor, " batch"],
                  output_size: int) -> Float[tf.Tensor, "batch size size channels"]:
    """Place each image on a larger black canvas, shifted by its own drawn integers.

    Args:
        image: `[B, H, W, C]`, H and W at most `output_size`.
        x: drawn shift of the columns, in [-(S - W), S - W].
        y: drawn shift of the rows.
        output_size: S, the side of the canvas in pixels.

    Returns:
        `[B, S, S, C]`.

    Source: original `data/preprocess.py: pad_and_shift`. The recordings shift both axes alike, so
    which drawn number moves which axis is our reading; both have the same distribution.
    """
    height, width = image.shape[1], image.shape[2]
    left = shift_offset(x, output_size - width)
    top = shift_offset(y, output_size - height)
    placed = []
    for index in range(image.shape[0]):
        t, s = int(top[index]), int(left[index])
        placed.append(tf.pad(image[index], [[t, output_size - height - t],
                                            [s, output_size - width - s], [0, 0]]))
    return tf.stack(placed)


def sobel_edges(image: Image) -> Image:
    """Sum of the vertical and the horizontal Sobel response, signed.

    Kernel [[-1, -2, -1], [0, 0, 0], [1, 2, 1]] and its transpose on the image reflected by one
    pixel (the border pixel is not repeated).

    Args:
        image: `[B, H, W, C]`, H and W at least 2.

    Returns:
        `[B, H, W, C]`.

    Source: `tf.image.sobel_edges`, both responses added in the original's `data/preprocess.py`.
    """
    return tf.reduce_sum(tf.image.sobel_edges(image), axis=-1)


def normalized_sobel_edges(image: Image) -> Image:
    """|edges - median| scaled to [0, 1] per image and channel (Q19).

    (e - min e) / (max e - min e + 1e-8) with e = |sobel - median sobel| over the pixels.

    Args:
        image: `[B, H, W, C]`.

    Returns:
        `[B, H, W, C]`.

    Source: original `data/preprocess.py: normalized_sobel_edges`, which cannot run as written;
    repaired as its public copies do. The median is TensorFlow Probability's percentile 50 with
    `nearest` of that time: of d pixels the lower of the two middle values when d is a multiple of
    4, the upper when d = 2 mod 4 (it sorted downwards and rounded half to even).
    """
    edges = sobel_edges(image)
    batch, height, width, channels = edges.shape
    n_pixels = height * width
    flat = tf.sort(tf.reshape(edges, [batch, n_pixels, channels]), axis=1)
    rank = n_pixels // 2 - 1 if n_pixels % 4 == 0 else n_pixels // 2
    median = tf.reshape(flat[:, rank], [batch, 1, 1, channels])
    edges = tf.abs(edges - median)
    low = tf.reduce_min(edges, axis=(1, 2), keepdims=True)
    high = tf.reduce_max(edges, axis=(1, 2), keepdims=True)
    return (edges - low) / (high - low + 1e-8)
