"""Rows of `core/losses.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.harness.tolerances import DISTRIBUTION_MAGNITUDE
from parity_tests.registry.drawing import TERMS, WEIGHTS
from parity_tests.registry.row import OpCase


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


_PAIR = ("within", "between")
_ZEROS = (("all zero", Case({"p": np.zeros((2, 3))}, {})),)


def _section(lib: Any, weights: dict[str, float]) -> Any:
    return lib.section("Autoencoder", weights)


ROWS = (
    OpCase("core.losses.template_l1", function("core.losses.template_l1"), lambda m: m.case(
        templates=m.normal(*m.shape(1, 4))), oracle=True, magnitude=1.0),
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
)
