"""Rows of `constellation/likelihood.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import LIKELIHOOD_OUT, function, module
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


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


ROWS = (
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
)
