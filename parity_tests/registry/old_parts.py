"""Rows of `part_encoder` and `part_decoder`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import SCOPES, function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry import OpCase


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


def _part_decoder(m: Maker) -> Case:
    batch, parts, features = m.sizes(3, 2, 5)
    rows, columns = m.sizes(2, 2, 5)
    channels, canvas = m.size(1, 3), m.size(6, 9)
    settings = {"output_size": [canvas, canvas], "template_size": [rows, columns],
                "n_channels": channels, "learn_output_scale": m.flag(), "colorize_templates": m.flag(),
                "template_nonlin": m.choice(["relu1", "sigmoid"]),
                "color_nonlin": m.choice(["relu1", "sigmoid"]), "use_alpha_channel": m.flag()}
    inputs = {"pose": m.pose(batch, parts), "presence": m.presence(batch, parts),
              "feature": m.normal(batch, parts, features, scale=1.0)}
    if m.flag(6):
        settings["inverse_space_transform"] = False
    if m.flag(4):
        inputs["bg_image"] = m.uniform(batch, canvas, canvas, channels)
    if m.flag(6):
        del inputs["presence"]
    return m.case({"canvas_size": canvas, "n_parts": parts, "n_features": features,
                   "settings": settings}, terms=max(rows * columns, parts), **inputs)


def build_decoder(lib: Any, a: dict[str, Any]) -> Any:
    """A part decoder in the whole model's scope."""
    return lib.module("scae.part_decoder.PartDecoder", SCOPES["PartDecoder"][0],
                      **a | {"settings": lib.section("PartDecoder", a["settings"])})


def _decode(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    templates = m.make_templates(x["feature"])
    decoded = m(x["pose"], x.get("presence"), templates, x.get("bg_image"))
    return {"templates": templates, "means": decoded.means, "mixing_logits": decoded.mixing_logits,
            "scale": decoded.scale, "transformed_templates": decoded.transformed_templates}


def _decoder_cells(lib: Any, x: dict[str, Any], a: dict[str, Any]) -> Any:
    from parity_tests.registry.old_images import _tf_reshape
    pose = x["pose"].reshape(-1, 6) if lib.side == "port" else _tf_reshape(x["pose"])
    canvas = (a["canvas_size"], a["canvas_size"])
    if a["settings"].get("inverse_space_transform", True):
        pose = lib.core.warp.inverse_affine(pose)
    return lib.core.warp.affine_grid(pose, canvas, tuple(a["settings"]["template_size"]))


DECODER_LAYOUTS = {"templates": 2, "means": 2, "mixing_logits": 2, "transformed_templates": 2,
                   "bg_image": 1}
ROWS = (
    OpCase("scae.part_encoder.attention_pool", function(
        "scae.part_encoder.attention_pool", ("features", "weights", "pooled", "params"),
        layouts={"feature_map": 1, "features": (0, 3, 1, 2), "weights": 1}), _attention_pool,
        oracle=True),
    OpCase("scae.part_encoder.PartEncoder", Recipe(
        _encode, ("pose", "presence", "presence_logit"), {"image": 1}, ("noise",), _build_encoder,
        "capsule_image_encoder", "part_encoder."), _part_encoder, oracle=True),
    OpCase("scae.part_decoder.PartDecoder", Recipe(
        _decode, ("templates", "means", "mixing_logits", "scale", "transformed_templates"),
        DECODER_LAYOUTS, (), build_decoder, *SCOPES["PartDecoder"]), _part_decoder,
        (("part absent", Case({
            "pose": np.array([[[1.0, 0.1, 0.05, -0.1, 0.9, 0.0]] * 2]), "presence": np.zeros((1, 2)),
            "feature": np.ones((1, 2, 3))}, {
                "canvas_size": 7, "n_parts": 2, "n_features": 3, "settings": {
                    "output_size": [7, 7], "template_size": [4, 3], "n_channels": 1,
                    "learn_output_scale": False, "colorize_templates": True,
                    "template_nonlin": "relu1", "color_nonlin": "relu1",
                    "use_alpha_channel": True}})),),
        cells=_decoder_cells, oracle=True),
)
