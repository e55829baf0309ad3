"""Every op-level recording of the original program, on both sides.

float64 records are held to directly. For a float32 record the truth is the reference in float64
(itself held to the float64 records); recording and side under test are both float32.
"""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests import goldens, recorder, tolerances
from parity_tests.compare import Where, check
from parity_tests.golden_ops import (
    ELSEWHERE,
    GOLDEN_RECIPES,
    RENAMED_OUTPUTS,
    GoldenRecipe,
)
from parity_tests.goldens import Record
from parity_tests.shared_recordings import needs_shared
from parity_tests.sides import Arrays, Outcome, run

SIDES = ("reference", "port")
RECORDS = goldens.records()
# The smoke tier takes the first record of each function and dtype.
FIRST = {(r.function, r.dtype): r.key for r in reversed(RECORDS) if r.ok}

OK = [record for record in RECORDS if record.ok]
FAILED = [record for record in RECORDS if not record.ok]


def where(record: Record, tap: str, side: str) -> Where:
    """Names for a failure message."""
    return Where(record.key, tap, f"{side} {record.dtype}", "the recording",
                 f'python -m pytest "parity_tests/test_goldens_ops.py::test_record[{record.key}]"')


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


def compare_record(record: Record, golden: GoldenRecipe, arrays: dict[str, Arrays], side: str,
                   truth: Outcome | None) -> float:
    """The worst margin of one side against one record."""
    dtype = "float64" if record.dtype == "float64" else "float32"
    ours = run_record(golden, record, arrays, side, dtype)
    truth = truth or ours
    largest = tolerances.scale(*arrays["grad"].values(), *arrays["vargrad"].values(),
                               *arrays["cot"].values())
    worst = 0.0
    for name, expected in arrays["out"].items():
        tap = RENAMED_OUTPUTS.get(record.function, {}).get(name, name)
        bound = (tolerances.forward64(expected) if dtype == "float64"
                 else tolerances.forward32(truth.outputs[tap], expected))
        worst = max(worst, held(record, f"out/{name}", side, ours.outputs[tap], expected, bound))
    renamed = {f"grad/{name}": value for name, value in arrays["grad"].items()}
    renamed |= {f"vargrad/{place(golden, name)}": value for name, value in arrays["vargrad"].items()}
    for name, expected in renamed.items():
        actual, true = (of.gradients.get(name) for of in (ours, truth))
        actual, true = (np.zeros_like(expected) if v is None else v for v in (actual, true))
        bound = (tolerances.gradient64(expected, largest) if dtype == "float64"
                 else tolerances.gradient32(true, expected, largest))
        worst = max(worst, held(record, name, side, actual, expected, bound))
    # Only some manifests say which gradients the original does not have; the others may just not
    # have asked for one.
    for name in record.entry.get("no_gradient", ()):
        key = f"vargrad/{place(golden, name[4:])}" if name.startswith("var/") else f"grad/{name}"
        value = ours.gradients.get(key)
        assert value is None or not np.any(value), (
            f"{record.key}: {side} has a gradient {key}, the original none")
    return worst


def held(record: Record, tap: str, side: str, actual: np.ndarray, expected: np.ndarray,
         bound: float) -> float:
    """Compare; integer results only by value (TensorFlow counts in int64, NumPy in either)."""
    if not np.issubdtype(expected.dtype, np.floating):
        assert np.issubdtype(actual.dtype, np.integer), f"{record.key} {tap}: dtype {actual.dtype}"
        actual = actual.astype(expected.dtype)
    return check(where(record, tap, side), actual, expected, bound)


def place(golden: GoldenRecipe, name: str) -> str:
    """A recorded variable's name inside the whole model."""
    return golden.recipe.scope + name.removeprefix(golden.variable_prefix)


def run_record(golden: GoldenRecipe, record: Record, arrays: dict[str, Arrays], side: str,
               dtype: str) -> Outcome:
    """Run one record's inputs and cotangents on one side."""
    inputs, attributes = golden.adapt(dict(arrays["in"]), dict(record.entry.get("attrs") or {}))
    variables = {place(golden, name): value for name, value in arrays["var"].items()} or None
    if record.function == "TemplateBasedImageDecoder":  # has none when it is given a background
        variables[f"{golden.recipe.scope}/bg_value"] = np.zeros(1)
    renames = RENAMED_OUTPUTS.get(record.function, {})
    cotangents = {renames.get(name, name): value for name, value in arrays["cot"].items()}
    return run(side, golden.recipe, inputs, attributes, dtype, cotangents, variables)


@pytest.mark.golden
@pytest.mark.parametrize("record", FAILED, ids=[record.key for record in FAILED])
def test_failed_in_original(record: Record) -> None:
    """Records without values: say what ours does there (nothing to hold it to)."""
    if record.function == "normalized_sobel_edges":
        ours = "runs, repaired (quirk registry)"
        image = {"image": np.random.default_rng(0).random((2, 5, 6, 1))}
        from parity_tests.golden_ops import function
        for side in SIDES:
            recipe = function("preprocess.normalized_sobel_edges", layouts={"image": 1, "out": 1})
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
