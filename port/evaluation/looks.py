"""How a model is looked at outside training: without gradients, each rank by itself, at images put on its canvas.

    shift of the training    where a look finds the images
    original, uniform        at places drawn in the same way from the look's own seed; in the middle without one
    centred, translate       in the middle
    crop                     their middle part

The original moves test images as it moves training images (Q08). To translate or cut an image is augmentation, which
training alone draws.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from port.core.gathering import alone
from port.data import dataset as data

DRAWN = ("original", "uniform")  # shifts whose places are drawn in evaluation too


@contextlib.contextmanager
def looking(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients, and every rank sees its rows alone; afterwards all is as it was.

    Every rank looks at the same images: rows gathered from all of them would be the same ones several times.
    """
    training, gather = model.training, model.gather
    model.eval()
    model.gather = alone
    try:
        with torch.no_grad():
            yield
    finally:
        model.gather = gather
        model.train(training)


def still(shift: str) -> str:
    """How images are put on the canvas where nothing is drawn: a part of them, or all of them."""
    return "crop" if shift == "crop" else "centred"


def arranged(images: UInt8[Tensor, "n channels height width"], canvas: int, shift: str = "original",
             seed: int | None = None) -> Float[Tensor, "n channels canvas canvas"]:
    """Images in [0, 1] where a look finds them; arguments as for `batches`."""
    shift, generator = _places(shift, seed, images.device)
    return data.arrange(images, canvas, shift, generator)


def batches(split: data.Split, canvas: int, batch_size: int, shift: str = "original", seed: int | None = None
            ) -> Iterator[tuple[Float[Tensor, "batch channels canvas canvas"], slice]]:
    """Images in stored order, and where they stand in the split.

    Args:
        split: images and labels.
        canvas: side of the canvas.
        batch_size: images at a time; the last batch may be smaller.
        shift: that of the training, one of `data.SHIFTS`.
        seed: of the places, the same ones each time; without one nothing is drawn.

    Raises:
        DataError: no such shift, or images that do not fit the canvas.
    """
    shift, generator = _places(shift, seed, split.images.device)
    for start in range(0, len(split), batch_size):
        rows = slice(start, min(start + batch_size, len(split)))
        yield data.arrange(split.images[rows], canvas, shift, generator), rows


def _places(shift: str, seed: int | None, device: torch.device) -> tuple[str, torch.Generator | None]:
    """The shift of a look, and the generator of its draws."""
    if shift not in data.SHIFTS:
        raise data.DataError(f"no shift {shift!r}; there are {', '.join(data.SHIFTS)}")
    if seed is None or shift not in DRAWN:
        return still(shift), None
    return shift, torch.Generator(device).manual_seed(seed)
