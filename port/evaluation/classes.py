"""How often a capsule classifier is right, and what it takes the rest for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from port.data import dataset as data
from port.data import validation
from port.evaluation import looks
from port.training.schedule import Settings


@dataclass(frozen=True)
class Answers:
    """What a model says about images; one row an image.

    `evidence` `[n, classes]` is a capsule's length or its activation; `loss` the mean of the optimised
    loss; `error` of the reconstructions Σ (x - r)², mean over the images, decoded from the longest
    capsule; None where there is no decoder.
    """

    labels: Int[np.ndarray, " n"]
    evidence: Float[np.ndarray, "n classes"]
    loss: float
    error: float | None

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The class with most evidence."""
        return self.evidence.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """Whether it is the image's."""
        return self.predicted == self.labels


@torch.no_grad()
def collect(model: torch.nn.Module, split: data.Split, batch_size: int, shift: str = "centred",
            seed: int | None = None) -> Answers:
    """What a capsule classifier says about images.

    Args:
        model: of a routing family, on the device of the images.
        split: images and labels.
        batch_size: images at a time.
        shift: how training placed its images, as for `looks.batches`.
        seed: of the places on the canvas; None draws none.

    Raises:
        DataError: the images do not fit the model, there are none, or labels are no classes of it.
    """
    if not len(split):
        raise data.DataError("no images to evaluate on")
    data.check_classes(split, model.config.n_classes)
    evidence, loss, error = [], 0.0, 0.0
    for image, rows in looks.batches(split, model.config.canvas, batch_size, shift, seed):
        found = model(image, split.labels[rows])
        evidence.append(found.evidence)
        loss += float(found.loss) * len(image)
        if found.reconstruction is not None:
            drawn = model.decode(found.capsules, found.evidence.argmax(1))  # of the longest, whatever the label
            error += float((drawn - image).square().sum())
    return Answers(split.labels.cpu().numpy(), torch.cat(evidence).cpu().numpy(), loss / len(split),
                   None if found.reconstruction is None else error / len(split))


def held_out(model: torch.nn.Module, dataset: data.Dataset, settings: Settings) -> dict[str, float]:
    """Accuracy and loss on images that are not trained on (`validation.looked_at`); no places are drawn."""
    with looks.looking(model):
        seen = collect(model, validation.looked_at(dataset, settings), settings.batch_size, settings.shift)
    row = {"held_out_accuracy": float(seen.correct.mean()), "held_out_loss": seen.loss}
    return row if seen.error is None else row | {"held_out_squared_error": seen.error}
