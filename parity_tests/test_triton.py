"""The kernel for a GPU under the checks of the other fast paths, by Triton's interpreter.

Its rows, special cases and bounds are those of `registry_fast`; `triton_side` runs the port. What the
interpreter cannot show (the compiled exponentials, products of tensor cores) waits for a GPU; that the
kernels compile for one is checked by `python -m pipelines.triton_offline`.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import replace

import hypothesis
import pytest

from parity_tests import goldens, recorder, registry
from parity_tests.mutants_triton import MUTANTS
from parity_tests.mutation import Mutant
from parity_tests.registry import OpCase
from parity_tests.strategies import Case, cases
from parity_tests.test_fast_paths import RUNS
from parity_tests.triton_side import TritonSide
from parity_tests.verify import verify
from parity_tests.verify_models import variables_of


def _installed() -> bool:
    """The tests' own process hides Triton from importlib."""
    try:
        importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _installed(), reason="Triton is not installed")
ROWS = [row for row in registry.fast_rows() if "decoder_kernel" in row.judges]
SPECIAL = [(row, name, case) for row in ROWS for name, case in row.special]
EXAMPLES = {"smoke": 1, "default": 2, "deep": 60}
WHY = "the same row by the interpreter: parity_tests/test_triton.py"


@pytest.fixture(scope="module")
def side() -> Iterator[TritonSide]:
    """One process for all tests of this file."""
    with TritonSide() as process:
        yield process


@pytest.mark.parametrize(("row", "name", "case"), SPECIAL,
                         ids=[f"{row.op}-{name}" for row, name, _ in SPECIAL])
def test_special(row: OpCase, name: str, case: Case, side: TritonSide) -> None:
    """Ties, footprints off the canvas, singular poses, absent parts, logits far apart; both dtypes."""
    with side.as_port(), recorder.aside():
        verify(row, case, WHY, strict=True)


@pytest.mark.parametrize("row", ROWS, ids=[row.op for row in ROWS])
def test_op(row: OpCase, side: TritonSide, tier: str) -> None:
    """Random examples."""
    @hypothesis.settings(max_examples=EXAMPLES[tier])
    @hypothesis.given(cases(row.draw))
    def parity(case: Case) -> None:
        verify(row, case, WHY)

    with side.as_port(), recorder.aside():
        parity()


@pytest.mark.golden
def test_recording(side: TritonSide, tier: str) -> None:
    """Loss, scalars and gradients of a committed recording, as `test_fast_paths.test_recording`."""
    runs = [run for run in RUNS if run[0].folder.is_relative_to(goldens.HERE) and run[1] == "noise"]
    for run in runs if tier == "deep" else runs[:2]:
        side.ask("recording", variables_of(run[0]), run, "default")


@pytest.mark.parametrize("name", ["described", "one graph"])
def test_whole_model(name: str, side: TritonSide) -> None:
    """The path that is printed; torch.compile takes the model with the kernel as one graph."""
    side.ask("checks", name)


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.id for mutant in MUTANTS])
def test_mutant_is_caught(mutant: Mutant, side: TritonSide, tier: str) -> None:
    """A special case says no."""
    if tier == "smoke":
        pytest.skip("smoke tier: no mutants")
    # An odd seed leaves float32 out: only overflow needs it.
    attempts = [(row, replace(case, seed=seed)) for seed in (1, 0) for row, _, case in reversed(SPECIAL)]
    with side.as_port(), side.planted(mutant.source()), recorder.aside():
        for row, case in attempts:
            try:
                verify(row, case, WHY, strict=True)
            except Exception:  # whatever it is, the mutant did not pass
                return
    pytest.fail(f"{mutant.id} survives: {mutant.what}, in {mutant.file}")
