"""Linear classification probe of the original's `capsules/probe.py`, in TensorFlow 2.

Read beside `port/core/probe.py`: same class.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import layers
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]


class ClassificationProbe(NamedModule):
    """Linear read-out of a feature vector: cross-entropy and accuracy.

    xe = Σ_B labeled · xe_b / B (the full batch, Q23); accuracy over all examples, labelled or not.

    Args:
        scope: holds `linear/w` [in, classes] and `linear/b`.
        n_features: size of the features.
        n_classes: number of classes.
        rng: draws the weights.
        dtype: of the variables.

    Source: original `probe.py: classification_probe`.
    """

    def __init__(self, scope: str, n_features: int, n_classes: int, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.linear = layers.Linear(f"{scope}/linear", n_features, n_classes, rng, dtype)

    def __call__(self, features: Array, labels: tf.Tensor | None = None,
                 labeled: tf.Tensor | None = None) -> tuple[Array, Array | None, Array | None]:
        """Logits `[B, classes]`, cross-entropy and accuracy (None without labels).

        Args:
            features: `[B, in]`; no gradient flows back into them.
            labels: integers `[B]`.
            labeled: `[B]`, weights of the examples in the cross-entropy.
        """
        logits = self.linear(tf.stop_gradient(features))
        if labels is None:
            return logits, None, None
        xe = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        if labeled is not None:
            xe = xe * tf.cast(labeled, xe.dtype)
        hits = tf.equal(tf.argmax(logits, 1), tf.cast(labels, tf.int64))
        return logits, tf.reduce_mean(xe), tf.reduce_mean(tf.cast(hits, logits.dtype))
