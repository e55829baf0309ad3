"""CapsNet and matrix capsules as the training loop and the commands take a model.

The networks stay as they are proven (`port.capsnet.network`, `port.em.network`); here they get a configuration
of their family, a loss that comes with the forward pass, and taps. Neither draws noise, and neither has
statistics over the whole batch but IBM's normalised input, which is each rank's own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from port.capsnet.network import CapsNet, flatten_grid
from port.configuration.routing import CapsNetConfig, EMConfig
from port.core import losses
from port.core.taps import SILENT, Taps
from port.em import layers as em_layers
from port.em import losses as em_losses
from port.em.network import MatrixCapsules

Array = Float[Tensor, "..."]


class Classified(NamedTuple):
    """A forward pass: the optimised scalar, its terms, evidence for each class, its capsules.

    `evidence` is a capsule's length or its activation; the class is where it is largest. `capsules` is
    `[B, classes, atoms]`. Only CapsNet has a `reconstruction` `[B, C, S, S]`.
    """

    loss: Array
    scalars: dict[str, Array]
    evidence: Array
    capsules: Array
    reconstruction: Array | None
    taps: Taps | None


class CapsNetClassifier(CapsNet):
    """CapsNet with a configuration; `port.build` makes it.

    Args:
        config: of the family.
        seed: draws the initial weights.

    Source: CapsNet paper, section 4.
    """

    def __init__(self, config: CapsNetConfig, seed: int = 0) -> None:
        super().__init__(config.settings, seed)
        self.config = config
        self.gather = lambda rows: rows

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the images must have too."""
        return self.conv1.weight.dtype

    def forward(self, image: Array, label: Tensor | None = None, noise: None = None, taps: bool = False,
                mask: str = "label") -> Classified:
        """One forward pass; `taps` keeps the intermediates, the rest is `CapsNet`'s.

        Args:
            image: `[B, C, S, S]` in [0, 1].
            label: integers `[B]`; without them the margin loss is absent.
            noise: there is none.
            taps: record the intermediates.
            mask: which capsule is decoded, `label` or `length`.
        """
        check_images(image, self.config, self.dtype)
        found = super().forward(image, label, None, mask)
        log = None
        if taps:
            log = Taps()
            features = F.relu(self.conv1(image))
            log.record("features", features, (0, 2, 3, 1))
            log.record("primary", flatten_grid(self.primary(features)))
            log.record("capsules", found.capsules)
            log.record("lengths", found.lengths)
            if found.reconstruction is not None:
                log.record("reconstruction", found.reconstruction, (0, 2, 3, 1))
        return Classified(found.loss, found.scalars, found.lengths, found.capsules, found.reconstruction,
                          log)


class MatrixCapsuleClassifier(MatrixCapsules):
    """Matrix capsules with a configuration and the spread loss; `port.build` makes it.

    The margin grows with the updates done: `at_step` sets it, in memory that a captured step keeps
    reading.

    Args:
        config: of the family.
        seed: draws the initial weights.

    Source: EM paper, sections 4 and 5.
    """

    def __init__(self, config: EMConfig, seed: int = 0) -> None:
        super().__init__(config.network, np.random.default_rng(seed))
        self.config = config
        self.gather = lambda rows: rows
        # No buffer: a function of the step is no state of the model.
        self._margin = torch.zeros((), dtype=torch.float64)
        self.at_step(0)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the images must have too."""
        return self.conv.weight.dtype

    def at_step(self, step: int) -> None:
        """Set the margin for the update after `step` updates."""
        if self._margin.device != self.conv.weight.device:
            self._margin = self._margin.to(self.conv.weight.device)
        self._margin.fill_(em_losses.spread_margin(step, self.config.margin, self.config.margin_ramp))

    def forward(self, image: Array, label: Tensor | None = None, noise: None = None, taps: bool = False
                ) -> Classified:
        """One forward pass.

        Args:
            image: `[B, C, S, S]` in [0, 1].
            label: integers `[B]`; without them the loss is the weight decay alone.
            noise: there is none.
            taps: record the intermediates.
        """
        check_images(image, self.config, self.dtype)
        log = Taps() if taps else SILENT
        if taps:
            features = self.conv(em_layers.batch_normalize(image) if self.settings.normalize else image)
            pose, activation = self.primary(features)
            log.record("features", features, (0, 2, 3, 1))
            log.record("primary/pose", pose)
            log.record("primary/activation", activation)
        found = super().forward(image)
        for i, layer in enumerate(found.layers):
            name = "classes" if i == len(found.layers) - 1 else f"capsules{i}"
            log.record(f"{name}/pose", layer.pose)
            log.record(f"{name}/logit", layer.logit)
            log.record(f"{name}/activation", layer.activation)
        loss, scalars = found.activation.new_zeros(()), {}
        if label is not None:
            margin = self._margin.to(found.activation)
            spread = em_losses.spread_loss(found.activation, label, margin, self.settings.reduction)
            right = (found.activation.argmax(1) == label).to(found.activation.dtype)
            scalars = {"spread_loss": spread, "accuracy": right.mean()}
            loss = loss + spread
        if self.settings.decay:
            loss = loss + self.settings.decay * losses.weight_decay_loss(self.kernels())
        return Classified(loss, scalars, found.activation, found.pose, None, log if taps else None)


def check_images(image: Tensor, config: CapsNetConfig | EMConfig, dtype: torch.dtype) -> None:
    """Refuse images of another shape or dtype.

    Args:
        image: `[B, C, S, S]`.
        config: says C and S.
        dtype: of the weights.

    Raises:
        ValueError: says what was expected and what was given.
    """
    shape = (config.channels, config.canvas, config.canvas)
    if image.ndim != 4 or tuple(image.shape[1:]) != shape:
        raise ValueError(f"image: expected shape [batch, {', '.join(map(str, shape))}], got "
                         f"{list(image.shape)}")
    if image.dtype != dtype:
        raise ValueError(f"image: expected dtype {dtype}, got {image.dtype}")
