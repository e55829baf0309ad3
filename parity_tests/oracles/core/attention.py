"""Oracles of the set transformer."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import layers
from parity_tests.oracles.scalars import as64, sub_scope

Variables = Mapping[str, np.ndarray]


def _numbered(scope: str, i: int) -> str:
    """The name a repeated module gets: scope, scope_1, scope_2, ..."""
    return scope if i == 0 else f"{scope}_{i}"


def _add(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x + y of one shape."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = float(x[index]) + float(y[index])
    return out


def _drop(x: np.ndarray, mask, rate: float) -> np.ndarray:
    """Dropout with a given mask: x / (1 - rate) where it is true, else zero."""
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = float(x[index]) / (1.0 - rate) if mask[index] else 0.0
    return out


def qkv_attention(queries, keys, values, presence=None) -> np.ndarray:
    """softmax((Q K^T - (1 - presence) 1e32) / sqrt(d)) V.

    The mask is subtracted before the division by sqrt(d) and grows with absence, so any presence
    below one but the largest is out of the race.
    Args: queries [B, M, d], keys [B, N, d], values [B, N, v], presence [B, N].
    Returns [B, M, v].
    Source: attention.py, QKVAttention.
    """
    queries, keys, values = as64(queries), as64(keys), as64(values)
    n_examples, n_queries, n_dims = queries.shape
    n_keys = keys.shape[1]
    out = np.zeros((n_examples, n_queries, values.shape[-1]))
    for b in range(n_examples):
        for m in range(n_queries):
            routing = []
            for n in range(n_keys):
                product = 0.0
                for i in range(n_dims):
                    product += float(queries[b, m, i]) * float(keys[b, n, i])
                if presence is not None:
                    product -= (1.0 - float(presence[b][n])) * 1e32
                routing.append(product / math.sqrt(n_dims))
            weights = scalars.softmax(routing)
            for i in range(values.shape[-1]):
                total = 0.0
                for n in range(n_keys):
                    total += weights[n] * float(values[b, n, i])
                out[b, m, i] = total
    return out


def multi_head_qkv_attention(
    queries, keys, values, presence, variables: Variables, n_heads: int
) -> np.ndarray:
    """Heads side by side, then a linear map: concat_h attention(Q W_q, K W_k, V W_v) W_o + b_o.

    Each head has linear maps with bias to ceil(d / n_heads) for queries and keys and
    ceil(v / n_heads) for values, named in the order q, k, v of head 0, q, k, v of head 1, ...
    Args: as qkv_attention; variables linear/w, linear/b, linear_1/w, ... Returns [B, M, v].
    Source: attention.py, MultiHeadQKVAttention.
    """
    heads = []
    for head in range(n_heads):
        q, k, v = (
            layers.linear(x, sub_scope(variables, _numbered("linear", 3 * head + i)))
            for i, x in enumerate((queries, keys, values))
        )
        heads.append(qkv_attention(q, k, v, presence))
    n_dims = heads[0].shape[-1]
    merged = np.zeros((*heads[0].shape[:-1], n_heads * n_dims))
    for head in range(n_heads):
        for index in np.ndindex(heads[head].shape):
            merged[(*index[:-1], head * n_dims + index[-1])] = heads[head][index]
    return layers.linear(merged, sub_scope(variables, _numbered("linear", 3 * n_heads)))


def self_attention(
    x,
    presence,
    variables: Variables,
    n_heads: int,
    layer_norm: bool = False,
    dropout_masks: Sequence | None = None,
    dropout_rate: float = 0.0,
    n_inducing_points: int = 0,
) -> np.ndarray:
    """One block: y = LN(presence (attention(x) + x)), out = LN(MLP(y) + y), MLP d -> 2 d -> d.

    Dropout, when there is one, takes the residual input x and then the MLP's output.
    Args: x [B, N, d]; presence [B, N] or None; variables multi_head_qkv_attention/...,
    mlp/linear_0, mlp/linear_1, layer_norm/..., layer_norm_1/...; dropout_masks: two, [B, N, d].
    With inducing points (`inducing_points` [1, P, d]) the attention is the induced one.
    Source: attention.py, SelfAttention.
    """
    x = as64(x)
    heads = sub_scope(variables, "multi_head_qkv_attention")
    if n_inducing_points:
        y = _induced(x, as64(variables["inducing_points"]), heads, n_heads)
    else:
        y = multi_head_qkv_attention(x, x, x, presence, heads, n_heads)
    if dropout_masks is not None:
        x = _drop(x, dropout_masks[0], dropout_rate)
    y = _add(y, x)
    if presence is not None:
        for b, n, i in np.ndindex(y.shape):
            y[b, n, i] = float(y[b, n, i]) * float(presence[b][n])
    if layer_norm:
        y = layers.layer_norm(y, sub_scope(variables, "layer_norm"))
    h = layers.mlp(y, sub_scope(variables, "mlp"))
    if dropout_masks is not None:
        h = _drop(h, dropout_masks[1], dropout_rate)
    h = _add(h, y)
    if layer_norm:
        h = layers.layer_norm(h, sub_scope(variables, "layer_norm_1"))
    return h


def _induced(x: np.ndarray, points: np.ndarray, heads: Variables, n_heads: int) -> np.ndarray:
    """Attention through inducing points, the same weights both ways and no mask.

    z = attention(points, x, x); out = attention(x, z, z).
    """
    tiled = np.zeros((x.shape[0], *points.shape[1:]))
    for b in range(x.shape[0]):
        tiled[b] = points[0]
    z = multi_head_qkv_attention(tiled, x, x, None, heads, n_heads)
    return multi_head_qkv_attention(x, z, z, None, heads, n_heads)


def induced_self_attention(
    x, presence, variables: Variables, n_heads: int, n_inducing_points: int, layer_norm=False, **kw
) -> np.ndarray:
    """A self-attention block whose attention goes through inducing points.

    Args: as self_attention, variables with inducing_points [1, P, d] besides.
    Source: attention.py, InducedSelfAttention.
    """
    return self_attention(
        x, presence, variables, n_heads, layer_norm, n_inducing_points=n_inducing_points, **kw
    )


def set_transformer_layers(
    x,
    presence,
    variables: Variables,
    n_layers: int,
    n_heads: int,
    layer_norm: bool = False,
    n_inducing_points: int = 0,
    dropout_masks: Sequence | None = None,
    dropout_rate: float = 0.0,
) -> list[np.ndarray]:
    """The set after the first linear map and after each block: n_layers + 1 arrays [B, N, d].

    Args and source: see set_transformer.
    """
    outputs = [layers.linear(x, sub_scope(variables, "linear"))]
    scope = "induced_self_attention" if n_inducing_points else "self_attention"
    for i in range(n_layers):
        outputs.append(
            self_attention(
                outputs[-1],
                presence,
                sub_scope(variables, _numbered(scope, i)),
                n_heads,
                layer_norm,
                None if dropout_masks is None else dropout_masks[2 * i : 2 * i + 2],
                dropout_rate,
                n_inducing_points,
            )
        )
    return outputs


def set_transformer(
    x, presence, variables: Variables, n_layers: int, n_heads: int, layer_norm: bool = False, **kw
) -> np.ndarray:
    """Linear, blocks of self-attention, linear, then attention with learned queries.

    z = linear_1(blocks(linear(x))); out = attention(inducing_points, z, z) with the mask.
    Args: x [B, N, f]; presence [B, N] or None; variables linear, self_attention,
    self_attention_1, ..., linear_1, inducing_points [1, O, d_out], multi_head_qkv_attention;
    keywords as set_transformer_layers. Returns [B, O, d_out].
    Source: attention.py, SetTransformer.
    """
    z = set_transformer_layers(x, presence, variables, n_layers, n_heads, layer_norm, **kw)[-1]
    return set_transformer_output(z, presence, variables, n_heads)


def set_transformer_output(z, presence, variables: Variables, n_heads: int) -> np.ndarray:
    """From the last block to O outputs: attention(inducing_points, y, y) with y = linear_1(z).

    Args: z [B, N, d]; presence [B, N] or None; variables as set_transformer. Returns [B, O, d_out].
    Source: attention.py, SetTransformer.
    """
    z = layers.linear(z, sub_scope(variables, "linear_1"))
    points = as64(variables["inducing_points"])
    queries = np.zeros((z.shape[0], *points.shape[1:]))
    for b in range(z.shape[0]):
        queries[b] = points[0]
    heads = sub_scope(variables, "multi_head_qkv_attention")
    return multi_head_qkv_attention(queries, z, z, presence, heads, n_heads)


def mlp_encoder(x, variables: Variables, n_outputs: int) -> np.ndarray:
    """One MLP over the tokens of all parts in a row; its output is cut into O features.

    Args: x [B, N, f]; variables mlp/linear_0/w, ... Returns [B, O, d_out].
    Source: the paper's ablation; scae.py calls an object encoder of one argument.
    """
    x = as64(x)
    rows = np.zeros((x.shape[0], x.shape[1] * x.shape[2]))
    for b, n, i in np.ndindex(x.shape):
        rows[b, n * x.shape[2] + i] = x[b, n, i]
    found = layers.mlp(rows, sub_scope(variables, "mlp"))
    width = found.shape[1] // n_outputs
    out = np.zeros((x.shape[0], n_outputs, width))
    for b, o, i in np.ndindex(out.shape):
        out[b, o, i] = found[b, o * width + i]
    return out
