"""Random changes of training images in the routing ancestors: translation, parts, brightness, contrast.

Batched device code on images `[B, C, H, W]`; every draw is a generator's.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Num
from torch import Tensor

from port.core import preprocess

Image = Num[Tensor, "batch channels height width"]


def translate(image: Num[Tensor, "batch channels side side"], most: int, generator: torch.Generator
              ) -> Num[Tensor, "batch channels side side"]:
    """Images moved by up to `most` pixels on their own canvas; what leaves it is lost, zeros come in.

    Row and column shift are integers drawn uniformly from {-most, …, most}.

    Args:
        image: square, any dtype.
        most: the largest shift.
        generator: on the image's device.

    Source: CapsNet paper, section 5; official `mnist_input_record.py` (shift 2, pad 0).
    """
    side = image.shape[-1]
    x, y = (2 * torch.randint(-most, most + 1, (len(image),), generator=generator, device=image.device)
            for _ in range(2))
    moved = preprocess.pad_and_shift(image, x, y, side + 2 * most)
    return moved[..., most:most + side, most:most + side]


def crop(image: Image, side: int, generator: torch.Generator | None) -> Num[Tensor, "batch channels s s"]:
    """A square part of each image: anywhere with the same probability, or the middle.

    Args:
        image: of any dtype, not smaller than the part.
        side: of the part.
        generator: on the image's device; None takes the middle.

    Source: EM paper, section 5 (random 32 × 32 of 48 × 48, the middle at test time).
    """
    batch, channels, height, width = image.shape
    if generator is None:
        top, left = (height - side) // 2, (width - side) // 2
        return image[..., top:top + side, left:left + side]
    rows, columns = (torch.randint(0, size - side + 1, (batch, 1), generator=generator,
                                   device=image.device) + torch.arange(side, device=image.device)
                     for size in (height, width))
    example = torch.arange(batch, device=image.device)[:, None, None, None]
    channel = torch.arange(channels, device=image.device)[None, :, None, None]
    return image[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


def jitter(image: Float[Tensor, "batch channels height width"], generator: torch.Generator,
           brightness: float = 32 / 255, contrast: tuple[float, float] = (0.5, 1.5)
           ) -> Float[Tensor, "batch channels height width"]:
    """Brightness x + δ with δ in ±brightness, then contrast (x - mean)·c + mean; one draw an example.

    Args:
        image: in [0, 1]; the result may leave it.
        generator: on the image's device.
        brightness: largest |δ|.
        contrast: range of c; the mean is that of each channel.

    Source: EM paper, section 5; official `norb_input_record.py` has these ranges.
    """
    def draw(low: float, high: float) -> Tensor:
        drawn = torch.rand(len(image), 1, 1, 1, generator=generator, device=image.device,
                           dtype=image.dtype)
        return low + (high - low) * drawn

    image = image + draw(-brightness, brightness)
    mean = image.mean((2, 3), keepdim=True)
    return (image - mean) * draw(*contrast) + mean
