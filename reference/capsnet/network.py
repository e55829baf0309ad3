"""CapsNet, whole: capsules with dynamic routing, margin loss and a reconstruction decoder, in TensorFlow.

Read beside `port/capsnet/network.py`: same names, same order; images are channels last here. Capsules are
`[batch, capsule, atom]` on both sides, variables have the official program's names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.capsnet.layers import (
    CapsuleDecoder,
    Convolution,
    PrimaryCapsules,
    RoutingCapsules,
    flatten_grid,
    mask_capsules,
)
from reference.capsnet.losses import margin_loss, reconstruction_loss
from reference.capsnet.routing import capsule_lengths
from reference.capsnet.settings import Settings
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]


class Result(NamedTuple):
    """A forward pass: the optimised scalar, its terms, class capsules, lengths, reconstruction."""

    loss: Array
    scalars: dict[str, Array]
    capsules: Array
    lengths: Array
    reconstruction: Array | None


class CapsNet(NamedModule):
    """The whole network: convolution, primary capsules, class capsules, decoder, losses.

    Args:
        settings: the configuration.
        seed: draws the initial weights, bit-equal to the port's from the same seed.
        dtype: of the variables.

    Source: CapsNet paper, section 4; official `capsule_model.py: CapsuleModel`.
    """

    def __init__(self, settings: Settings, seed: int = 0, dtype: tf.DType = tf.float32) -> None:
        super().__init__("", dtype)
        self.settings = settings
        rng = np.random.default_rng(seed)
        self.conv1 = Convolution("conv1", settings.channels, settings.conv1_channels, settings.kernel,
                                 settings.conv1_stride, settings.initial, rng, dtype)
        self.primary = PrimaryCapsules("conv_capsule1", settings.conv1_channels, settings, rng, dtype)
        self.classes = RoutingCapsules("capsule2", settings.children, settings.primary_atoms,
                                       settings.classes, settings.class_atoms, settings, rng, dtype)
        self.decoder = CapsuleDecoder(
            "recons", settings.classes * settings.class_atoms, settings.decoder,
            settings.pixels, settings.initial, rng, dtype) if settings.decoder else None

    def encode(self, image: Array) -> Array:
        """Class capsules `[batch, class, atom]` of images `[batch, S, S, C]` in [0, 1]."""
        features = tf.nn.relu(self.conv1(image))
        return self.classes(flatten_grid(self.primary(features)))

    def decode(self, capsules: Array, keep: Array) -> Array:
        """Images `[batch, S, S, C]` from the one capsule `keep` of each example.

        The decoder's numbers are in the official program's order, channel by channel.
        """
        side, channels = self.settings.canvas, self.settings.channels
        flat = self.decoder(mask_capsules(capsules, keep))
        return tf.transpose(tf.reshape(flat, [flat.shape[0], channels, side, side]), [0, 2, 3, 1])

    def __call__(self, image: Array, label: tf.Tensor | None = None, noise: None = None,
                 mask: str = "label") -> Result:
        """One forward pass.

        Args:
            image: `[batch, S, S, C]` in [0, 1].
            label: integers `[batch]`; without them the margin loss is absent.
            noise: there is none; the training loop hands it to every model.
            mask: which capsule is decoded: that of the `label` (training), or the longest by `length`,
                which is also taken without labels.
        """
        settings = self.settings
        capsules = self.encode(image)
        lengths = capsule_lengths(capsules)
        longest = tf.argmax(lengths, 1)
        loss, scalars, reconstruction = tf.zeros([], self.dtype), {}, None
        if label is not None:
            labels = tf.one_hot(label, settings.classes, dtype=self.dtype)
            scalars["margin_loss"] = margin_loss(lengths, labels, settings.margin)
            correct = tf.cast(tf.equal(longest, tf.cast(label, longest.dtype)), self.dtype)
            scalars["accuracy"] = tf.reduce_mean(correct)
            if settings.reconstruction == "joint":
                loss += scalars["margin_loss"]
        if self.decoder is not None:
            frozen = settings.reconstruction == "frozen"
            keep = longest if label is None or mask == "length" else label
            reconstruction = self.decode(tf.stop_gradient(capsules) if frozen else capsules, keep)
            scalars["reconstruction_loss"] = reconstruction_loss(
                image, reconstruction, settings.reconstruction_weight)
            loss += scalars["reconstruction_loss"]
        return Result(loss, scalars, capsules, lengths, reconstruction)
