"""Matrix capsules as the training loop and the commands take a model.

The network stays as it is proven (`port.em.network`); here it gets a configuration, the spread loss with its
growing margin, and taps. It draws no noise; its only statistics over the batch are those of IBM's normalised
input, which is each rank's own.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from port.core import inputs, losses
from port.core.classified import Classified
from port.core.gathering import alone
from port.core.taps import SILENT, Taps
from port.em import layers as em_layers
from port.em import losses as em_losses
from port.em.config import EMConfig
from port.em.network import MatrixCapsules

Array = Float[Tensor, "..."]


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
        self.gather = alone
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
        inputs.check_image(image, self.config.channels, self.config.canvas, self.dtype, self.check_range)
        if label is not None:
            label = inputs.check_labels(label, image.shape[0], self.config.n_classes, self.check_range)
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
