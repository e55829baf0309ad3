"""The original: an attention block whose output passes a gate, in TensorFlow."""

import numpy as np
import tensorflow as tf

from reference.core.module import NamedModule


def gated_attention(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, gate: tf.Tensor,
                    presence: tf.Tensor) -> tf.Tensor:
    """softmax(q kᵀ / √d + ln p) v · sigmoid(g); an absent element (p = 0) gets no weight.

    q, k, v and g are `[batch, n, d]`; p is `[batch, n]` in [0, 1], not 0 for a whole example.
    """
    scale = query.shape[-1] ** -0.5
    floor = tf.constant(1e-30, query.dtype)
    logits = tf.matmul(query, key, transpose_b=True) * scale + tf.math.log(
        tf.maximum(presence, floor))[:, None]
    return tf.matmul(tf.nn.softmax(logits, -1), value) * tf.sigmoid(gate)


class GatedAttention(NamedModule):
    """x + attention of three linear maps of x, gated by a fourth; `rng` draws the kernels."""

    def __init__(self, scope: str, features: int, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)

        def drawn(*shape: int) -> np.ndarray:
            return (rng.standard_normal(shape) * features ** -0.5).astype(np.float32)
        self.qkv = self.add_variable("qkv/kernel", drawn(features, 3 * features))
        self.gate_kernel = self.add_variable("gate/kernel", drawn(features, features))
        self.gate_bias = self.add_variable("gate/bias", np.ones(features, np.float32))

    def __call__(self, x: tf.Tensor, presence: tf.Tensor) -> tf.Tensor:
        query, key, value = tf.split(tf.matmul(x, self.qkv), 3, -1)
        gate = tf.matmul(x, self.gate_kernel) + self.gate_bias
        return x + gated_attention(query, key, value, gate, presence)
