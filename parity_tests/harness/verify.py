"""Port against reference on one example: float64, then float32, values and gradients."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from parity_tests.harness import recorder, tolerances
from parity_tests.harness.compare import ParityError, Where, check, zeros_for_none
from parity_tests.harness.reference_values import kept
from parity_tests.harness.sides import Arrays, Lib, Outcome, built, draw_cotangents, draw_variables, run, to_port
from parity_tests.harness.strategies import Case
from parity_tests.registry import OpCase

# Draws of the inputs moved by one ulp, from which the float32 bound takes their largest effect.
N_MOVES = 2


def verify(row: OpCase, case: Case, reproduce: str, strict: bool = False) -> None:
    """Compare both sides on one example.

    Every second drawn example has inputs that float32 holds exactly and is compared in both dtypes,
    the others in float64 alone; special cases in both.

    Args:
        row: the op.
        case: the example.
        reproduce: a command line for the message.
        strict: no allowance for the problem's condition. At a tie or a cell's edge an input one ulp
            away lies in another piece, so a bound that asks it would allow anything.

    Raises:
        ParityError: a value or a gradient differs by more than its bound.
    """
    verify_initial(row, case, reproduce)
    variables = kept("variables", row, case,
                     lambda: draw_variables(row.recipe, case.attributes, case.seed + 1))
    both = case.seed % 2 == 0 and not row.exact
    if both:
        case = Case({name: _round(value) for name, value in case.inputs.items()}, case.attributes,
                    case.seed, case.terms)
        variables = None if variables is None else {n: _round(v) for n, v in variables.items()}
    truth = verify64(row, case, variables, reproduce, strict)
    if both:
        verify32(row, case, variables, truth, reproduce, strict)


def verify_initial(row: OpCase, case: Case, reproduce: str) -> None:
    """A module's initial weights from the same seed are bit-equal under the original's names.

    Of a row that says `initial=False` only the names are compared.
    """
    if row.recipe.build is None:
        return
    reference, port = Lib("reference", "float32"), Lib("port", "float32")
    expected = kept("initial", row, case, lambda: {
        name: variable.numpy() for name, variable in
        built(row.recipe, reference, case.attributes).variables_by_name.items()})
    module = built(row.recipe, port, case.attributes)
    found = port.checkpoints.convert.module_arrays(module, "", row.recipe.torch_scope,
                                       any("induced" in name for name in expected),
                                       row.recipe.mapping(case.attributes))
    place = Where(row.op, "initial weights", "port float32", "reference float32", reproduce)
    if set(found) != set(expected):
        raise ParityError(f"{place.head()}\n  variables {sorted(set(found) ^ set(expected))} on one "
                          f"side only\n{place.foot()}")
    if not row.initial:
        return
    for name, (parameter, transform) in found.items():
        actual = port.checkpoints.convert.to_original(parameter.detach().numpy(), transform)
        check(Where(row.op, f"initial {name}", "port float32", "reference float32", reproduce), actual,
              expected[name], 0.0)


def verify64(row: OpCase, case: Case, variables: Arrays | None, reproduce: str, strict: bool
             ) -> Outcome:
    """float64 decides correctness; returns the reference's outcome."""
    def cotangents(outputs: Arrays) -> Arrays:
        drawn = draw_cotangents(outputs, case.seed + 2)
        return {name: _round(value) for name, value in drawn.items()}

    truth = kept("truth", row, case, lambda: run(
        "reference", row.recipe, case.inputs, case.attributes, "float64",
        None if row.exact else cotangents, variables))
    ours = run("port", row.recipe, case.inputs, case.attributes, "float64", truth.cotangents, variables)
    largest = tolerances.scale(*truth.cotangents.values(), *truth.gradients.values())
    try:
        compare64(row, ours, truth, None, largest, reproduce)
    except ParityError:
        if row.exact or strict:
            raise
        moved = moved_by_an_ulp(row, case, variables, truth.cotangents, 0, tolerances.ULP64)
        compare64(row, ours, truth, moved, largest, reproduce)
    return truth


def compare64(row: OpCase, ours: Outcome, truth: Outcome, moved: Outcome | None, largest: float,
              reproduce: str) -> None:
    """Values and gradients; `moved` widens the bounds by the problem's own condition."""
    for name, expected in truth.outputs.items():
        bound = 0.0 if row.exact else tolerances.forward64(expected, row.magnitude)
        if moved is not None:
            bound += tolerances.conditioned64(moved.outputs[name], expected)
        margin = check(where(row, name, "float64", reproduce), ours.outputs[name], expected, bound)
        recorder.margin(row.op, "forward", "float64", margin)
    for name in gradient_names(truth, ours):
        expected, actual = gradient_pair(truth, ours, name)
        bound = tolerances.gradient64(expected, largest)
        if moved is not None and moved.gradients.get(name) is not None:
            bound += tolerances.conditioned64(moved.gradients[name], expected)
        margin = check(where(row, name, "float64", reproduce), actual, expected, bound)
        recorder.margin(row.op, "gradient", "float64", margin)


