"""What an image autoencoder says about a split: presences, probes and likelihoods, by protocol.

*Faithful* is the original's evaluation: noise on (Q06), images shifted anew, only whole batches (Q27). *Clean* draws no
noise and uses every image. Where images lie is `port.evaluation.looks`'s. What is made of them (clusters, probes,
intervals) is `port.evaluation.clustering`'s, which needs scikit-learn; training looks at its held-out images by this
module alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from port.core import inputs
from port.data import dataset as data
from port.data import validation
from port.evaluation import alive, looks
from port.scae.noise import Noise
from port.training.schedule import Settings


@dataclass(frozen=True)
class Presences:
    """What fits need of a split: labels and the presences of object capsules; one row an example."""

    labels: Int[np.ndarray, " n"]
    posterior: Float[np.ndarray, "n objects"]
    prior: Float[np.ndarray, "n objects"]


@dataclass(frozen=True)
class Collected(Presences):
    """What a model says about a split; one row an example."""

    posterior_correct: np.ndarray | None
    prior_correct: np.ndarray | None
    rec_ll: float
    log_prob: float


def held_out(model: torch.nn.Module, dataset: data.Dataset, settings: Settings) -> dict[str, float]:
    """Likelihoods, probe accuracy and what is alive, on images that are not trained on (`validation.looked_at`)."""
    part = validation.looked_at(dataset, settings)
    with looks.looking(model), alive.watching(model) as watch:
        seen = collect(model, part, model.config.canvas, settings.batch_size, seed=0, noise=False,
                       shift=settings.shift)
    row = {"held_out_rec_ll": seen.rec_ll, "held_out_log_prob": seen.log_prob}
    for name in ("posterior", "prior"):
        correct = getattr(seen, f"{name}_correct")
        if correct is not None:
            row[f"held_out_{name}_probe"] = float(correct.mean())
    return row | watch.row() | {f"effective_objects_{name}": alive.effective_number(getattr(seen, name))
                                for name in ("posterior", "prior")}


@torch.no_grad()
def collect(model: torch.nn.Module, split: data.Split, canvas: int, batch_size: int, seed: int,
            noise: bool, whole_batches: bool = False, shift: str = "original") -> Collected:
    """Run a model over a split in stored order.

    Args:
        model: an image autoencoder, on the device of the split.
        split: images and labels.
        canvas: side of the canvas.
        batch_size: examples at a time.
        seed: of shifts and noise.
        noise: draw the noise on the presence logits, as the original does in evaluation too (Q06).
        whole_batches: leave out the last, incomplete batch, as the original does (Q27).
        shift: how training placed its images, as for `looks.batches`; places are drawn by `seed`, the same ones each
            time. `looks.still` of it draws none.

    Returns:
        Presences, labels, what the trained probes get right, and mean likelihoods per image.

    Raises:
        DataError: too few images, or labels that are no classes of the model.
    """
    data.check_classes(split, inputs.classes_of(model.config))
    device = split.images.device
    noise_generator = torch.Generator(device).manual_seed(seed + 1)
    n = len(split) // batch_size * batch_size if whole_batches else len(split)
    if not n:
        raise data.DataError(f"{len(split)} images make no whole batch of {batch_size}; take a smaller one")
    rows: dict[str, list] = {}
    labelled = split.labelled
    kept = data.Split(split.images[:n], split.labels[:n])
    for image, index in looks.batches(kept, canvas, batch_size, shift, seed):
        label = split.labels[index] if labelled else None
        drawn = Noise.draw(noise_generator, model.config, len(image), device) \
            if noise else None
        result = model(image, label, drawn)
        row = {"posterior": result.mass_explained_by_capsule, "prior": result.caps_presence_prob}
        for name, logits in (("posterior_correct", result.posterior_logits),
                             ("prior_correct", result.prior_logits)):
            if logits is not None and labelled:
                row[name] = logits.argmax(-1) == label
        for name in ("rec_ll", "log_prob"):
            row[name] = result.scalars[name].expand(len(image))
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    arrays = {name: torch.cat(values).cpu().numpy() for name, values in rows.items()}
    return Collected(split.labels[:n].cpu().numpy(), arrays["posterior"], arrays["prior"],
                     arrays.get("posterior_correct"), arrays.get("prior_correct"),
                     float(arrays["rec_ll"].mean(dtype=np.float64)),
                     float(arrays["log_prob"].mean(dtype=np.float64)))


@torch.no_grad()
def presences(model: torch.nn.Module, split: data.Split, canvas: int, batch_size: int, seed: int,
              noises: Sequence[bool] = (False, True), shift: str = "original") -> list[Presences | None]:
    """What fits need of a split under several protocols, in one pass over its images.

    Protocols that place the images by the same draws differ in the noise alone, which the CNN does not see: it
    runs once for all of them. Every value is that of `collect` with the same arguments.

    Args:
        model: an image autoencoder, on the device of the split.
        split: images and labels.
        canvas: side of the canvas.
        batch_size: examples at a time.
        seed: of shifts and noise.
        noises: of each protocol whether it draws noise and takes whole batches only, as the original does.
        shift: as for `collect`.

    Returns:
        For each of `noises` the presences; None where there is no whole batch.

    Raises:
        DataError: no images, or labels that are no classes of the model.
    """
    data.check_classes(split, inputs.classes_of(model.config))
    if not len(split):
        raise data.DataError("no images to evaluate on")
    generators = [torch.Generator(split.images.device).manual_seed(seed + 1) for _ in noises]
    rows: list[list] = [[] for _ in noises]
    for image, _ in looks.batches(split, canvas, batch_size, shift, seed):
        taken = [i for i, noise in enumerate(noises) if not noise or len(image) == batch_size]
        found = model.presences(image, [Noise.draw(generators[i], model.config, len(image), image.device)
                                        if noises[i] else None for i in taken])
        for i, each in zip(taken, found, strict=True):
            rows[i].append(each)
    labels = split.labels.cpu().numpy()
    arrays = [[torch.cat(values).cpu().numpy() for values in zip(*kept, strict=True)] for kept in rows]
    return [Presences(labels[:len(each[0])], *each) if each else None for each in arrays]
