"""Constellations of points: squares and triangles turned, enlarged and moved, drawn with NumPy.

The twin file in the other package is the same text: no framework is involved. `draw` takes the
random numbers in the original's order, so that its recordings are met bit by bit; `assemble` is the
rest. `port.constellation.batches` has the same distribution on the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Corners (x, y) of the original's four patterns: square, triangle, and two of five points.
PATTERNS = (((3, 3), (1, 1), (3, 1), (1, 3)), ((1, 2), (3, 1), (3, 3)),
            ((1, 1), (2, -1), (3, 0), (3, 2), (2, 3)), ((1, 1), (2, 1), (3, 1), (3, 2), (3, 3)))
SLOTS = (0, 1, 0)  # the original's data set: square, triangle, square
SPAN = 24.0  # translations are uniform in [0, 24)


class Draws(NamedTuple):
    """What is random about n examples with S patterns and M points.

    angle (radians), scale and presence [n, S], translation [n, S, 2], order [n, M] (permutations),
    noise [n, M, 2] or None.
    """

    angle: np.ndarray
    scale: np.ndarray
    translation: np.ndarray
    presence: np.ndarray
    order: np.ndarray
    noise: np.ndarray | None


class Constellations(NamedTuple):
    """Points in [-1, 1].

    corners [n, M, 2], presence [n, M] and pattern_presence [n, S] (0 or 1) in float32, pattern_id
    [n, M]: which slot a point belongs to.
    """

    corners: np.ndarray
    presence: np.ndarray
    pattern_presence: np.ndarray
    pattern_id: np.ndarray


def draw(rng: np.random.RandomState, size: int, slots: Sequence[int] = SLOTS, drop_prob: float = 0.5,
         gaussian_noise: float = 0.0, max_translation: float = 1.0, rotation_percent: float = 0.5,
         max_upscale: float = 3.0) -> Draws:
    """Draw what is random, slot by slot: angle, scale, translation, presence; then the orders.

    Args:
        rng: a legacy generator, such as the original's global one.
        size: n, number of examples.
        slots: which of `PATTERNS` stands in each slot.
        drop_prob: probability that a pattern is absent.
        gaussian_noise: standard deviation added to each coordinate, before the scaling to [-1, 1].
        max_translation: in units of 24.
        rotation_percent: share of a full turn that angles span, around 0.
        max_upscale: scales are uniform in [1, 1 + max_upscale).

    Returns:
        `Draws` in float64, without noise when `gaussian_noise` is 0.

    Source: original `data/constellation.py: create_numpy`.
    """
    columns = []
    for _ in slots:
        columns.append(((rng.random_sample(size) - 0.5) * 2.0 * np.pi * rotation_percent,
                        1.0 + rng.random_sample(size) * max_upscale,
                        SPAN * max_translation * rng.random_sample((size, 2)),
                        rng.random_sample(size) > drop_prob))
    angle, scale, translation, presence = (np.stack(column, 1) for column in zip(*columns))
    n_points = len(slot_of_point(slots))
    order = np.stack([rng.permutation(n_points) for _ in range(size)])
    noise = rng.normal(0.0, gaussian_noise, (size, n_points, 2)) if gaussian_noise > 0 else None
    return Draws(angle, scale, translation, presence, order, noise)


def slot_of_point(slots: Sequence[int] = SLOTS) -> np.ndarray:
    """Slot of each point before the points are shuffled.

    Args:
        slots: see `draw`.

    Returns:
        int64 `[M]`.
    """
    return np.repeat(np.arange(len(slots)), [len(PATTERNS[pattern]) for pattern in slots])


def assemble(draws: Draws, slots: Sequence[int] = SLOTS) -> Constellations:
    """Points from draws: s·R(angle)·corner + t/s, shuffled, noise added, scaled to [-1, 1] together.

    The translation is divided by the scale (Q30). Smallest and largest coordinate are taken over all
    examples at once, absent points included (Q29): 2·(c - min) / (max - min + 1e-8) - 1.

    Args:
        draws: of one block; the original's has 100 batches.
        slots: see `draw`.

    Returns:
        `Constellations`.

    Source: original `data/constellation.py: create_numpy`.
    """
    slot = slot_of_point(slots)
    x, y = np.concatenate([PATTERNS[pattern] for pattern in slots]).T.astype(np.float64)
    scale, (cos, sin) = draws.scale[:, slot], (f(draws.angle)[:, slot] for f in (np.cos, np.sin))
    shift = draws.translation[:, slot] / scale[..., None]
    corners = np.stack([scale * (x * cos - y * sin) + shift[..., 0],
                        scale * (x * sin + y * cos) + shift[..., 1]], -1).astype(np.float32)
    corners = np.take_along_axis(corners, draws.order[..., None], 1)
    if draws.noise is not None:
        corners = (corners + draws.noise).astype(np.float32)
    low, high = corners.min(), corners.max()
    corners = (2.0 * (corners - low) / (high - low + 1e-8) - 1.0).astype(np.float32)
    pattern_id = slot[draws.order]
    presence = draws.presence.astype(np.float32)
    return Constellations(corners, np.take_along_axis(presence, pattern_id, 1), presence, pattern_id)


def create(rng: np.random.RandomState, size: int, slots: Sequence[int] = SLOTS, **settings: float
           ) -> Constellations:
    """Draw and assemble one block.

    Args:
        rng: see `draw`.
        size: number of examples.
        slots: see `draw`.
        settings: further arguments of `draw`.

    Returns:
        `Constellations`.

    Source: original `data/constellation.py: create_numpy`.
    """
    return assemble(draw(rng, size, slots, **settings), slots)
