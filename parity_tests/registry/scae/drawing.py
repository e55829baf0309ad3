"""What the rows of `scae/` share."""

from __future__ import annotations

from typing import Any

from parity_tests.harness.strategies import Case, Maker


def draw_total(m: Maker, terms: tuple[str, ...], weights: tuple[str, ...]) -> Case:
    drawn = {name: float(m.rng.uniform(0.1, 3.0)) for name in weights}
    if "mse_weight" in drawn:  # at 0 the term is left out
        drawn["mse_weight"] = m.choice([0.0, 0.4, 2.0])
    return m.case({"weights": drawn}, terms=len(terms), **{name: m.normal() for name in terms})


def run_total(op: str, section: str) -> Any:
    def call(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
        weights = a["weights"] if lib.side == "reference" else getattr(
            lib.scae.config_modes, section)(**a["weights"])
        return lib.get(op)(x, weights)
    return call
