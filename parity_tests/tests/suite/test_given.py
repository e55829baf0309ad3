"""Parity of a pair from outside the packages (`--registry=PATH`), by default of the committed example."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container, Iterator
from pathlib import Path

import hypothesis
import pytest

from parity_tests import given
from parity_tests.harness import recorder
from parity_tests.harness.sides import ProgramError
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


@contextlib.contextmanager
def plainly() -> Iterator[None]:
    """Of a program that lacks something the message alone is shown, no line of the harness."""
    said = None
    try:
        yield
    except ProgramError as error:
        said = str(error)
    if said is not None:
        pytest.fail(said, pytrace=False)


def test_op(op: str, registry: given.Registry) -> None:
    """Random examples, forward and gradient, both dtypes."""
    row = registry.rows[op]

    @hypothesis.given(cases(row.draw, op))
    def parity(case: Case) -> None:
        recorder.example(op, case.inputs)
        verify(row, case, command(registry, op))
    with recorder.test_of(op), plainly():
        parity()


def test_special(special: tuple[str, Case], registry: given.Registry) -> None:
    """Named cases at singularities."""
    op, case = special
    with recorder.test_of(op), plainly():
        verify(registry.rows[op], case, command(registry, op), strict=True)


@pytest.mark.parametrize("side", SIDES)
def test_recording(recording: given.Recording, side: str, registry: given.Registry) -> None:
    """Each side against what the original gave."""
    with plainly():
        given.verify_recording(registry, recording, side)


def test_mutant(mutant, registry: given.Registry, already_wrong: dict[str, str],
                request: pytest.FixtureRequest) -> None:
    """A planted bug is caught by a row or by a recording that agrees without it."""
    with given.planted(registry, mutant) as mutated, recorder.aside():
        found = caught(mutated, already_wrong)
    if found or not already_wrong:
        assert found, f"mutant {mutant.id} survives: {mutant.what}"
        return
    name, difference = next(iter(already_wrong.items()))
    said = f"{name}: the port differs without any planted bug, so nothing can be said; {difference}"
    # Where that check runs too, it fails itself; alone this one must not look like agreement.
    if any(name in item.name and getattr(item, "originalname", "") != "test_mutant" for item in request.session.items):
        pytest.skip(said)
    pytest.fail(said, pytrace=False)


@pytest.fixture(scope="session")
def already_wrong(request: pytest.FixtureRequest) -> dict[str, str]:
    """The checks of mutants that fail without any, computed once."""
    with recorder.aside():
        return differences(given.load(request.config.getoption("--registry") or EXAMPLE))


def attempts(registry: given.Registry) -> Iterator[tuple[str, Callable[[], None]]]:
    """What a planted bug is held against, by name: recordings, and of each row special and drawn cases."""
    for recording in registry.recordings:
        yield recording.file, lambda recording=recording: given.verify_recording(registry, recording, "port")
    for op, row in registry.rows.items():
        for name, case in row.special:
            yield f"{op}-{name}", lambda row=row, case=case: verify(row, case, "", strict=True)

        @hypothesis.settings(max_examples=MUTANT_EXAMPLES)
        @hypothesis.given(cases(row.draw))
        def look(case: Case) -> None:
            verify(row, case, "")  # noqa: B023  # called before the next row's turn
        yield op, look


def differences(registry: given.Registry) -> dict[str, str]:
    """Which of the attempts fail, each with the first line of its error."""
    found = {}
    for name, attempt in attempts(registry):
        try:
            attempt()
        except Exception as error:  # whatever it is, this attempt can say nothing of a planted bug
            found[name] = str(error).partition("\n")[0] or type(error).__name__
    return found


def caught(registry: given.Registry, already_wrong: Container[str] = ()) -> bool:
    """Whether anything fails but what is wrong already."""
    for name, attempt in attempts(registry):
        if name in already_wrong:
            continue
        try:
            attempt()
        except Exception:  # whatever it is: without the bug this attempt ends well
            return True
    return False
