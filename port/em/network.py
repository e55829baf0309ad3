"""Whole networks of matrix capsules: convolution, primary, convolutional and class capsules.

Read beside `reference/em/network.py`: same names, same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from port.core import inputs, losses
from port.core.constants import computed, of_plain_values
from port.em import layers as em_layers
from port.em import losses as em_losses
from port.em.routing import Routed
from port.em.settings import Network

Array = Float[Tensor, "..."]


@of_plain_values
def _carried_centres(_: str, height: float, width: float, *layers: float) -> np.ndarray:
    """`carried_centres` of H, W and each layer's kernel and stride."""
    sizes = [int(number) for number in layers]
    return em_layers.carried_centres(int(height), int(width), list(zip(sizes[::2], sizes[1::2])))


class Capsules(NamedTuple):
    """Classes: activation and logit [B, classes], pose [B, classes, 16]; layers: every routing's result."""

    activation: Array
    logit: Array
    pose: Array
    layers: tuple[Routed, ...]


class MatrixCapsules(nn.Module):
    """A matrix-capsule network.

    Args:
        settings: what it is made of.
        rng: draws the weights.

    Source: paper section 4; official `em_model.py`; IBM `em_caps.py`.
    """

    def __init__(self, settings: Network, rng: np.random.Generator) -> None:
        super().__init__()
        self.settings = s = settings
        self.check_range = True  # training switches it off: its images come from bytes
        self.conv = em_layers.Convolution(s.image_channels, s.channels, s.conv_kernel, s.conv_stride,
                                          s.conv_padding, rng)
        self.primary = em_layers.PrimaryCapsules(s.channels, s.types[0], s.primary, s.primary_stddev, rng)
        self.capsules = nn.ModuleList(em_layers.ConvCapsules(
            s.types[i], s.types[i + 1], s.kernels[i], s.strides[i], s.padding, s.routing, s.vote_stddev,
            s.vote_identity, (s.beta_u[0], s.beta_a[0]), rng) for i in range(len(s.kernels)))
        self.class_capsules = em_layers.ClassCapsules(
            s.types[-1], s.classes, s.class_routing, s.coordinates, s.class_stddev, s.vote_identity,
            (s.beta_u[1], s.beta_a[1]), rng)

    def forward(self, image: Array) -> Capsules:
        """Class capsules of images `[B, C, H, W]` in [0, 1].

        Raises:
            ValueError: an image that does not fit the settings, or weights in float16.
        """
        s = self.settings
        if self.conv.weight.dtype == torch.float16:
            raise ValueError("matrix capsules do not fit into float16: a vote's cost passes its largest "
                             "number, 65,504; use bfloat16 or float32")
        inputs.check_image(image, s.image_channels, None, self.conv.weight.dtype, self.check_range)
        features = self.conv(em_layers.batch_normalize(image) if s.normalize else image)
        pose, activation = self.primary(features)
        layers = []
        for capsules in self.capsules:
            layers.append(capsules(pose, activation))
            pose, activation = layers[-1].pose, layers[-1].activation
        centres = None
        if s.coordinates == "row":
            steps = [s.conv_kernel, s.conv_stride]
            for kernel, stride in zip(s.kernels, s.strides):
                steps += [kernel, stride]
            centres = computed(_carried_centres, (*image.shape[2:], *steps), dtype=pose.dtype, device=pose.device)
        layers.append(self.class_capsules(pose, activation, centres))
        classes = layers[-1]
        return Capsules(classes.activation[:, 0, 0], classes.logit[:, 0, 0], classes.pose[:, 0, 0],
                        tuple(layers))

    def loss(self, activation: Array, label: Int[Tensor, " batch"], step: int) -> tuple[Array, Array]:
        """Total loss and its spread loss; the rest is `decay` · Σ w²/2 over all kernels.

        Args:
            activation: of the classes `[B, classes]`.
            label: `[B]`.
            step: updates done, from 0, for the margin.
        """
        label = inputs.check_labels(label, activation.shape[0], self.settings.classes, self.check_range)
        spread = em_losses.spread_loss(activation, label, em_losses.spread_margin(step),
                                       self.settings.reduction)
        if not self.settings.decay:
            return spread, spread
        return spread + self.settings.decay * losses.weight_decay_loss(self.kernels()), spread

    def kernels(self) -> list[nn.Parameter]:
        """What decays: every weight, no bias, no beta."""
        return [value for name, value in self.named_parameters() if name.endswith("weight")]
