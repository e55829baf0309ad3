"""What part capsules alone make of images: likelihood, squared error, and features for a probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from port.data import dataset as data
from port.data import validation
from port.evaluation import alive, looks
from port.scae.noise import Noise
from port.training.schedule import Settings


@dataclass(frozen=True)
class SeenParts:
    """What a model says about a split; one row an image.

    Attributes:
        labels: classes, which the model never sees.
        presence: of every part.
        features: poses and presences side by side.
        rec_ll: log-likelihood of the image.
        mse: mean squared error of the mean reconstruction.
    """

    labels: Int[np.ndarray, " n"]
    presence: Float[np.ndarray, "n parts"]
    features: Float[np.ndarray, "n features"]
    rec_ll: Float[np.ndarray, " n"]
    mse: Float[np.ndarray, " n"]


def held_out(model: torch.nn.Module, dataset: data.Dataset, settings: Settings) -> dict[str, float]:
    """Likelihood, squared error and dead convolutions on images that are not trained on, without noise."""
    with looks.looking(model), alive.watching(model) as watch:
        seen = collect(model, validation.looked_at(dataset, settings), settings.batch_size, seed=0, noise=False,
                       shift=settings.shift)
    return {"held_out_rec_ll": float(seen.rec_ll.mean(dtype=np.float64)),
            "held_out_mse": float(seen.mse.mean(dtype=np.float64))} | watch.row()


@torch.no_grad()
def collect(model: torch.nn.Module, split: data.Split, batch_size: int, seed: int, noise: bool,
            shift: str = "original") -> SeenParts:
    """Run a model over a split in stored order.

    Args:
        model: a part capsule autoencoder, on the device of the split.
        split: images and labels.
        batch_size: images at a time.
        seed: of shifts and noise.
        noise: draw the noise on the presence logits.
        shift: how training placed its images, as for `looks.batches`; `looks.still` of it draws no places.

    Returns:
        One row an image.

    Raises:
        DataError: the split is empty.
    """
    if not len(split):
        raise data.DataError("no images to look at")
    device = split.images.device
    noise_generator = torch.Generator(device).manual_seed(seed + 1)
    rows: dict[str, list[torch.Tensor]] = {}
    for image, _ in looks.batches(split, model.config.canvas, batch_size, shift, seed):
        drawn = Noise.draw(noise_generator, model.config, len(image), device) if noise else None
        result = model(image, None, drawn, pictures=True)
        shown = result.pictures
        row = {"presence": result.part_presence,
               "features": torch.cat([shown["pose"].flatten(1), result.part_presence], 1),
               "rec_ll": shown["log_prob"].flatten(1).sum(1),
               "mse": torch.square(shown["target"] - shown["reconstruction"]).flatten(1).mean(1)}
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    arrays = {name: torch.cat(values).cpu().numpy() for name, values in rows.items()}
    return SeenParts(split.labels.cpu().numpy(), **arrays)
