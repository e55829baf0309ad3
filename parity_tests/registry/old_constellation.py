"""Rows of the constellation model, and of what it brings to shared rooms (Student's t, noise)."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import _LIKELIHOOD_OUT as LIKELIHOOD_OUT
from parity_tests.goldens.ops import function, module
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry import OpCase
from parity_tests.registry.old_objects import CAPSULE_NOISE, TERMS, WEIGHTS, _settings

N_PATTERNS = 4
DRAWS = ("angle", "scale", "translation", "presence", "order", "noise")
POINTS = ("corners", "presence", "pattern_presence", "pattern_id")


def _density(m: Maker) -> Case:
    shape = m.shape(1, 3)
    return m.case(x=m.normal(*shape), loc=m.normal(*shape), df=m.uniform(low=2.1, high=9.0),
                  scale=m.uniform(*shape, low=0.05, high=2.0))


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


def _block(m: Maker) -> Case:
    settings = {"drop_prob": m.choice([0.5, 0.0, 0.9]), "gaussian_noise": m.choice([0.0, 0.0, 0.1]),
                "max_translation": m.choice([1.0, 0.3]), "rotation_percent": m.choice([0.5, 1.0, 0.0]),
                "max_upscale": m.choice([3.0, 0.0])}
    slots = [m.size(0, N_PATTERNS - 1) for _ in range(m.size(1, 4))]
    return m.case({"seed": m.seed, "size": m.size(1, 6), "slots": slots, "settings": settings})


def _draws(lib: Any, a: dict[str, Any]) -> Any:
    return lib.constellation.data.draw(np.random.RandomState(a["seed"]), a["size"], a["slots"],
                                       **a["settings"])


def _run_draw(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    found = _draws(lib, a)._asdict()
    return found | {"noise": np.zeros(0) if found["noise"] is None else found["noise"]}


def _run_assemble(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.data.assemble(_draws(lib, a), a["slots"])


def _run_create(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.data.create(np.random.RandomState(a["seed"]), a["size"], a["slots"],
                                         **a["settings"])


def _unordered(m: Maker, dims: int = 2) -> tuple[int, dict[str, np.ndarray], float]:
    batch, caps, n_votes, points = m.sizes(4, 2, 6)
    votes = caps * n_votes
    inputs = {"votes": m.normal(batch, votes, dims, scale=1.0),
              "scales": m.uniform(batch, votes, low=0.05, high=2.0),
              "vote_presence_prob": m.presence(batch, votes), "x": m.normal(batch, points, dims, scale=1.0)}
    if m.flag(4) is False:
        inputs["presence"] = m.presence(batch, points)
    return n_votes, inputs, dims * points * (votes + 1)


def _likelihood(m: Maker) -> Case:
    n_votes, inputs, terms = _unordered(m, m.choice([2, 3]))
    if m.flag():
        inputs["df"] = m.uniform(low=2.1, high=9.0)
    return m.case({"n_votes": n_votes}, terms=terms, **inputs)


def _run_likelihood(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.likelihood.order_invariant_likelihood(
        **{"presence": None, "df": None, **x}, **a)


def _likelihood_module(m: Maker) -> Case:
    n_votes, inputs, terms = _unordered(m)
    return m.case({"n_votes": n_votes, "pdf": m.choice(["normal", "student"])}, terms=terms, **inputs)


def _tied() -> Case:
    """Two capsules with the same votes, presences at the dummy's; a point that is absent."""
    rng = np.random.default_rng(6)
    votes = np.tile(rng.standard_normal((1, 2, 2)), (1, 2, 1))
    return Case({"votes": votes, "scales": np.ones((1, 4)), "vote_presence_prob": np.full((1, 4), 0.01),
                 "x": rng.standard_normal((1, 3, 2)), "presence": np.array([[0.0, 1.0, 1.0]])},
                {"n_votes": 2})


def _no_votes() -> Case:
    case = _tied()
    return Case(case.inputs | {"vote_presence_prob": np.zeros((1, 4))}, case.attributes)


def _mixing(m: Maker) -> Case:
    logits = m.logits(*m.sizes(2, 2, 7))
    shifted = logits - logits.max(-1, keepdims=True)
    normal = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return m.case({"n_states": m.size(2, 11)}, terms=logits.shape[1], mixing_logits=logits,
                  mixing_log_prob=normal)


def _usage(m: Maker) -> Case:
    batch, points, caps = m.sizes(3, 2, 7)
    inputs = {"is_from_capsule": m.rng.integers(0, caps, (batch, points)),
              "pres_logit": m.normal(batch, caps)}
    if m.flag(4) is False:
        inputs["presence"] = (m.rng.random((batch, points)) > 0.4).astype(np.float64)
    return m.case(terms=caps, **inputs)


