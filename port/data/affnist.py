"""affNIST: the published test set from its MATLAB files, and one regenerated from MNIST test digits.

The published set (T. Tieleman, 2013) holds 32 transformed copies of each MNIST digit on 40x40
pixels. What is regenerated here follows its ranges, but not its drawn numbers nor, where its
description leaves them open, its choices; it is therefore always named `affnist_like`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

SIDE = 40
SEED = 20131121
MAX_ROTATION, MAX_SHEAR, MAX_TRANSLATION = 20.0, 0.2, 8.0  # degrees, 1, pixels
SCALES = (0.8, 1.2)


def read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one published file.

    A file holds the struct `affNISTdata` with `image` [1600, n] (a column is an image row by row)
    and `label_int` [1, n]. Nobody here has seen a published file: names, sizes and the row-by-row
    order are those on which several public readers agree.

    Args:
        path: of `test.mat` or a numbered batch.

    Returns:
        uint8 `[n, 40, 40]` and integers `[n]`.

    Raises:
        ValueError: no such struct, or sizes and labels that do not fit.
        OSError: the file cannot be read.
    """
    from scipy.io import loadmat

    try:
        held = loadmat(path, squeeze_me=True, struct_as_record=False)
    except NotImplementedError:
        raise ValueError("written in MATLAB's version 7.3; the published files are of version 5") from None
    except FileNotFoundError:
        raise
    except Exception as error:  # SciPy raises many kinds on a damaged file
        raise ValueError(f"no MATLAB file ({' '.join(str(error).split())[:120]})") from None
    try:
        struct = held["affNISTdata"]
        image, label = np.atleast_2d(struct.image), np.atleast_1d(struct.label_int)
    except (KeyError, AttributeError):
        raise ValueError("it holds no struct affNISTdata with the fields image and label_int") from None
    if image.shape == (1, SIDE * SIDE):  # a single image, squeezed
        image = image.T
    if image.ndim != 2 or image.shape[0] != SIDE * SIDE or label.shape != image.shape[1:]:
        raise ValueError(f"image is {list(image.shape)} and label_int {list(label.shape)}; expected "
                         f"[{SIDE * SIDE}, n] and [n]")
    if label.min() < 0 or label.max() > 9 or image.min() < 0 or image.max() > 255:
        raise ValueError("labels must lie in 0..9 and pixels in 0..255")
    return image.T.reshape(-1, SIDE, SIDE).astype(np.uint8), label.astype(np.int64)


def regenerate(digits: UInt8[np.ndarray, "n height width"], seed: int = SEED) \
        -> tuple[UInt8[np.ndarray, "n 40 40"], Float[np.ndarray, "n 6"]]:
    """One transformed copy of each digit, in order.

    p' = D H R (p - c) + c + t for a pixel centre p = (row, column) and the canvas centre c: rotation
    R of up to ±20 degrees, shear H (row += s·column) of up to ±0.2, scales D of 0.8 to 1.2, and a
    translation t of up to ±8 pixels that keeps every foreground pixel's centre on the canvas (or the
    first row and column, where the digit has become too large for that); each drawn uniformly, in
    this order. Bilinear, rounded to uint8.

    Args:
        digits: MNIST images.
        seed: of NumPy's default generator; the default one makes the data pack's images.

    Returns:
        Images, and per image rotation (degrees), shear, vertical and horizontal scale, vertical and
        horizontal translation (pixels).
    """
    rng = np.random.default_rng(seed)
    centre, border = (SIDE - 1) / 2, (SIDE - np.array(digits.shape[1:])) // 2
    images = np.zeros((len(digits), SIDE, SIDE), np.uint8)
    transforms = np.zeros((len(digits), 6))
    for i, digit in enumerate(digits):
        rotation, shear = rng.uniform(-MAX_ROTATION, MAX_ROTATION), rng.uniform(-MAX_SHEAR, MAX_SHEAR)
        scales = rng.uniform(*SCALES), rng.uniform(*SCALES)
        linear = linear_map(rotation, shear, *scales)
        moved = (np.argwhere(digit > 0) + border - centre) @ linear.T + centre
        if not len(moved):
            moved = np.full((1, 2), centre)
        low = np.maximum(-MAX_TRANSLATION, -moved.min(0))
        high = np.maximum(low, np.minimum(MAX_TRANSLATION, SIDE - 1 - moved.max(0)))
        translation = np.array([rng.uniform(low[axis], high[axis]) for axis in (0, 1)])
        images[i] = warp(np.pad(digit, [(b, SIDE - b - n) for b, n in zip(border, digit.shape)]),
                         linear, translation)
        transforms[i] = rotation, shear, *scales, *translation
    return images, transforms


def linear_map(rotation: float, shear: float, vertical: float, horizontal: float) \
        -> Float[np.ndarray, "2 2"]:
    """D H R on (row, column): rotation in degrees first, then shear, then the scales."""
    cos, sin = np.cos(np.deg2rad(rotation)), np.sin(np.deg2rad(rotation))
    return np.diag([vertical, horizontal]) @ [[1.0, shear], [0.0, 1.0]] @ [[cos, -sin], [sin, cos]]


def warp(image: UInt8[np.ndarray, "side side"], linear: Float[np.ndarray, "2 2"],
         translation: Float[np.ndarray, " 2"]) -> UInt8[np.ndarray, "side side"]:
    """The image under p' = linear (p - c) + c + translation, bilinear, black outside, rounded."""
    side = len(image)
    centre = (side - 1) / 2
    grid = np.moveaxis(np.indices((side, side)), 0, -1) - centre - translation
    source = grid @ np.linalg.inv(linear).T + centre
    corner = np.floor(source).astype(int)
    part = source - corner
    padded = np.pad(image.astype(np.float64), 1)
    value = np.zeros((side, side))
    for down in (0, 1):
        for right in (0, 1):
            row, column = (np.clip(corner[..., axis] + step + 1, 0, side + 1)
                           for axis, step in ((0, down), (1, right)))
            weight = (part[..., 0] if down else 1 - part[..., 0]) \
                * (part[..., 1] if right else 1 - part[..., 1])
            value += weight * padded[row, column]
    return np.rint(value).astype(np.uint8)
