"""Hypothesis parity of every public op and module: forward and gradient, float64 and float32."""

from __future__ import annotations

import hypothesis
import pytest

from parity_tests import registry
from parity_tests.harness import recorder
from parity_tests.harness.strategies import Case, cases
from parity_tests.harness.verify import verify
from parity_tests.registry import OpCase

ROWS = [row for row in registry.rows().values() if row.tested_by == "test_ops.py"]
MAX_DISCARDED = 0.1
SPECIAL = [(row, name, case) for row in ROWS for name, case in row.special]


@pytest.mark.parametrize("row", ROWS, ids=[row.op for row in ROWS])
def test_op(row: OpCase, request: pytest.FixtureRequest) -> None:
    """Random examples of one op."""
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/tests/ops/test_ops.py::test_op[{row.op}]" --tier={tier}'
    seed = getattr(request.config, "parity_seed", None)
    reproduce += f" --hypothesis-seed={seed}" if seed is not None else ""

    @hypothesis.given(cases(row.draw, row.op))
    def parity(case: Case) -> None:
        recorder.example(row.op, case.inputs)
        verify(row, case, reproduce)

    with recorder.test_of(row.op):
        parity()
        share = recorder.discarded_share(recorder.op_entry(row.op))
        assert share <= MAX_DISCARDED, f"{row.op}: {share:.0%} of the examples discarded"


@pytest.mark.parametrize(("row", "name", "case"), SPECIAL,
                         ids=[f"{row.op}-{name}" for row, name, _ in SPECIAL])
def test_special(row: OpCase, name: str, case: Case) -> None:
    """Ties, singularities, infinities and not-a-number, one named case each."""
    with recorder.test_of(row.op):
        verify(row, case, f'python -m pytest "parity_tests/tests/ops/test_ops.py::test_special[{row.op}-{name}]"',
           strict=True)
