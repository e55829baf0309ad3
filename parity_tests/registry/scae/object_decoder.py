"""Rows of `scae/object_decoder.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import LAYER_OUT, LIKELIHOOD_OUT, SCOPES, function, module
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import CAPSULE_NOISE, draw_settings
from parity_tests.registry.row import OpCase


def _vote_density(m: Maker) -> Case:
    batch, votes, dims = m.sizes(3, 2, 5)
    inputs = {"x": m.normal(batch, 1, dims, scale=1.0), "votes": m.normal(batch, votes, dims, scale=1.0),
              "scales": m.uniform(batch, votes, low=0.05, high=2.0)}
    if m.flag():
        inputs["df"] = m.uniform(low=2.1, high=9.0)
    return m.case(terms=dims, **inputs)


def _noise(m: Maker) -> Case:
    shape = m.shape(1, 3)
    inputs = {"logit": m.normal(*shape)}
    if m.flag(4) is False:
        inputs["raw"] = m.uniform(*shape, low=-0.5, high=0.5)
    return m.case({"noise_type": m.choice(["uniform", "logistic", "normal", None]),
                   "noise_scale": m.choice([4.0, 2.0])}, **inputs)


def _run_noise(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.scae.object_decoder.add_noise(x["logit"], x.get("raw"), **a)


ROW_OUT = (*LAYER_OUT, "all_params")


def _votes(m: Maker, dims: int = 6) -> tuple[tuple[int, int, int], dict[str, np.ndarray]]:
    batch, caps, points = m.sizes(3, 2, 6)
    scales = m.uniform(batch, caps, points, low=0.05, high=2.0)
    inputs = {"votes": m.normal(batch, caps, points, dims, scale=1.0), "scales": scales,
              "vote_presence_prob": m.presence(batch, caps, points),
              "x": m.normal(batch, points, dims, scale=1.0)}
    if m.flag(4) is False:
        inputs["presence"] = m.presence(batch, points)
    return (batch, caps, points), inputs


def _likelihood(m: Maker) -> Case:
    (_, caps, points), inputs = _votes(m)
    inputs["dummy_vote"] = m.normal(1, 1, points, 6, scale=1.0)
    inputs.setdefault("presence", np.ones(inputs["x"].shape[:2]))
    if m.flag(3):
        inputs["df"] = m.uniform(low=2.1, high=9.0)
    return m.case({"mixing": m.choice(["faithful", "faithful", "normalised"])},
                  terms=6 * (caps + 1) * points, **inputs)


def _likelihood_module(m: Maker) -> Case:
    dims = m.choice([6, 2])
    (_, caps, points), inputs = _votes(m, dims)
    return m.case({"n_points": points, "n_dims": dims, "mixing": m.choice(["faithful", "normalised"]),
                   "pdf": m.choice(["normal", "normal", "student"])},
                  terms=dims * (caps + 1) * points, **inputs)


def _tied_votes() -> Case:
    rng = np.random.default_rng(4)
    vote = np.repeat(rng.standard_normal((1, 1, 3, 6)), 2, axis=1)
    return Case({"votes": vote, "scales": np.ones((1, 2, 3)),
                 "vote_presence_prob": np.full((1, 2, 3), 0.01), "x": rng.standard_normal((1, 3, 6)),
                 "presence": np.array([[0.0, 1.0, 0.5]]), "dummy_vote": np.zeros((1, 1, 3, 6))})


def _no_votes() -> Case:
    case = _tied_votes()
    return Case(case.inputs | {"vote_presence_prob": np.zeros((1, 2, 3))})


def draw_layer(m: Maker) -> Case:
    """A capsule layer with its features, draws and what a parent gives it."""
    batch, caps, votes, features = m.sizes(4, 2, 6)
    settings = draw_settings(m, caps, votes)
    inputs = {"features": m.normal(batch, caps, features, scale=1.0)}
    if settings["noise_type"] is not None:
        inputs["caps_noise"] = m.uniform(batch, caps, 1, low=-0.5, high=0.5)
        inputs["vote_noise"] = m.uniform(batch, caps, votes, low=-0.5, high=0.5)
    if m.flag(5):
        settings["n_caps_params"] = None
    if m.flag(3):
        settings["caps_dropout_rate"] = 0.3
        inputs["caps_mask"] = (m.rng.random((batch, caps, 1)) > 0.3).astype(np.float64)
    if m.flag(4):
        inputs["parent_transform"] = m.normal(batch, caps, 1, 3, 3, scale=1.0)
    if m.flag(4):
        inputs["parent_presence"] = m.presence(batch, caps, 1)
    return m.case({"n_features": features, "settings": settings}, terms=8 * votes * caps, **inputs)


def _image_capsule(m: Maker) -> Case:
    batch, caps, votes, features = m.sizes(4, 2, 6)
    settings = draw_settings(m, caps, votes)
    inputs = {"features": m.normal(batch, caps, features, scale=1.0),
              "x": m.normal(batch, votes, 6, scale=1.0), "presence": m.presence(batch, votes)}
    if settings["noise_type"] is not None and m.flag():
        inputs["caps_noise"] = m.uniform(batch, caps, 1, low=-0.5, high=0.5)
        inputs["vote_noise"] = m.uniform(batch, caps, votes, low=-0.5, high=0.5)
    if m.flag(4):
        settings["caps_dropout_rate"] = 0.3
        mask = (m.rng.random((batch, caps, 1)) > 0.3).astype(np.float64)
        mask[:, 0] = 1.0  # with every capsule dropped the float32 winner is arbitrary
        inputs["caps_mask"] = mask
    return m.case({"n_features": features, "settings": settings,
                   "mixing": m.choice(["faithful", "normalised"])}, terms=8 * votes * caps, **inputs)


def build_layer(lib: Any, a: dict[str, Any]) -> Any:
    """The layer of either side."""
    return lib.module("scae.object_decoder.CapsuleLayer", SCOPES["CapsuleLayer"][0],
                      **a | {"settings": lib.section("ObjDecoder", a["settings"])})


def _build_image_capsule(lib: Any, a: dict[str, Any]) -> Any:
    return lib.module("scae.object_decoder.ImageCapsule", "image_capsule",
                      **a | {"settings": lib.section("ObjDecoder", a["settings"])})


def _run_image_capsule(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    votes, flat, likelihood, caps_presence = m(**x)
    found = {name: getattr(likelihood, name) for name in LIKELIHOOD_OUT}
    return found | {"vote": votes.vote, "scale": votes.scale, "vote6": flat,
                    "dynamic_weights_l2": votes.dynamic_weights_l2, "caps_presence": caps_presence}


ROWS = (
    OpCase("scae.object_decoder.vote_log_prob", function("scae.object_decoder.vote_log_prob"), _vote_density,
           oracle=True),
    OpCase("scae.object_decoder.degrees_of_freedom", function("scae.object_decoder.degrees_of_freedom"),
           lambda m: m.case(raw=m.normal()), oracle=True),
    OpCase("scae.object_decoder.add_noise", Recipe(_run_noise), _noise, oracle=True),
    OpCase("scae.object_decoder.capsule_likelihood",
           function("scae.object_decoder.capsule_likelihood", LIKELIHOOD_OUT), _likelihood,
           (("tied votes, presence at the dummy's", _tied_votes()), ("no votes", _no_votes())),
           oracle=True),
    OpCase("scae.object_decoder.CapsuleLikelihood", module(
        "scae.object_decoder.CapsuleLikelihood", LIKELIHOOD_OUT, lambda a: a,
        lambda lib, x, a, m: m(**x)), _likelihood_module, oracle=True),
    OpCase("scae.object_decoder.CapsuleLayer", Recipe(
        lambda lib, x, a, m: m(**x), ROW_OUT, {}, CAPSULE_NOISE, build_layer,
        *SCOPES["CapsuleLayer"]), draw_layer, oracle=True),
    OpCase("scae.object_decoder.ImageCapsule", Recipe(
        _run_image_capsule, (*LIKELIHOOD_OUT, "vote", "scale", "vote6", "dynamic_weights_l2",
                             "caps_presence"), {}, CAPSULE_NOISE, _build_image_capsule,
        "image_capsule", "object_decoder."), _image_capsule, oracle=True),
)
