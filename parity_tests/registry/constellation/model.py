"""Rows of `constellation/model.py`."""

from __future__ import annotations

from typing import Any

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import TERMS, WEIGHTS
from parity_tests.registry.row import OpCase

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
    OpCase("constellation.model.total_loss", Recipe(_run_total), _total, oracle=True),
    OpCase("constellation.model.ConstellationAutoencoder", tested_by="test_constellation.py",
           note="every tap, gradient and optimizer step under drawn configurations"),
)