def verify32(row: OpCase, case: Case, variables: Arrays | None, truth: Outcome, reproduce: str,
             strict: bool) -> None:
    """float32 measures precision, against the reference in float64 on the same inputs.

    What an ulp in the inputs does to the truth only widens the bounds, so it is asked for only where
    the bounds without it do not hold.
    """
    ours = run("port", row.recipe, case.inputs, case.attributes, "float32", truth.cotangents, variables)
    own = kept("own", row, case, lambda: run(
        "reference", row.recipe, case.inputs, case.attributes, "float32", truth.cotangents, variables))
    try:
        compare32(row, case, ours, own, truth, [], reproduce)
    except ParityError:
        if strict:
            raise
        moved = [moved_by_an_ulp(row, case, variables, truth.cotangents, i) for i in range(N_MOVES)]
        compare32(row, case, ours, own, truth, moved, reproduce)


def compare32(row: OpCase, case: Case, ours: Outcome, own: Outcome, truth: Outcome,
              moved: list[Outcome], reproduce: str) -> None:
    """Values and gradients; every outcome in `moved` widens the bounds by its effect on the truth."""
    largest = tolerances.scale(*truth.cotangents.values(), *truth.gradients.values())
    for name, expected in truth.outputs.items():
        if not np.issubdtype(expected.dtype, np.floating):
            check(where(row, name, "float32", reproduce), ours.outputs[name], own.outputs[name], 0.0)
            continue
        effect = max((tolerances.error(m.outputs[name], expected) for m in moved), default=0.0)
        bound = tolerances.forward32(expected, own.outputs[name], effect, case.terms,
                                     row.magnitude)
        margin = check(where(row, name, "float32", reproduce), ours.outputs[name],
                       _special_as(expected, own.outputs[name]), bound, "float32")
        recorder.margin(row.op, "forward", "float32", margin)
    if other_cells(row, case):
        return
    for name in gradient_names(truth, ours):
        expected, actual = gradient_pair(truth, ours, name)
        reference32 = zeros_for_none(own.gradients.get(name), expected)
        effect = max((tolerances.error(zeros_for_none(m.gradients.get(name), expected), expected)
                      for m in moved), default=0.0)
        bound = tolerances.gradient32(expected, reference32, largest, effect, case.terms)
        margin = check(where(row, name, "float32", reproduce), actual,
                       _special_as(expected, reference32), bound, "float32")
        recorder.margin(row.op, "gradient", "float32", margin)


def moved_by_an_ulp(row: OpCase, case: Case, variables: Arrays | None, cotangents: Arrays,
                    draw: int, ulp: float = tolerances.ULP32) -> Outcome:
    """The truth for inputs and variables that are each up to one ulp away."""
    rng = np.random.default_rng(case.seed + 3 + draw)

    def move(arrays: Arrays) -> Arrays:
        return {name: value if name in row.recipe.constants
                or not np.issubdtype(np.asarray(value).dtype, np.floating)
                else value * (1.0 + ulp * rng.uniform(-1, 1, np.shape(value)))
                for name, value in arrays.items()}

    with np.errstate(invalid="ignore"):
        inputs = move(case.inputs)
    return kept(("moved", draw, ulp), row, case, lambda: run(
        "reference", row.recipe, inputs, case.attributes, "float64", cotangents,
        None if variables is None else move(variables)))


def other_cells(row: OpCase, case: Case) -> bool:
    """Whether float32 falls into another piece of a piecewise op than float64 on either side."""
    if row.cells is None:
        return False
    import tensorflow as tf
    import torch
    found = []
    for side, dtype in (("reference", "float64"), ("reference", "float32"), ("port", "float32")):
        lib = Lib(side, dtype)
        x: dict[str, Any] = {}
        for name, value in case.inputs.items():
            value = np.asarray(value)
            value = value.astype(dtype) if np.issubdtype(value.dtype, np.floating) else value
            x[name] = (tf.constant(value) if side == "reference"
                       else torch.tensor(to_port(value, row.recipe.layouts.get(name))))
        with np.errstate(invalid="ignore"):
            found.append(np.floor(np.asarray(row.cells(lib, x, case.attributes))))
    return any(not np.array_equal(found[0], other, equal_nan=True) for other in found[1:])


def gradient_names(*outcomes: Outcome) -> list[str]:
    """Names for which any side has a gradient."""
    return sorted({name for outcome in outcomes for name, value in outcome.gradients.items()
                   if value is not None})


def gradient_pair(truth: Outcome, ours: Outcome, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Expected and actual; where one side has no path, its gradient counts as zeros."""
    expected, actual = truth.gradients.get(name), ours.gradients.get(name)
    if expected is None:
        return np.zeros(actual.shape, np.float64), actual
    return expected, zeros_for_none(actual, expected)


def _special_as(truth: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The truth, with nan and inf where the reference itself has them in float32."""
    with contextlib.suppress(ValueError):
        return np.where(np.isfinite(own), truth, own)
    return truth


def _round(value: np.ndarray) -> np.ndarray:
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.floating):
        return value
    with np.errstate(over="ignore"):
        return value.astype(np.float32).astype(np.float64)


def where(row: OpCase, tap: str, dtype: str, reproduce: str) -> Where:
    """Names for a failure message."""
    return Where(row.op, tap, f"port {dtype}", "reference float64", reproduce)
