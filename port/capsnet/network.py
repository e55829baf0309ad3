"""CapsNet, whole: capsules with dynamic routing, margin loss and a reconstruction decoder, in PyTorch.

Read beside `reference/capsnet/network.py`: same names, same order; images are channels first here. Capsules are
`[batch, capsule, atom]` on both sides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.capsnet.layers import (
    CapsuleDecoder,
    Convolution,
    PrimaryCapsules,
    RoutingCapsules,
    flatten_grid,
    mask_capsules,
)
from port.capsnet.losses import margin_loss, reconstruction_loss
from port.capsnet.routing import capsule_lengths
from port.capsnet.settings import Settings
from port.core import inputs

Array = Float[Tensor, "..."]


class Result(NamedTuple):
    """A forward pass: the optimised scalar, its terms, class capsules, lengths, reconstruction."""

    loss: Array
    scalars: dict[str, Array]
    capsules: Array
    lengths: Array
    reconstruction: Array | None


class CapsNet(nn.Module):
    """The whole network: convolution, primary capsules, class capsules, decoder, losses.

    Args:
        settings: the configuration.
        seed: draws the initial weights, bit-equal to the reference's from the same seed.

    Source: CapsNet paper, section 4; official `capsule_model.py: CapsuleModel`.
    """

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        super().__init__()
        self.settings = self.config = settings
        self.check_range = True  # training switches it off: its images come from bytes
        rng = np.random.default_rng(seed)
        self.conv1 = Convolution(settings.channels, settings.conv1_channels, settings.kernel,
                                 settings.conv1_stride, settings.initial, rng)
        self.primary = PrimaryCapsules(settings.conv1_channels, settings, rng)
        self.classes = RoutingCapsules(settings.children, settings.primary_atoms,
                                       settings.classes, settings.class_atoms, settings, rng)
        self.decoder = CapsuleDecoder(
            settings.classes * settings.class_atoms, settings.decoder, settings.pixels,
            settings.initial, rng) if settings.decoder else None

    def encode(self, image: Array) -> Array:
        """Class capsules `[batch, class, atom]` of images `[batch, C, S, S]` in [0, 1]."""
        features = F.relu(self.conv1(image))
        return self.classes(flatten_grid(self.primary(features)))

    def decode(self, capsules: Array, keep: Tensor) -> Array:
        """Images `[batch, C, S, S]` from the one capsule `keep` of each example.

        The decoder's numbers are in the official program's order, channel by channel.
        """
        side, channels = self.settings.canvas, self.settings.channels
        return self.decoder(mask_capsules(capsules, keep)).unflatten(1, (channels, side, side))

    def forward(self, image: Array, label: Tensor | None = None, noise: None = None,
                mask: str = "label") -> Result:
        """One forward pass.

        Args:
            image: `[batch, C, S, S]` in [0, 1].
            label: integers `[batch]`; without them the margin loss is absent.
            noise: there is none; the training loop hands it to every model.
            mask: which capsule is decoded: that of the `label` (training), or the longest by `length`,
                which is also taken without labels.

        Raises:
            ValueError: an image or label that does not fit the settings.
        """
        settings = self.settings
        inputs.check_image(image, settings.channels, settings.canvas, self.conv1.weight.dtype,
                           self.check_range)
        if label is not None:
            label = inputs.check_labels(label, image.shape[0], settings.classes, self.check_range)
        capsules = self.encode(image)
        lengths = capsule_lengths(capsules)
        longest = torch.argmax(lengths, 1)
        loss, scalars, reconstruction = lengths.new_zeros(()), {}, None
        if label is not None:
            labels = F.one_hot(label, settings.classes).to(lengths.dtype)
            scalars["margin_loss"] = margin_loss(lengths, labels, settings.margin)
            scalars["accuracy"] = torch.mean((longest == label).to(lengths.dtype))
            if settings.reconstruction == "joint":
                loss = loss + scalars["margin_loss"]
        if self.decoder is not None:
            frozen = settings.reconstruction == "frozen"
            keep = longest if label is None or mask == "length" else label
            reconstruction = self.decode(capsules.detach() if frozen else capsules, keep)
            scalars["reconstruction_loss"] = reconstruction_loss(
                image, reconstruction, settings.reconstruction_weight)
            loss = loss + scalars["reconstruction_loss"]
        return Result(loss, scalars, capsules, lengths, reconstruction)
