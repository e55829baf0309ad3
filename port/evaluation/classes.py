"""How often a capsule classifier is right, and what it takes the rest for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from port.data import dataset as data
from port.data import validation
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
            seed: int | None = None, max_shift: int = 2) -> Answers:
    """What a capsule classifier says about images.

    Args:
        model: of a routing family, on the device of the images.
        split: images and labels.
        batch_size: images at a time.
        shift: one of `data.SHIFTS`.
        seed: of the places on the canvas; None leaves images in the middle.
        max_shift: of the shift `translate`.

    Raises:
        DataError: the images do not fit the model, there are none, or labels are no classes of it.
    """
    if not len(split):
        raise data.DataError("no images to evaluate on")
    data.check_classes(split, model.config.n_classes)
    generator = None if seed is None else torch.Generator(split.images.device).manual_seed(seed)
    evidence, loss, error = [], 0.0, 0.0
    for start in range(0, len(split), batch_size):
        rows = slice(start, start + batch_size)
        image = data.arrange(split.images[rows], model.config.canvas, shift, generator, max_shift)
        found = model(image, split.labels[rows])
        evidence.append(found.evidence)
        loss += float(found.loss) * len(image)
        if found.reconstruction is not None:
            drawn = model(image).reconstruction  # without the label the longest capsule is decoded
            error += float((drawn - image).square().sum())
    return Answers(split.labels.cpu().numpy(), torch.cat(evidence).cpu().numpy(), loss / len(split),
                   None if found.reconstruction is None else error / len(split))


def held_out(model: torch.nn.Module, dataset: data.Dataset, settings: Settings) -> dict[str, float]:
    """Accuracy and loss on images that are not trained on (`validation.looked_at`), in the middle of the canvas."""
    seen = collect(model, validation.looked_at(dataset, settings), settings.batch_size, still(settings.shift))
    row = {"held_out_accuracy": float(seen.correct.mean()), "held_out_loss": seen.loss}
    return row if seen.error is None else row | {"held_out_squared_error": seen.error}


def still(shift: str) -> str:
    """How images are put on the canvas where nothing is drawn: a part of them, or all of them."""
    return "crop" if shift == "crop" else "centred"
