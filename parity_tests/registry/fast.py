"""Rows of faster paths; they share their names with the plain ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from parity_tests.goldens.ops import SCOPES
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import (
    CAPSULE_NOISE,
    DECODER_LAYOUTS,
    at_edges,
    build_decoder,
    decoder_cells,
    draw_part_decoder,
    draw_resampler,
    warp_cells,
)
from parity_tests.registry.row import OpCase
from parity_tests.registry.scae.object_decoder import ROW_OUT, build_layer, draw_layer

NAN = float("nan")


def _pixel_log_prob(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    templates = m.make_templates(x["feature"])
    pose, presence, target = x["pose"], x.get("presence"), x["target"]
    if lib.side == "port":
        against = lib.scae.pixel_likelihood.reason_against(pose.device, True, True)
        assert not against, f"the kernel does not run: {against}"
        return {"log_prob": m.log_prob(target, pose, presence, templates)}
    decoded = m(pose, presence, templates)
    return {"log_prob": lib.core.mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means,
                                                     decoded.scale)}


def _draw(m: Maker) -> Case:
    """A part decoder as the kernel takes it: alpha, unit scale, constant background."""
    case = draw_part_decoder(m)
    settings = case.attributes["settings"]
    settings |= {"use_alpha_channel": True, "learn_output_scale": False}
    inputs = {name: value for name, value in case.inputs.items() if name != "bg_image"}
    canvas = case.attributes["canvas_size"]
    inputs["target"] = m.uniform(len(inputs["pose"]), canvas, canvas, settings["n_channels"])
    return replace(case, inputs=inputs)


def _fixed(pose: list[list[float]], presence: list[float] | None = None, canvas: int = 9,
           size: tuple[int, int] = (5, 3), channels: int = 2, nonlinearity: str = "sigmoid") -> Case:
    """One example with given poses and presences."""
    rng = np.random.default_rng(len(pose))
    settings = {"output_size": [canvas, canvas], "template_size": list(size), "n_channels": channels,
                "learn_output_scale": False, "colorize_templates": True,
                "template_nonlin": nonlinearity, "color_nonlin": nonlinearity,
                "use_alpha_channel": True}
    inputs = {"pose": np.array([pose], np.float64),
              "feature": rng.standard_normal((1, len(pose), 3)),
              "target": rng.uniform(size=(1, canvas, canvas, channels))}
    if presence is not None:
        inputs["presence"] = np.array([presence], np.float64)
    return Case(inputs, {"canvas_size": canvas, "n_parts": len(pose), "n_features": 3,
                         "settings": settings})


def _by_parts(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    """The kernel's own function; on the reference its definition, step by step."""
    if lib.side == "port":
        return lib.scae.pixel_likelihood.pixel_log_prob(**x)
    import tensorflow as tf
    batch, height, width, channels = x["target"].shape
    n_parts = x["pose"].shape[1]

    def spread(v: Any, *shape: int) -> Any:
        return tf.broadcast_to(v, (batch, *shape))

    def part(v: Any) -> Any:
        return lib.core.warp.warp_templates(spread(v, *v.shape[1:]), x["pose"], (height, width))

    mean = tf.concat([part(x["templates"]), spread(x["background"], 1, height, width, channels)], 1)
    logits = part(x["alpha"]) + tf.reshape(x["log_presence"], (batch, n_parts, 1, 1, 1))
    logits = tf.concat([logits, spread(x["background_logit"], 1, height, width, 1)], 1)
    return lib.core.mixture.mixture_log_prob(x["target"], logits, mean, tf.ones((), x["target"].dtype))


def _draw_by_parts(m: Maker) -> Case:
    """Logits of any spread, and templates that serve the whole batch."""
    batch, parts, rows, columns = m.sizes(4, 2, 6)
    channels, canvas = m.size(1, 3), m.size(5, 9)
    return m.case(terms=max(rows * columns, parts),
                  target=m.uniform(batch, canvas, canvas, channels),
                  templates=m.uniform(m.choice([1, batch]), parts, rows, columns, channels),
                  alpha=m.normal(1, parts, rows, columns, 1, scale=m.choice([0.5, 3.0, 40.0])),
                  pose=m.pose(batch, parts), log_presence=np.log(m.uniform(batch, parts, low=0.01)),
                  background=m.uniform(1), background_logit=m.normal(1, scale=m.choice([1.0, 30.0])))


def _far_apart(background_logit: float, log_presence: list[float]) -> Case:
    """Logits hundreds apart: no exponential of one can serve the other."""
    rng = np.random.default_rng(5)
    return Case({"target": rng.uniform(size=(1, 7, 7, 1)), "templates": rng.uniform(size=(1, 3, 4, 4, 1)),
                 "alpha": 200.0 * rng.standard_normal((1, 3, 4, 4, 1)),
                 "pose": np.array([[[0.7, 0.1, 0.1, -0.1, 0.6, 0], IDENTITY, [0.4, 0, 0.5, 0, 0.4, 0.5]]]),
                 "log_presence": np.array([log_presence]), "background": np.array([0.3]),
                 "background_logit": np.array([background_logit])})