def _run_usage(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.constellation.likelihood.usage_loss(
        x["is_from_capsule"], x.get("presence"), x["pres_logit"])


def _one_win() -> Case:
    """A capsule that wins one point, one that wins two, one that wins none; logits at 0."""
    return Case({"is_from_capsule": np.array([[0, 1, 1, 2]]), "pres_logit": np.zeros((1, 3)),
                 "presence": np.array([[1.0, 1.0, 1.0, 0.0]])})


def _presences(m: Maker) -> Case:
    batch, caps, votes = m.sizes(3, 2, 6)
    return m.case({"n_caps": caps}, vote_presence=m.presence(batch, caps * votes, exact=False))


def _tied_presences() -> Case:
    return Case({"vote_presence": np.array([[1.0, 1.0, 0.0, 0.0, 0.0, 1.0]])}, {"n_caps": 2})


def decoder_settings(m: Maker, caps: int, votes: int, klass: str) -> dict[str, Any]:
    """Every setting of the section `obj_decoder`."""
    settings = _settings(m, caps, votes) | {"klass": klass, "pdf": m.choice(["normal", "student"])}
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


LOSS_TERMS = ("log_prob", "sparsity_loss", "mixing_kl", *(n for n in TERMS if n.startswith(
    ("dynamic", "posterior_within", "posterior_between", "prior_within", "prior_between"))))
LOSS_WEIGHTS = ("sparsity_weight", "mixing_kl_weight", *(n for n in WEIGHTS if n.startswith(
    ("dynamic", "prior", "posterior"))))


def _total(m: Maker) -> Case:
    weights = {name: float(m.rng.uniform(0.1, 3.0)) for name in LOSS_WEIGHTS}
    return m.case({"weights": weights, "with_mixing_kl": m.flag(3)}, terms=len(LOSS_TERMS),
                  **{name: m.normal() for name in LOSS_TERMS})


def _run_total(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    weights = a["weights"]
    if lib.side == "port":
        weights = lib.constellation.config.ConstellationLosses(**weights)
    return lib.constellation.model.total_loss(x, weights, a["with_mixing_kl"])


ROWS = (
    OpCase("core.mixture.student_log_prob", function("core.mixture.student_log_prob"), _density, oracle=True),
    OpCase("scae.object_decoder.vote_log_prob", function("scae.object_decoder.vote_log_prob"), _vote_density,
           oracle=True),
    OpCase("scae.object_decoder.degrees_of_freedom", function("scae.object_decoder.degrees_of_freedom"),
           lambda m: m.case(raw=m.normal()), oracle=True),
    OpCase("scae.object_decoder.add_noise", Recipe(_run_noise), _noise, oracle=True),
    OpCase("constellation.data.draw", Recipe(_run_draw, DRAWS), _block, exact=True),
    OpCase("constellation.data.slot_of_point", Recipe(
        lambda lib, x, a, _: lib.constellation.data.slot_of_point(a["slots"])), _block, exact=True),
    OpCase("constellation.data.assemble", Recipe(_run_assemble, POINTS), _block, exact=True),
    OpCase("constellation.data.create", Recipe(_run_create, POINTS), _block, exact=True, oracle=True),
    OpCase("constellation.likelihood.order_invariant_likelihood", Recipe(_run_likelihood, LIKELIHOOD_OUT),
           _likelihood, (("tied votes, presence at the dummy's", _tied()), ("no votes", _no_votes())),
           oracle=True),
    OpCase("constellation.likelihood.OrderInvariantCapsuleLikelihood", module(
        "constellation.likelihood.OrderInvariantCapsuleLikelihood", LIKELIHOOD_OUT, lambda a: a,
        lambda lib, x, a, m: m(**x)), _likelihood_module, oracle=True),
    OpCase("constellation.likelihood.mixing_kl", function("constellation.likelihood.mixing_kl"), _mixing,
           oracle=True, magnitude=1.0),
    OpCase("constellation.likelihood.usage_loss", Recipe(_run_usage, constants=("presence",)), _usage,
           (("one, two and no win, logits 0", _one_win()),), oracle=True),
    OpCase("constellation.decoder.caps_presence", function("constellation.decoder.caps_presence"),
           _presences, (("tied", _tied_presences()),), oracle=True),
    _decoder_row("ConstellationCapsule", "constellation_capsule",
                 (*EXPLAINED, "raw_caps_params", "raw_caps_features", "transform")),
    _decoder_row("ConstellationDecoder", "constellation_decoder", EXPLAINED),
    OpCase("constellation.model.total_loss", Recipe(_run_total), _total, oracle=True),
    OpCase("constellation.model.ConstellationAutoencoder", tested_by="test_constellation.py",
           note="every tap, gradient and optimizer step under drawn configurations"),
)
