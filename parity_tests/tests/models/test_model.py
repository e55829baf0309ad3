"""End to end: whole models under drawn configurations, every tap, gradient and optimizer step."""

from __future__ import annotations

import hypothesis
import pytest

from parity_tests.drawn.models import OP, SPECIAL, ModelCase, draw_model
from parity_tests.drawn.verify import verify_model
from parity_tests.harness import covering, recorder
from parity_tests.harness.strategies import cases

# Settings that hypothesis rarely draws together are spread over parts, one test each, so that
# workers share them.
PARTS = 4
# What the smoke tier leaves out of each model.
SMOKE = {"float32": False, "n_steps": 1}


def model_cases() -> hypothesis.strategies.SearchStrategy[ModelCase]:
    """A strategy of whole models."""
    return cases(draw_model, OP)


@pytest.mark.parametrize("part", range(PARTS))
def test_model(part: int, model_examples: int, request: pytest.FixtureRequest) -> None:
    """A share of the drawn configurations."""
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/tests/models/test_model.py::test_model[{part}]" --tier={tier}'
    effort = SMOKE if tier == "smoke" else {}

    @hypothesis.settings(max_examples=max(model_examples // PARTS, 1))
    @hypothesis.seed(part)
    @hypothesis.given(model_cases())
    def parity(case: ModelCase) -> None:
        verify_model(case, reproduce, **effort)

    @hypothesis.settings(max_examples=max(model_examples // PARTS, 1))
    @hypothesis.given(model_cases())
    def random_parity(case: ModelCase) -> None:
        verify_model(case, reproduce)

    with recorder.test_of(OP):
        (random_parity if tier == "deep" else parity)()


@pytest.mark.parametrize("index", range(len(SPECIAL)))
def test_covering(index: int, tier: str) -> None:
    """The fixed configurations that hold every value of every option; float64 in the smoke tier."""
    reproduce = f'python -m pytest "parity_tests/tests/models/test_model.py::test_covering[{index}]"'
    with recorder.test_of(OP):
        verify_model(SPECIAL[index], reproduce, **(SMOKE if tier == "smoke" else {}))


def test_covering_is_complete() -> None:
    """Every value stands in a row, and nearly every pair of values."""
    rows = covering.rows()
    for name, values in covering.FACTORS.items():
        missing = [value for value in values if value not in [row[name] for row in rows]]
        assert not missing, f"{name}: no row with {missing}"
    assert covering.pair_coverage(rows) > 0.9
