"""CapsNet as the training loop and the commands take a model.

The network stays as it is proven (`port.capsnet.network`); here it gets a configuration, a loss that comes
with the forward pass, and taps. It draws no noise and has no statistics over the whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from port.capsnet.config import CapsNetConfig
from port.capsnet.layers import flatten_grid
from port.capsnet.network import CapsNet
from port.core.classified import Classified
from port.core.gathering import alone
from port.core.taps import Taps

Array = Float[Tensor, "..."]


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
        self.gather = alone

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
