"""How well capsules tell the patterns of a constellation apart: segmentation accuracy by matching.

In each example the capsules are matched one to one with the patterns so that most present points agree
(the original's `eval_segmentation`); the accuracy is the share of present points that do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from port.constellation.batches import Batch, Dataset
from port.evaluation import looks
from port.evaluation.clustering import bipartite_match
from port.scae.noise import Noise
from port.training.schedule import Settings


@dataclass(frozen=True)
class Segmented:
    """What a model makes of constellations; one row an example.

    correct: points whose capsule matches their pattern; present: points that are there; one_capsule:
    points that a single capsule for everything would get right; capsule [n, M]: of each point;
    log_prob: mean over the examples.
    """

    correct: Int[np.ndarray, " n"]
    present: Int[np.ndarray, " n"]
    one_capsule: Int[np.ndarray, " n"]
    capsule: Int[np.ndarray, "n points"]
    log_prob: float

    @property
    def accuracy(self) -> float:
        """Share of the present points."""
        return float(self.correct.sum() / self.present.sum())


class Share(NamedTuple):
    """A share of points with its bootstrap interval over the examples."""

    value: float
    low: float
    high: float
    n: int


def held_out(model: torch.nn.Module, dataset: Dataset, settings: Settings) -> dict[str, float]:
    """Likelihood of the points of test constellations, and the accuracy of their segmentation."""
    with looks.looking(model):
        seen = collect(model, dataset.test, settings.batch_size, settings.held_out_images)
    return {"held_out_log_prob": seen.log_prob, "held_out_segmentation": seen.accuracy}


@torch.no_grad()
def collect(model: torch.nn.Module, test: Batch, batch_size: int, n_examples: int | None = None,
            noise_seed: int | None = None) -> Segmented:
    """Segment constellations.

    Args:
        model: a constellation autoencoder, on the device of the points.
        test: constellations with their ground truth.
        batch_size: examples at a time.
        n_examples: how many of them; None is all.
        noise_seed: of the noise on the presence logits; None draws none.
    """
    n = min(n_examples or len(test.corners), len(test.corners))
    generator = None
    if noise_seed is not None:
        generator = torch.Generator(test.corners.device).manual_seed(noise_seed)
    capsules, total = [], 0.0
    for start in range(0, n, batch_size):
        rows = slice(start, min(start + batch_size, n))
        points, presence = test.corners[rows], test.presence[rows]
        noise = None if generator is None else Noise.draw(generator, model.config, len(points))
        result = model(points, presence, noise, pictures=True)
        capsules.append(result.pictures["is_from_capsule"])
        total += float(result.scalars["log_prob"]) * len(points)
    capsule = torch.cat(capsules).cpu().numpy()
    pattern, there = test.pattern_id[:n].cpu().numpy(), test.presence[:n].cpu().numpy()
    correct = [bipartite_match(c, p, presence=t).num_correct for c, p, t in zip(capsule, pattern, there)]
    largest = [np.bincount(p[t > 0], minlength=1).max() for p, t in zip(pattern, there)]
    return Segmented(np.asarray(correct), there.sum(1).astype(np.int64), np.asarray(largest), capsule,
                     total / n)


def share(part: Int[np.ndarray, " n"], whole: Int[np.ndarray, " n"], seed: int = 0,
          n_draws: int = 2000, level: float = 0.95) -> Share:
    """Σ part / Σ whole with its percentile bootstrap interval; examples are drawn, not points.

    Args:
        part: counts of each example.
        whole: counts of each example.
        seed: of the draws.
        n_draws: bootstrap samples.
        level: share of the draws inside the interval.
    """
    n, rng = len(part), np.random.default_rng(seed)
    draws: Float[np.ndarray, " draws"] = np.empty(n_draws)
    for i in range(n_draws):
        rows = rng.integers(0, n, n)
        draws[i] = part[rows].sum() / whole[rows].sum()
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Share(float(part.sum() / whole.sum()), float(low), float(high), n)
