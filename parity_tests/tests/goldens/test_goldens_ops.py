"""Every op-level recording of the original program, on both sides.

How one is compared stands in `verify_ops`.
"""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests import goldens
from parity_tests.goldens import Record
from parity_tests.goldens.ops import ELSEWHERE, GOLDEN_RECIPES
from parity_tests.goldens.shared import needs_shared
from parity_tests.goldens.verify_ops import compare_record, run_record
from parity_tests.harness import recorder
from parity_tests.harness.sides import run

SIDES = ("reference", "port")
RECORDS = goldens.records()
# The smoke tier takes the first record of each function and dtype.
FIRST = {(r.function, r.dtype): r.key for r in reversed(RECORDS) if r.ok}

OK = [record for record in RECORDS if record.ok]
FAILED = [record for record in RECORDS if not record.ok]


@pytest.mark.golden
@pytest.mark.parametrize("record", OK, ids=[record.key for record in OK])
def test_record(record: Record, tier: str) -> None:
    """Outputs and gradients of one record, reference and port."""
    if tier == "smoke" and record.key not in FIRST.values():
        pytest.skip("smoke tier: one record a function and dtype")
    if record.function in ELSEWHERE:
        recorder.golden(record.key, "op", None, "elsewhere", ELSEWHERE[record.function])
        pytest.skip(f"evaluation record, compared in {ELSEWHERE[record.function]}")
    if record.function not in GOLDEN_RECIPES:
        recorder.golden(record.key, "op", None, "skipped", "no recipe for this function")
        pytest.skip(f"no recipe for {record.function}")
    recorder.golden(record.key, "op", None, "fail")
    golden, arrays = GOLDEN_RECIPES[record.function], record.arrays()
    truth = (None if record.dtype == "float64"
             else run_record(golden, record, arrays, "reference", "float64"))
    worst = max(compare_record(record, golden, arrays, side, truth) for side in SIDES)
    recorder.golden(record.key, "op", worst, "pass")


@pytest.mark.golden
@pytest.mark.parametrize("record", FAILED, ids=[record.key for record in FAILED])
def test_failed_in_original(record: Record) -> None:
    """Records without values: say what ours does there (nothing to hold it to)."""
    if record.function == "normalized_sobel_edges":
        ours = "runs, repaired (quirk registry)"
        image = {"image": np.random.default_rng(0).random((2, 5, 6, 1))}
        from parity_tests.goldens.ops import function
        for side in SIDES:
            recipe = function("core.preprocess.normalized_sobel_edges", layouts={"image": 1, "out": 1})
            out = run(side, recipe, image, {}, "float64").outputs["out"]
            assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    else:
        patched = [r for r in OK if r.function == record.function and r.dtype == "float64"
                   and r.entry.get("case") == record.entry.get("case")]
        ours = (f"runs in float64, held to {patched[0].key}" if patched
                else "runs in float64, held to the reference by the property tests")
    recorder.failure_in_original(record.key, record.entry["status"], ours)


@pytest.mark.golden
@pytest.mark.parametrize("name", needs_shared(goldens.EXPECTED_OPS, goldens.discover().get))
def test_is_here(name: str) -> None:
    """A folder of op records that is not here is reported with its place."""
    reasons = dict(goldens.missing())
    if name in reasons:
        recorder.golden(name, "folder", None, "skipped", reasons[name])
        pytest.skip(reasons[name])
