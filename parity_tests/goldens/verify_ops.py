"""Every op-level recording, one at a time, on one side.

float64 records are held to directly. For a float32 record the truth is a float64 run of the reference
(in the device tier of the port on the CPU; both are held to the float64 records); recording and side
under test are both float32. Used by test_goldens_ops.py and by the device tier.
"""

from __future__ import annotations

import numpy as np

from parity_tests.goldens import Record
from parity_tests.goldens.ops import RENAMED_OUTPUTS, GoldenRecipe
from parity_tests.harness import tolerances
from parity_tests.harness.compare import Where, check
from parity_tests.harness.sides import Arrays, Outcome, run


def where(record: Record, tap: str, side: str) -> Where:
    """Names for a failure message."""
    return Where(record.key, tap, f"{side} {record.dtype}", "the recording",
                 f'python -m pytest "parity_tests/tests/goldens/test_goldens_ops.py::test_record[{record.key}]"')


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
