"""Rows of `scae/part_encoder.py`."""

from __future__ import annotations

from typing import Any

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _attention_pool(m: Maker) -> Case:
    batch, height, width, caps, dims = m.sizes(5, 2, 6)
    pooling = m.choice(["faithful", "transposed"])
    return m.case({"n_caps": caps, "n_dims": dims, "pooling": pooling}, terms=height * width,
                  feature_map=m.normal(batch, height, width, dims * caps + caps))


def _part_encoder(m: Maker) -> Case:
    batch, caps, features, channels = m.sizes(4, 2, 5)
    canvas = m.size(9, 12)
    cnn = {"output_channels": m.sizes(2, 2, 5), "kernel_shapes": [3], "strides": [2, 1],
           "paddings": "VALID", "activate_final": m.flag(4) is False}
    if m.flag(4):
        cnn["residual_blocks"] = 1
    settings = {"n_caps": caps, "n_caps_dims": 6, "n_features": m.choice([0, features]),
                "noise_scale": m.choice([4.0, 1.5]), "similarity_transform": m.flag(),
                "encoder_type": m.choice(["conv_att", "conv_att", "conv", "linear"])}
    inputs = {"image": m.uniform(batch, canvas, canvas, channels)}
    if m.flag():
        inputs["noise"] = m.uniform(batch, caps)
    return m.case({"canvas_size": canvas, "n_channels": channels, "cnn": cnn, "settings": settings,
                   "pooling": m.choice(["faithful", "faithful", "transposed"])},
                  terms=9 * max(cnn["output_channels"]) * canvas, **inputs)


def _build_encoder(lib: Any, a: dict[str, Any]) -> Any:
    return lib.module("scae.part_encoder.PartEncoder", "capsule_image_encoder",
                      **a | {"cnn": lib.section("CNN", a["cnn"]),
                             "settings": lib.section("PartEncoder", a["settings"])})


def _encode(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    parts = m(x["image"], x.get("noise"))
    found = {"pose": parts.pose, "presence": parts.presence, "presence_logit": parts.presence_logit}
    return found | ({} if parts.feature is None else {"feature": parts.feature})


ROWS = (
    OpCase("scae.part_encoder.attention_pool", function(
        "scae.part_encoder.attention_pool", ("features", "weights", "pooled", "params"),
        layouts={"feature_map": 1, "features": (0, 3, 1, 2), "weights": 1}), _attention_pool,
        oracle=True),
    OpCase("scae.part_encoder.PartEncoder", Recipe(
        _encode, ("pose", "presence", "presence_logit"), {"image": 1}, ("noise",), _build_encoder,
        "capsule_image_encoder", "part_encoder."), _part_encoder, oracle=True),
)
