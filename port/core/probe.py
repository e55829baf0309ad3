"""Linear classification probe of the original's `capsules/probe.py`, in PyTorch.

Read beside `reference/core/probe.py`: same class.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.core import inputs, layers

Array = Float[Tensor, "..."]
NO_CLASS = torch.iinfo(torch.int64).min


class ClassificationProbe(nn.Module):
    """Linear read-out of a feature vector: cross-entropy and accuracy.

    xe = Σ_B labeled · xe_b / B (the full batch, Q23); accuracy over all examples, labelled or not.

    Args:
        n_features: size of the features.
        n_classes: number of classes.
        rng: draws the weights.

    Source: original `probe.py: classification_probe`.
    """

    def __init__(self, n_features: int, n_classes: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.linear = layers.Linear(n_features, n_classes, rng)

    def forward(self, features: Array, labels: Tensor | None = None,
                labeled: Tensor | None = None) -> tuple[Array, Array | None, Array | None]:
        """Logits `[B, classes]`, cross-entropy and accuracy (None without labels).

        Args:
            features: `[B, in]`; no gradient flows back into them.
            labels: integers `[B]`.
            labeled: `[B]`, weights of the examples in the cross-entropy.

        Raises:
            ValueError: labels that are no integers `[B]`.
        """
        logits = self.linear(features.detach())
        if labels is None:
            return logits, None, None
        labels = inputs.check_labels(labels, features.shape[0], look=False, what="labels")
        # No number is passed over: by default cross_entropy would leave -100 out without a word.
        xe = F.cross_entropy(logits, labels, reduction="none", ignore_index=NO_CLASS)
        if labeled is not None:
            xe = xe * labeled.to(xe.dtype)
        hits = torch.argmax(logits, 1) == labels
        return logits, torch.mean(xe), torch.mean(hits.to(logits.dtype))
