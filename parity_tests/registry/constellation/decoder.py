"""Rows of `constellation/decoder.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import LIKELIHOOD_OUT, function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import CAPSULE_NOISE, draw_settings
from parity_tests.registry.row import OpCase


def _presences(m: Maker) -> Case:
    batch, caps, votes = m.sizes(3, 2, 6)
    return m.case({"n_caps": caps}, vote_presence=m.presence(batch, caps * votes, exact=False))


def _tied_presences() -> Case:
    return Case({"vote_presence": np.array([[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]])}, {"n_caps": 2})


def decoder_settings(m: Maker, caps: int, votes: int, klass: str) -> dict[str, Any]:
    """Every setting of the section `obj_decoder`."""
    settings = draw_settings(m, caps, votes) | {"klass": klass, "pdf": m.choice(["normal", "student"])}
    return settings | {"noise_type": m.choice(["uniform", "logistic", "normal", None])}


def _decoder(m: Maker, klass: str) -> Case:
    batch, caps, votes, points = m.sizes(4, 2, 5)
    features = m.size(3, 6)
    settings = decoder_settings(m, caps, votes, klass)
    inputs = {"features": m.normal(batch, caps, features, scale=1.0),
              "x": m.normal(batch, points, 2, scale=1.0)}
    if m.flag(4) is False:
        inputs["presence"] = (m.rng.random((batch, points)) > 0.3).astype(np.float64)
    if settings["noise_type"] is not None and m.flag():
        inputs["caps_noise"] = m.uniform(batch, caps, 1, low=-0.5, high=0.5)
        inputs["vote_noise"] = m.uniform(batch, caps, votes, low=-0.5, high=0.5)
    if klass == "ConstellationCapsule" and m.flag(4):
        settings["caps_dropout_rate"] = 0.3
        mask = (m.rng.random((batch, caps, 1)) > 0.3).astype(np.float64)
        mask[:, 0] = 1.0  # with every capsule dropped the float32 winner is arbitrary
        inputs["caps_mask"] = mask
    chosen = [repair for repair in ("Q31", "Q32", "Q33") if m.flag(4)]
    return m.case({"n_features": features, "settings": settings, "repairs": chosen},
                  terms=16 * votes * caps * points, **inputs)


def _build(name: str, scope: str) -> Any:
    def build(lib: Any, a: dict[str, Any]) -> Any:
        settings = a["settings"]
        if lib.side == "port":
            settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
            settings = lib.constellation.config.VoteDecoder(**settings)
        return lib.module(f"constellation.decoder.{name}", scope, **a | {
            "settings": settings, "repairs": tuple(a["repairs"])})
    return build


EXPLAINED = ("vote", "scale", "vote_presence_prob", "pres_logit_per_caps", "pres_logit_per_vote",
             "dynamic_weights_l2", "mixing_kl", "sparsity_loss", "caps_presence_prob", "all_params")


def _run_decoder(fields: tuple[str, ...]) -> Any:
    def call(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
        explained = m(**x)
        found = {name: getattr(explained, name) for name in fields}
        return found | {name: getattr(explained.likelihood, name) for name in LIKELIHOOD_OUT}
    return call


def _decoder_row(name: str, scope: str, fields: tuple[str, ...]) -> OpCase:
    recipe = Recipe(_run_decoder(fields), (*LIKELIHOOD_OUT, *fields), {}, CAPSULE_NOISE,
                    _build(name, scope), scope, f"{scope}.")
    return OpCase(f"constellation.decoder.{name}", recipe, lambda m: _decoder(m, name), oracle=True)


ROWS = (
    OpCase("constellation.decoder.caps_presence", function("constellation.decoder.caps_presence"),
           _presences, (("tied", _tied_presences()),), oracle=True),
    _decoder_row("ConstellationCapsule", "constellation_capsule",
                 (*EXPLAINED, "raw_caps_params", "raw_caps_features", "transform")),
    _decoder_row("ConstellationDecoder", "constellation_decoder", EXPLAINED),
)
