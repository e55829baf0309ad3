"""Whole networks of matrix capsules: convolution, primary, convolutional and class capsules.

Read beside `port/em/network.py`: same names, same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int

from reference.core import losses
from reference.core.module import NamedModule
from reference.em import layers as em_layers
from reference.em import losses as em_losses
from reference.em.routing import Routed
from reference.em.settings import Network

Array = Float[tf.Tensor, "..."]


class Capsules(NamedTuple):
    """Classes: activation and logit [B, classes], pose [B, classes, 16]; layers: every routing's result."""

    activation: Array
    logit: Array
    pose: Array
    layers: tuple[Routed, ...]


class MatrixCapsules(NamedModule):
    """A matrix-capsule network.

    Args:
        scope: "" for the programs' own variable names.
        settings: what it is made of.
        rng: draws the weights.
        dtype: of the variables.

    Source: paper section 4; official `em_model.py`; IBM `em_caps.py`.
    """

    def __init__(self, scope: str, settings: Network, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.settings = s = settings
        official = s.routing.betas == "official"
        self.conv = em_layers.Convolution(
            "conv1" if official else "relu_conv1", s.image_channels, s.channels, s.conv_kernel,
            s.conv_stride, s.conv_padding, rng, dtype)
        self.primary = em_layers.PrimaryCapsules(
            "conv_capsule1" if official else "primary_caps", s.channels, s.types[0], s.primary,
            s.primary_stddev, rng, dtype)
        names = [f"convCaps{i}" if official else f"lyr.conv_caps{i + 1}" for i in range(len(s.kernels))]
        self.capsules = [em_layers.ConvCapsules(
            names[i], s.types[i], s.types[i + 1], s.kernels[i], s.strides[i], s.padding, s.routing,
            s.vote_stddev, s.vote_identity, (s.beta_u[0], s.beta_a[0]), rng, dtype)
            for i in range(len(s.kernels))]
        self.class_capsules = em_layers.ClassCapsules(
            "capsule2" if official else "class_caps", s.types[-1], s.classes,
            s.class_routing, s.coordinates, s.class_stddev, s.vote_identity,
            (s.beta_u[1], s.beta_a[1]), rng, dtype)

    def __call__(self, image: Array) -> Capsules:
        """Class capsules of images `[B, H, W, C]`."""
        s = self.settings
        features = self.conv(em_layers.batch_normalize(image) if s.normalize else image)
        pose, activation = self.primary(features)
        layers = []
        for capsules in self.capsules:
            layers.append(capsules(pose, activation))
            pose, activation = layers[-1].pose, layers[-1].activation
        centres = None
        if s.coordinates == "row":
            steps = [(s.conv_kernel, s.conv_stride), *zip(s.kernels, s.strides)]
            centres = em_layers.carried_centres(image.shape[1], image.shape[2], steps)
        layers.append(self.class_capsules(pose, activation, centres))
        classes = layers[-1]
        return Capsules(classes.activation[:, 0, 0], classes.logit[:, 0, 0], classes.pose[:, 0, 0],
                        tuple(layers))

    def loss(self, activation: Array, label: Int[tf.Tensor, " batch"], step: int) -> tuple[Array, Array]:
        """Total loss and its spread loss; the rest is `decay` · Σ w²/2 over all kernels.

        Args:
            activation: of the classes `[B, classes]`.
            label: `[B]`.
            step: updates done, from 0, for the margin.
        """
        spread = em_losses.spread_loss(activation, label, em_losses.spread_margin(step),
                                       self.settings.reduction)
        if not self.settings.decay:
            return spread, spread
        return spread + self.settings.decay * losses.weight_decay_loss(self.kernels()), spread

    def kernels(self) -> list[tf.Variable]:
        """What decays: every weight, no bias, no beta."""
        kept = ("weights", "/w")
        return [value for name, value in self.variables_by_name.items() if name.endswith(kept)]
