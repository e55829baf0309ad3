"""Parity of a pair from outside the packages (`--registry=PATH`), by default of the committed example."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from parity_tests import given
from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError
from parity_tests.harness.strategies import Case, cases
from parity_tests.harness.verify import verify

EXAMPLE = Path(__file__).parents[2] / "examples" / "gated_attention" / "registry.py"
SIDES = ("reference", "port")
MUTANT_EXAMPLES = 6


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Rows, special cases, recordings and mutants of the registry file."""
    wanted = {"op", "special", "recording", "mutant"} & set(metafunc.fixturenames)
    if not wanted:
        return
    found = given.load(metafunc.config.getoption("--registry") or EXAMPLE)
    kinds = {"op": {op: op for op in found.rows},
             "special": {f"{op}-{name}": (op, case) for op, row in found.rows.items()
                         for name, case in row.special},
             "recording": {each.file: each for each in found.recordings},
             "mutant": {each.id: each for each in found.mutants}}
    for kind in wanted:
        metafunc.parametrize(kind, list(kinds[kind].values()), ids=list(kinds[kind]))


@pytest.fixture
def registry(request: pytest.FixtureRequest) -> given.Registry:
    return given.load(request.config.getoption("--registry") or EXAMPLE)


def command(registry: given.Registry, name: str) -> str:
    """The line that runs one test again."""
    return f'python -m pytest --registry="{os.path.relpath(registry.path)}" -k "{name}"'


def test_op(op: str, registry: given.Registry) -> None:
    """Random examples, forward and gradient, both dtypes."""
    row = registry.rows[op]

    @hypothesis.given(cases(row.draw, op))
    def parity(case: Case) -> None:
        recorder.example(op, case.inputs)
        verify(row, case, command(registry, op))
    with recorder.test_of(op):
        parity()


def test_special(special: tuple[str, Case], registry: given.Registry) -> None:
    """Named cases at singularities."""
    op, case = special
    with recorder.test_of(op):
        verify(registry.rows[op], case, command(registry, op), strict=True)


@pytest.mark.parametrize("side", SIDES)
def test_recording(recording: given.Recording, side: str, registry: given.Registry) -> None:
    """Each side against what the original gave."""
    given.verify_recording(registry, recording, side)


def test_mutant(mutant, registry: given.Registry) -> None:
    """A planted bug is caught by a row or by a recording."""
    with given.planted(registry, mutant), recorder.aside():
        assert caught(registry), f"mutant {mutant.id} survives: {mutant.what}"


def caught(registry: given.Registry) -> bool:
    """Whether anything fails."""
    def attempts():
        for recording in registry.recordings:
            yield lambda recording=recording: given.verify_recording(registry, recording, "port")
        for row in registry.rows.values():
            for _, case in row.special:
                yield lambda row=row, case=case: verify(row, case, "", strict=True)

            @hypothesis.settings(max_examples=MUTANT_EXAMPLES)
            @hypothesis.given(cases(row.draw))
            def look(case: Case) -> None:
                verify(row, case, "")  # noqa: B023  # called before the next row's turn
            yield look
    for attempt in attempts():
        try:
            attempt()
        except ParityError:
            return True
    return False
