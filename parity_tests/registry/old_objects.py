"""Rows of `object_decoder`, `losses` and `probe`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import _LAYER_OUT, _LIKELIHOOD_OUT, SCOPES, function, module
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.harness.tolerances import DISTRIBUTION_MAGNITUDE
from parity_tests.registry import OpCase

LIKELIHOOD_OUT = _LIKELIHOOD_OUT
LAYER_OUT = (*_LAYER_OUT, "all_params")


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


def _settings(m: Maker, caps: int, votes: int) -> dict[str, Any]:
    return {"n_caps": caps, "n_caps_dims": 2, "n_votes": votes, "n_caps_params": m.size(2, 5),
            "n_hiddens": m.choice([4, [3, 5], 7]), "learn_vote_scale": m.flag(),
            "deformations": m.flag(3) is False, "noise_type": m.choice(["uniform", "logistic", None]),
            "noise_scale": 4.0, "similarity_transform": m.flag(), "caps_dropout_rate": 0.0}


def _layer(m: Maker) -> Case:
    batch, caps, votes, features = m.sizes(4, 2, 6)
    settings = _settings(m, caps, votes)
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
    settings = _settings(m, caps, votes)
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


def _build_layer(lib: Any, a: dict[str, Any]) -> Any:
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


CAPSULE_NOISE = ("caps_noise", "vote_noise", "caps_mask")


def _presences(m: Maker) -> np.ndarray:
    batch, caps = m.sizes(2, 2, 8)
    return m.probability(batch, caps)


def _sparsity(m: Maker) -> Case:
    p = _presences(m)
    return m.case(terms=p.size, p=p)


def _l2(m: Maker) -> Case:
    p = _presences(m)
    return m.case({"num_classes": m.choice([10.0, 2.0, 7.0]),
                   "within_example_constant": m.choice([0.0, 0.0, 4.3])}, terms=p.size, p=p)


def _any_sparsity(m: Maker) -> Case:
    case = _l2(m)
    case.attributes["loss_type"] = m.choice(["entropy", "kl", "l2"])
    return case


def _tensor(m: Maker) -> Case:
    x = m.normal(*m.shape())
    return m.case(terms=x.size, x=x)


def _weights(m: Maker) -> Case:
    first, second = m.normal(*m.shape(2, 2)), m.normal(*m.shape(1, 3))
    return m.case(terms=first.size + second.size, first=first, second=second)


TERMS = ("rec_ll", "log_prob", "dynamic_weights_l2", "primary_caps_l1",
         "posterior_within_sparsity_loss", "posterior_between_sparsity_loss",
         "prior_within_sparsity_loss", "prior_between_sparsity_loss", "template_l1", "rec_mse",
         "weight_decay_loss", "posterior_cls_xe", "prior_cls_xe")
WEIGHTS = ("caps_ll_weight", "dynamic_l2_weight", "primary_caps_sparsity_weight", "weight_decay",
           "posterior_within_example_sparsity_weight", "posterior_between_example_sparsity_weight",
           "prior_within_example_sparsity_weight", "prior_between_example_sparsity_weight",
           "rec_ll_weight", "template_l1_weight", "mse_weight")
# Terms that a weight of 0 leaves out: each is drawn at 0, between 0 and 1, and above.
OPTIONAL_WEIGHTS = ("template_l1_weight", "mse_weight")


def _total(m: Maker) -> Case:
    names = TERMS[:-2] if m.flag(3) else TERMS
    weights = {name: float(m.rng.uniform(0.1, 3.0)) for name in WEIGHTS}
    weights |= {name: m.choice([0.0, 0.4, 2.0]) for name in OPTIONAL_WEIGHTS}
    return m.case({"weights": weights}, terms=len(names), **{name: m.normal() for name in names})


def _optional_terms(*weights: float) -> Case:
    """Every term is 1, apart from the weights of the optional ones all weights are 1."""
    return Case({name: np.ones(()) for name in TERMS}, {"weights": dict.fromkeys(WEIGHTS, 1.0) | dict(
        zip(OPTIONAL_WEIGHTS, weights))}, terms=len(TERMS))


def _probe(m: Maker) -> Case:
    batch, features, classes = m.sizes(3, 2, 7)
    inputs = {"features": m.normal(batch, features), "labels": m.rng.integers(0, classes, batch)}
    if m.flag():
        kind = m.choice(["bool", "int64", "float64"])
        drawn = m.rng.random(batch) if kind == "float64" else m.rng.random(batch) > 0.4
        inputs["labeled"] = drawn.astype(kind)
    return m.case({"n_features": features, "n_classes": classes}, terms=max(features, batch), **inputs)


_PAIR = ("within", "between")
_ZEROS = (("all zero", Case({"p": np.zeros((2, 3))}, {})),)
ROWS = (
    OpCase("scae.object_decoder.capsule_likelihood",
           function("scae.object_decoder.capsule_likelihood", LIKELIHOOD_OUT), _likelihood,
           (("tied votes, presence at the dummy's", _tied_votes()), ("no votes", _no_votes())),
           oracle=True),
    OpCase("scae.object_decoder.CapsuleLikelihood", module(
        "scae.object_decoder.CapsuleLikelihood", LIKELIHOOD_OUT, lambda a: a,
        lambda lib, x, a, m: m(**x)), _likelihood_module, oracle=True),
    OpCase("scae.object_decoder.CapsuleLayer", Recipe(
        lambda lib, x, a, m: m(**x), LAYER_OUT, {}, CAPSULE_NOISE, _build_layer,
        *SCOPES["CapsuleLayer"]), _layer, oracle=True),
    OpCase("scae.object_decoder.ImageCapsule", Recipe(
        _run_image_capsule, (*LIKELIHOOD_OUT, "vote", "scale", "vote6", "dynamic_weights_l2",
                             "caps_presence"), {}, CAPSULE_NOISE, _build_image_capsule,
        "image_capsule", "object_decoder."), _image_capsule, oracle=True),
    OpCase("core.losses.capsule_entropy", function("core.losses.capsule_entropy", _PAIR), _sparsity, _ZEROS,
           oracle=True, magnitude=DISTRIBUTION_MAGNITUDE),
    OpCase("core.losses.neg_capsule_kl", function("core.losses.neg_capsule_kl", _PAIR), _sparsity, _ZEROS,
           oracle=True, magnitude=DISTRIBUTION_MAGNITUDE),
    OpCase("core.losses.capsule_presence_l2", function("core.losses.capsule_presence_l2", _PAIR), _l2,
           oracle=True),
    OpCase("core.losses.sparsity_loss", function("core.losses.sparsity_loss", _PAIR), _any_sparsity, oracle=True,
           magnitude=DISTRIBUTION_MAGNITUDE),
    OpCase("core.losses.l2_loss", function("core.losses.l2_loss"), _tensor, oracle=True),
    OpCase("core.losses.weight_decay_loss", Recipe(
        lambda lib, x, a, _: lib.core.losses.weight_decay_loss([x["first"], x["second"]])), _weights,
        oracle=True),
    OpCase("core.losses.total_loss", Recipe(
        lambda lib, x, a, _: lib.core.losses.total_loss(x, _section(lib, a["weights"]))), _total,
        (("small weights", _optional_terms(0.4, 0.3)), ("one left out", _optional_terms(0.0, 0.3)),
         ("the other", _optional_terms(0.4, 0.0))), oracle=True),
    OpCase("core.probe.ClassificationProbe", module(
        "core.probe.ClassificationProbe", ("logits", "xe", "acc"), lambda a: a,
        lambda lib, x, a, m: m(**x), constants=("labels", "labeled")), _probe, (
            ("tied logits", Case({"features": np.zeros((2, 3)), "labels": np.array([0, 1])},
                                 {"n_features": 3, "n_classes": 4})),), oracle=True),
)


def _section(lib: Any, weights: dict[str, float]) -> Any:
    return lib.section("Autoencoder", weights)
