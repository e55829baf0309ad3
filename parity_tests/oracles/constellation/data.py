"""Oracle of the constellation generator: one number of the generator at a time, in its order."""

import math

import numpy as np

CORNERS = {
    0: [(3, 3), (1, 1), (3, 1), (1, 3)],
    1: [(1, 2), (3, 1), (3, 3)],
    2: [(1, 1), (2, -1), (3, 0), (3, 2), (2, 3)],
    3: [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3)],
}


def create(
    seed: int, size: int, slots, drop_prob, gaussian_noise, max_translation, rotation_percent,
    max_upscale,
) -> dict[str, np.ndarray]:
    """A block of constellations.

    Slot by slot all angles (u - 1/2) 2 pi rotation, all scales 1 + u up, all translations 24 t u,
    all presences u > drop; a corner (x, y) becomes (s (x cos - y sin) + tx / s, s (x sin + y cos) +
    ty / s), in float32; each example is then permuted, noise is added, and everything is scaled by
    the block's extremes: 2 (c - min) / (max - min + 1e-8) - 1 in float32.
    Source: data/constellation.py, create_numpy; decoded from its recordings.
    """
    generator = np.random.RandomState(seed)
    points = [[] for _ in range(size)]
    pattern_presence = np.zeros((size, len(slots)), np.float32)
    for slot, pattern in enumerate(slots):
        angles = [generator.random_sample() for _ in range(size)]
        scales = [generator.random_sample() for _ in range(size)]
        shifts = [[generator.random_sample() for _ in range(2)] for _ in range(size)]
        chances = [generator.random_sample() for _ in range(size)]
        for b in range(size):
            angle = (angles[b] - 0.5) * 2.0 * math.pi * rotation_percent
            scale = 1.0 + scales[b] * max_upscale
            there = 1.0 if chances[b] > drop_prob else 0.0
            pattern_presence[b, slot] = there
            for x, y in CORNERS[pattern]:
                row = [
                    scale * (x * math.cos(angle) - y * math.sin(angle)),
                    scale * (x * math.sin(angle) + y * math.cos(angle)),
                ]
                for d in range(2):
                    row[d] += 24.0 * max_translation * shifts[b][d] / scale
                points[b].append((np.float32(row[0]), np.float32(row[1]), there, slot))
    shuffled = [[points[b][i] for i in generator.permutation(len(points[b]))] for b in range(size)]
    corners = np.array([[point[:2] for point in row] for row in shuffled], np.float32)
    if gaussian_noise > 0:
        for index in np.ndindex(corners.shape):
            corners[index] = float(corners[index]) + generator.normal(0.0, gaussian_noise)
    low, high = corners.min(), corners.max()
    scaled = np.zeros(corners.shape, np.float32)
    for index in np.ndindex(corners.shape):
        scaled[index] = 2.0 * (corners[index] - low) / (high - low + np.float32(1e-8)) - 1.0
    return {
        "corners": scaled,
        "presence": np.array([[point[2] for point in row] for row in shuffled], np.float32),
        "pattern_presence": pattern_presence,
        "pattern_id": np.array([[point[3] for point in row] for row in shuffled]),
    }
