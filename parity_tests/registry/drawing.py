"""What rows of several modules draw and run alike."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import SCOPES
from parity_tests.harness.strategies import Case, Maker

NAN, INF = float("nan"), float("inf")


def draw_resampler(m: Maker) -> Case:
    n, height, width, channels = m.sizes(4, 2, 6)
    inner = m.sizes(2, 2, 5)[:m.size(1, 2)]
    x = m.off_integers(n, *inner, low=-3.0, high=width + 2.0)
    y = m.off_integers(n, *inner, low=-3.0, high=height + 2.0)
    return m.case(data=m.normal(n, height, width, channels), warp=np.stack([x, y], -1))


def at_edges() -> Case:
    """Integer coordinates, the border at -1 and w, just inside and outside, and not a number."""
    points = [(-1.0, 0.0), (0.0, -1.0), (-1.0, -1.0), (0.0, 0.0), (1.0, 2.0), (3.0, 2.0), (4.0, 1.0),
              (3.999, 1.0), (2.0, 3.0), (-0.999, 1.5), (1.5, 2.999), (1e9, 0.0), (-1e9, 1.0),
              (NAN, 1.0), (1.0, NAN), (INF, 1.0), (1.0, -INF)]
    rng = np.random.default_rng(0)
    return Case({"data": rng.standard_normal((1, 3, 4, 2)), "warp": np.array([points])})


def warp_cells(lib: Any, x: dict[str, Any], a: dict[str, Any]) -> Any:
    shape = x["templates"].shape
    rows, columns = (shape[2], shape[3]) if lib.side == "reference" else (shape[3], shape[4])
    pose = x["pose"].reshape(-1, 6) if lib.side == "port" else tf_reshape(x["pose"])
    pose = lib.core.warp.inverse_affine(pose) if a["inverse"] else pose
    return lib.core.warp.affine_grid(pose, a["canvas_shape"], (rows, columns))


def tf_reshape(pose: Any) -> Any:
    import tensorflow as tf
    return tf.reshape(pose, [-1, 6])


def draw_settings(m: Maker, caps: int, votes: int) -> dict[str, Any]:
    return {"n_caps": caps, "n_caps_dims": 2, "n_votes": votes, "n_caps_params": m.size(2, 5),
            "n_hiddens": m.choice([4, [3, 5], 7]), "learn_vote_scale": m.flag(),
            "deformations": m.flag(3) is False, "noise_type": m.choice(["uniform", "logistic", None]),
            "noise_scale": 4.0, "similarity_transform": m.flag(), "caps_dropout_rate": 0.0}


CAPSULE_NOISE = ("caps_noise", "vote_noise", "caps_mask")
TERMS = ("rec_ll", "log_prob", "dynamic_weights_l2", "primary_caps_l1",
         "posterior_within_sparsity_loss", "posterior_between_sparsity_loss",
         "prior_within_sparsity_loss", "prior_between_sparsity_loss", "template_l1", "rec_mse",
         "weight_decay_loss", "posterior_cls_xe", "prior_cls_xe")
WEIGHTS = ("caps_ll_weight", "dynamic_l2_weight", "primary_caps_sparsity_weight", "weight_decay",
           "posterior_within_example_sparsity_weight", "posterior_between_example_sparsity_weight",
           "prior_within_example_sparsity_weight", "prior_between_example_sparsity_weight",
           "rec_ll_weight", "template_l1_weight", "mse_weight")


def draw_part_decoder(m: Maker) -> Case:
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


def decoder_cells(lib: Any, x: dict[str, Any], a: dict[str, Any]) -> Any:
    pose = x["pose"].reshape(-1, 6) if lib.side == "port" else tf_reshape(x["pose"])
    canvas = (a["canvas_size"], a["canvas_size"])
    if a["settings"].get("inverse_space_transform", True):
        pose = lib.core.warp.inverse_affine(pose)
    return lib.core.warp.affine_grid(pose, canvas, tuple(a["settings"]["template_size"]))


DECODER_LAYOUTS = {"templates": 2, "means": 2, "mixing_logits": 2, "transformed_templates": 2,
                   "bg_image": 1}