def _cells_by_parts(lib: Any, x: dict[str, Any], a: dict[str, Any]) -> Any:
    return warp_cells(lib, x, {"canvas_shape": x["target"].shape[-2:] if lib.side == "port"
                                else x["target"].shape[1:3], "inverse": True})


def _hat(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return (lib.core.warp_hat if lib.side == "port" else lib.core.warp).resampler(**x)


def _compiled_votes(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    """As the layer is computed within `torch.compile`, by the operations that it traces."""
    if lib.side == "reference":
        return m(**x)
    import torch
    with mock.patch.object(torch.compiler, "is_compiling", lambda: True):
        return m(**x)


IDENTITY = [1.0, 0, 0, 0, 1, 0]
SPECIAL = (
    # Canvas pixels on template pixels: every coordinate an integer, the border at -1 and w included.
    ("integer coordinates", _fixed([IDENTITY, [0.5, 0, 0, 0, 0.5, 0], [0.5, 0, 0.25, 0, 0.5, -0.25],
                                    [0, 1, 0, -1, 0, 0]], size=(5, 5))),
    ("beyond the canvas", _fixed([[0.3, 0, 3, 0, 0.3, 0], [0.3, 0, 0, 0, 0.3, -3], IDENTITY,
                                  [1, 0, 1.4, 0, 1, 0.2]], [0.5, 0.2, 0.9, 1.0])),
    ("thin, sheared and flat", _fixed([[1e-2, 0, 0.1, 0, 1, 0], [1, 0.3, 0, 0.4, 1e-2, 0.2],
                                       [0, 0.7, 0.1, 0.6, 0, 0], [1e-2, 0, 0, 0, 1e-2, 0]])),
    ("singular and not a number", _fixed([[1, 2, 0, 2, 4, 1], [0] * 6, [NAN, 0, 0, 0, 1, 0], IDENTITY],
                                         [0.5, 0.2, 0.3, 0.9])),
    ("all absent", _fixed([IDENTITY, [0.6, 0.1, 0, 0, 0.5, 0.2]], [0.0, 0.0])),
    ("one absent", _fixed([IDENTITY, [0.6, 0.1, 0, 0, 0.5, 0.2]], [0.0, 0.7])),
    ("barely present", _fixed([IDENTITY, [0.6, 0.1, 0, 0, 0.5, 0.2]], [1e-15, 1e-17])),
    ("one pixel, one row", _fixed([IDENTITY, [0.6, 0.1, 0, 0.1, 0.5, 0.2]], size=(1, 4), channels=1)),
    ("black and white", _fixed([IDENTITY, [0.6, 0.1, 0, 0.1, 0.5, 0.2]], nonlinearity="relu1")),
)

PIXEL_LIKELIHOOD = ("scae.pixel_footprint", "scae.pixel_components", "scae.pixel_forward", "scae.pixel_backward",
                    "scae.pixel_likelihood")
ROWS = (
    OpCase("scae.part_decoder.PartDecoder", Recipe(
        _pixel_log_prob, ("log_prob",), DECODER_LAYOUTS | {"target": 1, "log_prob": 1}, ("target",),
        build_decoder, *SCOPES["PartDecoder"]), _draw, SPECIAL, cells=decoder_cells,
        note="fused kernel: warp, mixture and likelihood in one",
        judges=PIXEL_LIKELIHOOD),
    OpCase("core.mixture.mixture_log_prob", Recipe(
        _by_parts, layouts={"target": 1, "templates": 2, "alpha": 2, "out": 1},
        constants=("target",)), _draw_by_parts, (
            ("far apart", _far_apart(0.5, [-0.1, -2.0, -0.4])),
            ("far apart, one absent", _far_apart(0.5, [-1e8, -2.0, -0.4])),
            ("background alone", _far_apart(1e4, [-0.1, -2.0, -0.4]))), cells=_cells_by_parts,
        note="fused kernel, fed directly", judges=PIXEL_LIKELIHOOD),
    OpCase("scae.object_decoder.CapsuleLayer", Recipe(
        _compiled_votes, ROW_OUT, {}, CAPSULE_NOISE, build_layer, *SCOPES["CapsuleLayer"]), draw_layer,
        note="votes as a compiler is given them", judges=("scae.object_decoder",)),
    OpCase("core.warp.resampler", Recipe(_hat, layouts={"data": 1, "out": 1}), draw_resampler,
           (("cell edges", at_edges()),), note="products with hat weights", judges=("core.warp_hat",)),
)
