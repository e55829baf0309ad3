"""Oracles of the image preprocessing: shifted padding and the Sobel target."""

import numpy as np

from parity_tests.oracles.scalars import as64


def shift_offset(shift: int, padding: int) -> int:
    """Rows (or columns) of zeros before the image for a drawn shift k.

    Before the image come |min(k, 0)| and the larger half of what is then left of the padding:
    |min(k, 0)| + ceil(max(padding - |k|, 0) / 2), which is ceil((padding - k) / 2) for |k| within
    the padding.
    Source: data/preprocess.py, pad_and_shift.
    """
    before = -shift if shift < 0 else 0
    left_over = padding - abs(shift)
    if left_over < 0:
        left_over = 0
    return before + left_over // 2 + left_over % 2


def pad_and_shift(image, x, y, output_size: int) -> np.ndarray:
    """Places each image on a larger canvas of zeros, moved by its own drawn shift.

    out[b, i + top_b, j + left_b, c] = image[b, i, j, c], what falls outside is cut.
    Args: image [B, H, W, C]; x, y int [B], the draws along width and height.
    Returns [B, S, S, C].
    Source: data/preprocess.py, pad_and_shift.
    """
    image = as64(image)
    n_images, height, width, n_channels = image.shape
    out = np.zeros((n_images, output_size, output_size, n_channels))
    for b in range(n_images):
        top = shift_offset(int(y[b]), output_size - height)
        left = shift_offset(int(x[b]), output_size - width)
        for i in range(height):
            for j in range(width):
                if i + top < output_size and j + left < output_size:
                    for c in range(n_channels):
                        out[b, i + top, j + left, c] = image[b, i, j, c]
    return out


def _reflect(position: int, size: int) -> int:
    """Index of a position up to one pixel outside, mirrored about the border pixel itself."""
    if position < 0:
        return -position
    if position >= size:
        return 2 * (size - 1) - position
    return position


def sobel_edges(image) -> np.ndarray:
    """Vertical and horizontal Sobel responses with REFLECT padding (border not repeated).

    out[..., 0] correlates with [[-1, -2, -1], [0, 0, 0], [1, 2, 1]], out[..., 1] with its
    transpose. Args: image [B, H, W, C]. Returns [B, H, W, C, 2].
    Source: tf.image.sobel_edges.
    """
    image = as64(image)
    kernel = [[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]
    n_images, height, width, n_channels = image.shape
    out = np.zeros((*image.shape, 2))
    for b, i, j, c in np.ndindex(n_images, height, width, n_channels):
        vertical, horizontal = 0.0, 0.0
        for di in range(3):
            for dj in range(3):
                row, column = _reflect(i + di - 1, height), _reflect(j + dj - 1, width)
                value = float(image[b, row, column, c])
                vertical += kernel[di][dj] * value
                horizontal += kernel[dj][di] * value
        out[b, i, j, c, 0] = vertical
        out[b, i, j, c, 1] = horizontal
    return out


def nearest_median(values: list[float]) -> float:
    """The 50th percentile by TFP's 'nearest' rule, an element of the list.

    The values are sorted downwards and the position (d - 1) / 2 is rounded half to even, so for
    an even d it is the lower middle value when d is a multiple of 4, else the upper one.
    Source: tfp percentile of 2019, as data/preprocess.py calls it.
    """
    downwards = sorted(values, reverse=True)
    position = (len(downwards) - 1) / 2
    below = int(position)
    if position == below:
        return downwards[below]
    return downwards[below if below % 2 == 0 else below + 1]


def normalized_sobel_edges(image) -> np.ndarray:
    """The edge image: |e - median e| scaled to [0, 1] per image and channel.

    e = vertical + horizontal response, signed; r = |e - median|; out = (r - min r) /
    (max r - min r + 1e-8), the median and the extremes over the pixels.
    Args: image [B, H, W, C]. Returns [B, H, W, C].
    Source: data/preprocess.py, normalized_sobel_edges (as repaired; the original raises NameError).
    """
    edges = sobel_edges(image)
    n_images, height, width, n_channels = edges.shape[:4]
    out = np.zeros(edges.shape[:4])
    for b in range(n_images):
        for c in range(n_channels):
            summed = {}
            for i in range(height):
                for j in range(width):
                    summed[i, j] = float(edges[b, i, j, c, 0]) + float(edges[b, i, j, c, 1])
            median = nearest_median(list(summed.values()))
            distance = {pixel: abs(value - median) for pixel, value in summed.items()}
            smallest, largest = min(distance.values()), max(distance.values())
            for (i, j), value in distance.items():
                out[b, i, j, c] = (value - smallest) / (largest - smallest + 1e-8)
    return out
