"""What `harness/hypothesis_internals.py` takes from Hypothesis does what it is taken for."""

from __future__ import annotations

import contextlib

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis import core
from hypothesis.errors import Unsatisfiable

from parity_tests.harness.hypothesis_internals import force_seed, refusals

SETTINGS = hypothesis.settings(max_examples=20, database=None, deadline=None, derandomize=False,
                               phases=[hypothesis.Phase.generate],
                               suppress_health_check=list(hypothesis.HealthCheck))


def draw_with(action) -> tuple[int, list]:
    """How many refusals are counted, and what is drawn, where `action` draws."""
    refused, drawn = [], []

    @st.composite
    def strategy(draw):
        with refusals(lambda: refused.append(1)):
            return action(draw)

    @SETTINGS
    @hypothesis.given(strategy())
    def example(value) -> None:
        drawn.append(value)

    with contextlib.suppress(Unsatisfiable):
        example()
    return len(refused), drawn


def odd(draw) -> int:
    value = draw(st.integers(0, 1000))
    hypothesis.assume(value % 2)
    return value


def test_refused_examples_are_counted() -> None:
    refused, drawn = draw_with(odd)
    assert refused > 0 and len(drawn) == SETTINGS.max_examples


def test_good_examples_are_not() -> None:
    assert draw_with(lambda draw: draw(st.integers()))[0] == 0


def test_what_the_engine_breaks_off_is_none() -> None:
    """More than an example may hold: the engine ends it in the middle, which nobody refused."""
    ended = []

    def endless(draw) -> None:
        try:
            while True:
                draw(st.binary(min_size=1000, max_size=1000))
        except BaseException:
            ended.append(1)
            raise
    refused, drawn = draw_with(endless)
    assert (refused, drawn) == (0, []) and ended


def test_a_forced_seed_repeats_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "global_force_seed", None)
    drawn = []
    for seed in (1, 1, 2):
        force_seed(seed)
        drawn.append(draw_with(lambda draw: draw(st.integers(0, 10**9)))[1])
    assert drawn[0] == drawn[1] != drawn[2]
