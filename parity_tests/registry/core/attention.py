"""Rows of `core/attention.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity_tests.goldens.ops import function, module
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.core.drawing import plain
from parity_tests.registry.row import OpCase


def _presence(m: Maker, batch: int, tokens: int) -> dict[str, np.ndarray]:
    """Presences; those with ties are held constant.

    The mask multiplies the gradient of tied presences by 1e32: behind a layer norm or a projection,
    which cancel most of it, what is left is rounding. The gradient at ties is compared where it
    arises, in `core.attention.qkv_attention`.
    """
    if m.flag():
        return {"tied_presence": m.presence(batch, tokens, exact=True)}
    return {"presence": m.presence(batch, tokens, exact=False)}


def _given_presence(x: dict[str, Any]) -> Any:
    return x.get("presence", x.get("tied_presence"))


def _call_multi_head(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    return m(x["queries"], x["keys"], x["values"], _given_presence(x))


def _tokens(m: Maker, presence: bool) -> tuple[int, int, int, dict[str, np.ndarray]]:
    batch, tokens, features = m.sizes(3, 2, 7)
    inputs = {"x": m.normal(batch, tokens, features)}
    if presence:
        inputs |= _presence(m, batch, tokens)
    return batch, tokens, features, inputs


def _qkv(m: Maker) -> Case:
    batch, queries, keys, dims, values = m.sizes(5, 2, 7)
    inputs = {"queries": m.normal(batch, queries, dims), "keys": m.normal(batch, keys, dims),
              "values": m.normal(batch, keys, values)}
    attributes = {}
    if m.flag():
        inputs["presence"] = m.presence(batch, keys)
        attributes["mask"] = m.choice(["faithful", "log_presence"])
    return m.case(attributes, terms=max(keys, dims), **inputs)


def _multi_head(m: Maker) -> Case:
    batch, queries, keys, dims, values = m.sizes(5, 2, 7)
    inputs = {"queries": m.normal(batch, queries, dims), "keys": m.normal(batch, keys, dims),
              "values": m.normal(batch, keys, values)}
    if m.flag():
        inputs |= _presence(m, batch, keys)
    return m.case({"query_features": dims, "key_features": dims, "value_features": values,
                   "n_heads": m.size(1, 3), "mask": m.choice(["faithful", "log_presence"])},
                  terms=max(keys, dims, values), **inputs)


def _dropout(m: Maker, attributes: dict[str, Any], inputs: dict[str, np.ndarray],
             shape: tuple[int, ...], count: int) -> None:
    if m.flag(3):
        attributes["dropout_rate"] = 0.3
        for i in range(count):
            inputs[f"mask_{i}"] = (m.rng.random(shape) > 0.3).astype(np.float64)


def _self_attention(m: Maker) -> Case:
    batch, tokens, features, inputs = _tokens(m, m.flag())
    features = max(features, 3)  # the layer norm of two numbers is ±1: no gradient is left
    inputs["x"] = m.normal(batch, tokens, features)
    attributes = {"n_features": features, "n_heads": m.size(1, 3), "layer_norm": m.flag(),
                  "mask": m.choice(["faithful", "log_presence"])}
    _dropout(m, attributes, inputs, (batch, tokens, features), 2)
    return m.case(attributes, terms=2 * max(features, tokens), **inputs)


def _induced(m: Maker) -> Case:
    case = _self_attention(m)
    case.attributes["n_inducing_points"] = m.size(1, 4)
    return case


def _set_transformer(m: Maker) -> Case:
    batch, tokens, _, inputs = _tokens(m, m.flag())
    n_dims, n_out, n_outputs = m.sizes(3, 2, 6)
    n_dims, n_out = max(n_dims, 3), max(n_out, 2)
    attributes = {"in_features": inputs["x"].shape[-1], "n_layers": m.size(1, 3),
                  "n_heads": m.size(1, 2), "n_dims": n_dims, "n_output_dims": n_out,
                  "n_outputs": n_outputs, "layer_norm": m.flag(),
                  "n_inducing_points": m.choice([0, 0, 3]),
                  "mask": m.choice(["faithful", "faithful", "log_presence"])}
    _dropout(m, attributes, inputs, (batch, tokens, n_dims), 2 * attributes["n_layers"])
    return m.case(attributes, terms=2 * max(tokens, n_dims, n_out), **inputs)


def _mlp_encoder(m: Maker) -> Case:
    batch, tokens, features, n_dims, n_out, n_outputs = m.sizes(6, 2, 8)
    attributes = {"n_tokens": tokens, "in_features": features, "n_layers": m.size(0, 2), "n_dims": n_dims,
                  "n_output_dims": n_out, "n_outputs": n_outputs}
    return m.case(attributes, terms=max(tokens * features, n_dims), x=m.normal(batch, tokens, features))


def _with_masks(many: bool) -> Callable[..., Any]:
    def call(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
        masks = [x[key] for key in sorted(x) if key.startswith("mask_")]
        masks = (masks if many else tuple(masks)) if masks else None
        return m(x["x"], _given_presence(x), masks)

    return call


MASKS = ("tied_presence", *(f"mask_{i}" for i in range(8)))


def _ties() -> Case:
    rng = np.random.default_rng(3)
    return Case({"queries": rng.standard_normal((1, 3, 4)), "keys": rng.standard_normal((1, 5, 4)),
                 "values": rng.standard_normal((1, 5, 2)),
                 "presence": np.array([[1.0, 1.0, 0.5, 0.0, 1.0]])})


def _soft_ties() -> Case:
    case = _ties()
    return Case(case.inputs | {"presence": np.array([[0.25, 0.7, 0.7, 0.0, 0.7]])})


def _absent() -> Case:
    case = _ties()
    return Case(case.inputs | {"presence": np.zeros((1, 5))})


ROWS = (
    OpCase("core.attention.qkv_attention", function("core.attention.qkv_attention"), _qkv, (
        ("presences tied at 1", _ties()), ("soft presences tied", _soft_ties()),
        ("all absent", _absent())), oracle=True),
    OpCase("core.attention.MultiHeadQKVAttention", module(
        "core.attention.MultiHeadQKVAttention", ("out",), lambda a: a, _call_multi_head,
        constants=("tied_presence",)), _multi_head, oracle=True),
    OpCase("core.attention.SelfAttention", module(
        "core.attention.SelfAttention", ("out",), lambda a: a, _with_masks(False), constants=MASKS),
        _self_attention, oracle=True),
    OpCase("core.attention.InducedSelfAttention", module(
        "core.attention.InducedSelfAttention", ("out",), lambda a: a, _with_masks(False), constants=MASKS),
        _induced, oracle=True),
    OpCase("core.attention.SetTransformer", module(
        "core.attention.SetTransformer", ("out",), lambda a: a, _with_masks(True), constants=MASKS),
        _set_transformer, oracle=True),
    OpCase("core.attention.MLPEncoder", plain("core.attention.MLPEncoder"), _mlp_encoder, oracle=True),
)
