"""Set transformer of the original's `capsules/attention.py`, in PyTorch.

Read beside `reference/core/attention.py`: same functions and classes, same order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import initializers, layers, ops
from port.core.parameters import parameter

Array = Float[Tensor, "..."]


def qkv_attention(queries: Float[Tensor, "batch m d"], keys: Float[Tensor, "batch n d"],
                  values: Float[Tensor, "batch n e"],
                  presence: Float[Tensor, "batch n"] | None = None, mask: str = "faithful"
                  ) -> Float[Tensor, "batch m e"]:
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
    routing = queries @ keys.mT
    if routing.dtype == torch.float16:
        routing = routing.float()  # 1e32 is infinite in half precision, and 0 of it not a number
        presence = None if presence is None else presence.float()
    if presence is not None and mask == "faithful":
        routing = routing - (1.0 - presence.unsqueeze(-2)) * 1e32
    routing = routing / math.sqrt(n_dims)
    if presence is not None and mask == "log_presence":
        routing = routing + ops.safe_log(presence).unsqueeze(-2)
    return torch.softmax(routing, -1).to(values.dtype) @ values


class MultiHeadQKVAttention(nn.Module):
    """Attention in several heads, each with its own projections; then one linear layer.

    Args:
        query_features: size of the queries' last axis.
        key_features: size of the keys' last axis.
        value_features: size of the values' last axis, and of the result's.
        n_heads: heads; each is ceil(size / n_heads) wide. `linear` holds q, k, v of head 0, then
            of head 1, …, and the output last.
        rng: draws the weights.
        mask: see `qkv_attention`.

    Source: original `attention.MultiHeadQKVAttention`.
    """

    def __init__(self, query_features: int, key_features: int, value_features: int, n_heads: int,
                 rng: np.random.Generator, mask: str = "faithful") -> None:
        super().__init__()
        self.n_heads, self.mask = n_heads, mask
        sizes = [(query_features, math.ceil(query_features / n_heads)),
                 (key_features, math.ceil(key_features / n_heads)),
                 (value_features, math.ceil(value_features / n_heads))] * n_heads
        sizes.append((n_heads * math.ceil(value_features / n_heads), value_features))
        self.linear = nn.ModuleList(layers.Linear(before, after, rng) for before, after in sizes)

    def forward(self, queries: Array, keys: Array, values: Array,
                presence: Array | None = None) -> Array:
        heads = []
        for head in range(self.n_heads):
            query, key, value = self.linear[3 * head:3 * head + 3]
            heads.append(qkv_attention(query(queries), key(keys), value(values), presence, self.mask))
        return self.linear[-1](torch.cat(heads, -1))


class SelfAttention(nn.Module):
    """y = (MHA(x) + x)·presence, LN; LN(MLP(y) + y), the MLP d → 2d → d.

    Args:
        n_features: d.
        n_heads: heads of the attention.
        layer_norm: normalise after both residual sums.
        rng: draws the weights.
        mask: see `qkv_attention`.
        dropout_rate: share dropped of the residual input and of the MLP's output (not of the
            attention's output, Q21).

    Source: original `attention.SelfAttention`.
    """

    def __init__(self, n_features: int, n_heads: int, layer_norm: bool, rng: np.random.Generator,
                 mask: str = "faithful", dropout_rate: float = 0.0) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self._build_attention(n_features, n_heads, rng, mask)
        self.layer_norm = nn.ModuleList(layers.LayerNorm(n_features) for _ in range(2 * layer_norm))
        self.mlp = layers.MLP(n_features, [2 * n_features, n_features], rng)

    def _build_attention(self, n_features: int, n_heads: int, rng: np.random.Generator,
                         mask: str) -> None:
        self.attention = MultiHeadQKVAttention(n_features, n_features, n_features, n_heads, rng, mask)

    def _attend(self, x: Array, presence: Array | None) -> Array:
        return self.attention(x, x, x, presence)

    def forward(self, x: Array, presence: Array | None = None,
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

    def __init__(self, n_features: int, n_heads: int, layer_norm: bool, n_inducing_points: int,
                 rng: np.random.Generator, mask: str = "faithful", dropout_rate: float = 0.0) -> None:
        self._n_inducing_points = n_inducing_points
        super().__init__(n_features, n_heads, layer_norm, rng, mask, dropout_rate)

    def _build_attention(self, n_features: int, n_heads: int, rng: np.random.Generator,
                         mask: str) -> None:
        self.inducing_points = parameter(initializers.glorot_uniform(
            rng, (1, self._n_inducing_points, n_features)))
        super()._build_attention(n_features, n_heads, rng, mask)

    def _attend(self, x: Array, presence: Array | None) -> Array:
        points = self.inducing_points.expand(x.shape[0], -1, -1)
        z = self.attention(points, x, x)
        return self.attention(x, z, z)


class SetTransformer(nn.Module):
    """Linear, n self-attentions, linear, then attention from O learned queries.

    Args:
        in_features: size of the tokens.
        n_layers: self-attentions.
        n_heads: heads of every attention.
        n_dims: width of the self-attentions.
        n_output_dims: e, width of the result.
        n_outputs: O, number of results; `inducing_points` is [1, O, e].
        layer_norm: in the self-attentions.
        rng: draws the weights.
        n_inducing_points: use induced self-attention with so many points; 0 for the plain one.
        dropout_rate: see `SelfAttention`.
        mask: see `qkv_attention`.

    Source: original `attention.SetTransformer`; paper section 2.3.
    """

    def __init__(self, in_features: int, n_layers: int, n_heads: int, n_dims: int,
                 n_output_dims: int, n_outputs: int, layer_norm: bool, rng: np.random.Generator,
                 n_inducing_points: int = 0, dropout_rate: float = 0.0,
                 mask: str = "faithful") -> None:
        super().__init__()
        first = layers.Linear(in_features, n_dims, rng)
        self.self_attention = nn.ModuleList()
        for _ in range(n_layers):
            if n_inducing_points:
                layer = InducedSelfAttention(n_dims, n_heads, layer_norm, n_inducing_points, rng,
                                             mask, dropout_rate)
            else:
                layer = SelfAttention(n_dims, n_heads, layer_norm, rng, mask, dropout_rate)
            self.self_attention.append(layer)
        self.linear = nn.ModuleList([first, layers.Linear(n_dims, n_output_dims, rng)])
        self.inducing_points = parameter(initializers.glorot_uniform(
            rng, (1, n_outputs, n_output_dims)))
        self.attention = MultiHeadQKVAttention(n_output_dims, n_output_dims, n_output_dims, n_heads,
                                               rng, mask)

    def forward(self, x: Array, presence: Array | None = None,
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
        points = self.inducing_points.expand(x.shape[0], -1, -1)
        return self.attention(points, z, z, presence), steps


class MLPEncoder(nn.Module):
    """What stands in the set transformer's place in the ablation: one MLP over all parts at once.

    h = MLP([x_1, …, x_K]), ReLU between the layers, the last linear, read as O features.

    Args:
        n_tokens: K.
        in_features: size of a token.
        n_layers: hidden layers.
        n_dims: width of each.
        n_output_dims: e, width of a feature.
        n_outputs: O.
        rng: draws the weights.

    Source: the original's `scae.py` also takes an object encoder of one argument; the paper's ablation.
    """

    def __init__(self, n_tokens: int, in_features: int, n_layers: int, n_dims: int, n_output_dims: int,
                 n_outputs: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.mlp = layers.MLP(n_tokens * in_features, [n_dims] * n_layers + [n_outputs * n_output_dims],
                              rng)

    def forward(self, x: Float[Tensor, "batch n f"], presence: Array | None = None,
                dropout_masks: list[Array] | None = None
                ) -> tuple[Float[Tensor, "batch o e"], list[tuple[Array, Array]]]:
        return self.mlp(x.flatten(1)).unflatten(-1, (self.n_outputs, -1)), []
