"""A validation split: training images that a run does not train on, so that choices need not look at the test images.

    taken out: images ⌊(2 i + 1) n / (2 N)⌋ of the n stored training images, i = 0, …, N - 1

They lie evenly in the stored order, so that a set that is sorted by class gives every class its share. Which they
are depends on n and N alone: all seeds, and whoever reads the run later, find the same. With N = 0 a run trains on
all training images, as the original does, and what it reports while it trains is read on the first test images, as
the original's validation accuracy is; nothing may be chosen by that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from port.data import dataset as data
from port.data.streams import Examples

NAME = "validation"


def taken_out(n: int, wanted: int) -> Int64[Tensor, " wanted"]:
    """Places of the validation images among `n`, ascending.

    Raises:
        DataError: as many as there are, or more.
    """
    if wanted >= n:
        raise data.DataError(f"validation_images is {wanted}, but there are {n} training images: none would be left "
                             "to train on")
    return (2 * torch.arange(wanted) + 1) * n // (2 * max(wanted, 1))


def parts(split: data.Split, wanted: int) -> tuple[data.Split, data.Split]:
    """What is trained on, and the validation images; without any the whole split, and nothing.

    Raises:
        DataError: no image would be left.
    """
    if not wanted:
        return split, data.Split(split.images[:0], split.labels[:0])
    out = taken_out(len(split), wanted)
    stays = torch.ones(len(split), dtype=torch.bool)
    stays[out] = False
    kept, out = (index.to(split.images.device) for index in (stays.nonzero()[:, 0], out))
    return data.Split(split.images[kept], split.labels[kept]), data.Split(split.images[out], split.labels[out])


def trained_on(dataset: Examples, settings: Any) -> Examples:
    """The data set without its validation images.

    Raises:
        DataError: no image would be left, or examples that are drawn anew for every step.
    """
    if not settings.validation_images:
        return dataset
    if not isinstance(dataset, data.Dataset):
        raise data.DataError("train.validation_images: constellations are drawn anew for every step, so there are "
                             "none to take out of training; set it to 0")
    return replace(dataset, train=parts(dataset.train, settings.validation_images)[0])


def looked_at(dataset: data.Dataset, settings: Any) -> data.Split:
    """What a run reports on while it trains: all validation images, or the first `held_out_images` of the test split.

    Args:
        dataset: with both splits.
        settings: `port.training.schedule.Settings`.
    """
    if settings.validation_images:
        train = dataset.train  # the many that are trained on are not gathered for each look
        rows = taken_out(len(train), settings.validation_images).to(train.images.device)
        return data.Split(train.images[rows], train.labels[rows])
    n, test = settings.held_out_images, dataset.test
    return data.Split(test.images[:n], test.labels[:n])
