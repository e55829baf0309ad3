"""Set transformer of the original's `capsules/attention.py`, in TensorFlow 2.

Read beside `port/core/attention.py`: same functions and classes, same order.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import initializers, layers, ops
from reference.core.module import NamedModule, join

Array = Float[tf.Tensor, "..."]


def qkv_attention(queries: Float[tf.Tensor, "batch m d"], keys: Float[tf.Tensor, "batch n d"],
                  values: Float[tf.Tensor, "batch n e"],
                  presence: Float[tf.Tensor, "batch n"] | None = None, mask: str = "faithful"
                  ) -> Float[tf.Tensor, "batch m e"]:
    """softmax((Q Kᵀ - (1 - presence)·1e32) / sqrt(d)) V (Q01).

    Args:
        queries: `[B, M, d]`.
        keys: `[B, N, d]`.
        values: `[B, N, e]`.
        presence: `[B, N]` in [0, 1], of the keys; None for all present.
        mask: `faithful`, or `log_presence`: softmax(Q Kᵀ / sqrt(d) + safe_log(presence)).

    Returns:
        `[B, M, e]`. Under the faithful mask soft presences leave the most present key alone.

    Source: original `attention.QKVAttention`; paper appendix A.
    """
    n_dims = keys.shape[-1]
    routing = tf.matmul(queries, keys, transpose_b=True)
    if presence is not None and mask == "faithful":
        routing -= (1.0 - tf.expand_dims(presence, -2)) * 1e32
    routing = routing / math.sqrt(n_dims)
    if presence is not None and mask == "log_presence":
        routing += tf.expand_dims(ops.safe_log(presence), -2)
    return tf.matmul(tf.nn.softmax(routing, -1), values)


class MultiHeadQKVAttention(NamedModule):
    """Attention in several heads, each with its own projections; then one linear layer.

    Args:
        scope: holds `linear` (q of head 0), `linear_1` (k), `linear_2` (v), … and the output last.
        query_features: size of the queries' last axis.
        key_features: size of the keys' last axis.
        value_features: size of the values' last axis, and of the result's.
        n_heads: heads; each is ceil(size / n_heads) wide.
        rng: draws the weights.
        mask: see `qkv_attention`.
        dtype: of the variables.

    Source: original `attention.MultiHeadQKVAttention`.
    """

    def __init__(self, scope: str, query_features: int, key_features: int, value_features: int,
                 n_heads: int, rng: np.random.Generator, mask: str = "faithful",
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.n_heads, self.mask = n_heads, mask
        sizes = [(query_features, math.ceil(query_features / n_heads)),
                 (key_features, math.ceil(key_features / n_heads)),
                 (value_features, math.ceil(value_features / n_heads))] * n_heads
        sizes.append((n_heads * math.ceil(value_features / n_heads), value_features))
        self.linear = [layers.Linear(join(scope, "linear" + (f"_{i}" if i else "")), before, after, rng,
                              dtype) for i, (before, after) in enumerate(sizes)]

    def __call__(self, queries: Array, keys: Array, values: Array,
                 presence: Array | None = None) -> Array:
        heads = []
        for head in range(self.n_heads):
            project = self.linear[3 * head:3 * head + 3]
            heads.append(qkv_attention(project[0](queries), project[1](keys), project[2](values),
                                       presence, self.mask))
        return self.linear[-1](tf.concat(heads, -1))


class SelfAttention(NamedModule):
    """y = (MHA(x) + x)·presence, LN; LN(MLP(y) + y), the MLP d → 2d → d.

    Args:
        scope: holds `multi_head_qkv_attention`, `mlp` and, with `layer_norm`, `layer_norm{,_1}`.
        n_features: d.
        n_heads: heads of the attention.
        layer_norm: normalise after both residual sums.
        rng: draws the weights.
        mask: see `qkv_attention`.
        dropout_rate: share dropped of the residual input and of the MLP's output (not of the
            attention's output, Q21).
        dtype: of the variables.

    Source: original `attention.SelfAttention`.
    """

    def __init__(self, scope: str, n_features: int, n_heads: int, layer_norm: bool,
                 rng: np.random.Generator, mask: str = "faithful", dropout_rate: float = 0.0,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.dropout_rate = dropout_rate
        self._build_attention(n_features, n_heads, rng, mask)
        names = ("layer_norm", "layer_norm_1") if layer_norm else ()
        self.layer_norm = [layers.LayerNorm(join(scope, name), n_features, dtype) for name in names]
        self.mlp = layers.MLP(join(scope, "mlp"), n_features, [2 * n_features, n_features], rng, dtype)

    def _build_attention(self, n_features: int, n_heads: int, rng: np.random.Generator,
                         mask: str) -> None:
        self.attention = MultiHeadQKVAttention(
            join(self.scope, "multi_head_qkv_attention"), n_features, n_features, n_features, n_heads,
            rng, mask, self.dtype)

    def _attend(self, x: Array, presence: Array | None) -> Array:
        return self.attention(x, x, x, presence)

    def __call__(self, x: Array, presence: Array | None = None,
                 dropout_masks: tuple[Array, Array] | None = None) -> Array:
        y = self._attend(x, presence)
        if dropout_masks is not None:
            x = x * dropout_masks[0] / (1.0 - self.dropout_rate)
        y = y + x
        if presence is not None:
            y = y * presence[..., None]
        if self.layer_norm:
            y = self.layer_norm[0](y)
        h = self.mlp(y)
        if dropout_masks is not None:
            h = h * dropout_masks[1] / (1.0 - self.dropout_rate)
        h = h + y
        return self.layer_norm[1](h) if self.layer_norm else h


class InducedSelfAttention(SelfAttention):
    """Self-attention through a few learned points, with one shared attention module (Q22).

    z = MHA(points, x, x), y = MHA(x, z, z) with the same weights; presence is not used inside.

    Args:
        n_inducing_points: number of learned points; `inducing_points` is [1, n, d].
        others: as `SelfAttention`.

    Source: original `attention.InducedSelfAttention`.
    """

    def __init__(self, scope: str, n_features: int, n_heads: int, layer_norm: bool,
                 n_inducing_points: int, rng: np.random.Generator, mask: str = "faithful",
                 dropout_rate: float = 0.0, dtype: tf.DType = tf.float32) -> None:
        self._n_inducing_points = n_inducing_points
        super().__init__(scope, n_features, n_heads, layer_norm, rng, mask, dropout_rate, dtype)

    def _build_attention(self, n_features: int, n_heads: int, rng: np.random.Generator,
                         mask: str) -> None:
        self.inducing_points = self.add_variable("inducing_points", initializers.glorot_uniform(
            rng, (1, self._n_inducing_points, n_features)))
        super()._build_attention(n_features, n_heads, rng, mask)

    def _attend(self, x: Array, presence: Array | None) -> Array:
        points = tf.repeat(self.inducing_points, x.shape[0], axis=0)
        z = self.attention(points, x, x)
        return self.attention(x, z, z)


class SetTransformer(NamedModule):
    """Linear, n self-attentions, linear, then attention from O learned queries.

    Args:
        scope: holds `linear`, `self_attention{,_1,…}`, `linear_1`, `inducing_points` [1, O, e] and
            `multi_head_qkv_attention`.
        in_features: size of the tokens.
        n_layers: self-attentions.
        n_heads: heads of every attention.
        n_dims: width of the self-attentions.
        n_output_dims: e, width of the result.
        n_outputs: O, number of results.
        layer_norm: in the self-attentions.
        rng: draws the weights.
        n_inducing_points: use induced self-attention with so many points; 0 for the plain one.
        dropout_rate: see `SelfAttention`.
        mask: see `qkv_attention`.
        dtype: of the variables.

    Source: original `attention.SetTransformer`; paper section 2.3.
    """

    def __init__(self, scope: str, in_features: int, n_layers: int, n_heads: int, n_dims: int,
                 n_output_dims: int, n_outputs: int, layer_norm: bool, rng: np.random.Generator,
                 n_inducing_points: int = 0, dropout_rate: float = 0.0, mask: str = "faithful",
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        first = layers.Linear(join(scope, "linear"), in_features, n_dims, rng, dtype)
        self.self_attention = []
        for i in range(n_layers):
            kind = "induced_self_attention" if n_inducing_points else "self_attention"
            place = join(scope, kind + (f"_{i}" if i else ""))
            if n_inducing_points:
                layer = InducedSelfAttention(place, n_dims, n_heads, layer_norm, n_inducing_points,
                                             rng, mask, dropout_rate, dtype)
            else:
                layer = SelfAttention(place, n_dims, n_heads, layer_norm, rng, mask, dropout_rate,
                                      dtype)
            self.self_attention.append(layer)
        self.linear = [first, layers.Linear(join(scope, "linear_1"), n_dims, n_output_dims, rng, dtype)]
        self.inducing_points = self.add_variable("inducing_points", initializers.glorot_uniform(
            rng, (1, n_outputs, n_output_dims)))
        self.attention = MultiHeadQKVAttention(
            join(scope, "multi_head_qkv_attention"), n_output_dims, n_output_dims, n_output_dims,
            n_heads, rng, mask, dtype)

    def __call__(self, x: Array, presence: Array | None = None,
                 dropout_masks: list[Array] | None = None
                 ) -> tuple[Array, list[tuple[Array, Array]]]:
        h = self.linear[0](x)
        steps = []
        for i, layer in enumerate(self.self_attention):
            masks = None if dropout_masks is None else tuple(dropout_masks[2 * i:2 * i + 2])
            out = layer(h, presence, masks)
            steps.append((h, out))
            h = out
        z = self.linear[1](h)
        points = tf.repeat(self.inducing_points, x.shape[0], axis=0)
        return self.attention(points, z, z, presence), steps


class MLPEncoder(NamedModule):
    """What stands in the set transformer's place in the ablation: one MLP over all parts at once.

    h = MLP([x_1, …, x_K]), ReLU between the layers, the last linear, read as O features.

    Args:
        scope: holds `mlp`.
        n_tokens: K.
        in_features: size of a token.
        n_layers: hidden layers.
        n_dims: width of each.
        n_output_dims: e, width of a feature.
        n_outputs: O.
        rng: draws the weights.
        dtype: of the variables.

    Source: the original's `scae.py` also takes an object encoder of one argument; the paper's ablation.
    """

    def __init__(self, scope: str, n_tokens: int, in_features: int, n_layers: int, n_dims: int,
                 n_output_dims: int, n_outputs: int, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.n_outputs = n_outputs
        self.mlp = layers.MLP(join(scope, "mlp"), n_tokens * in_features,
                              [n_dims] * n_layers + [n_outputs * n_output_dims], rng, dtype)

    def __call__(self, x: Float[tf.Tensor, "batch n f"], presence: Array | None = None,
                 dropout_masks: list[Array] | None = None
                 ) -> tuple[Float[tf.Tensor, "batch o e"], list[tuple[Array, Array]]]:
        flat = tf.reshape(x, [x.shape[0], -1])
        return tf.reshape(self.mlp(flat), [x.shape[0], self.n_outputs, -1]), []
