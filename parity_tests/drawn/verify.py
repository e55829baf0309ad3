"""Port against reference on one whole model: initial weights, taps, gradients, optimizer steps.

`verify_model(case)` needs no pytest: the mutation tests call it too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from parity_tests.drawn.models import N_STEPS, OP, ModelCase
from parity_tests.harness import models, recorder, tolerances
from parity_tests.harness.compare import ParityError, Where, check, zeros_for_none
from parity_tests.harness.models import ModelOutcome
from parity_tests.harness.reference_values import kept
from parity_tests.harness.sides import Arrays

# Runs of the truth with inputs an ulp away. One number upstream can carry most of a tap's error, and
# the ratio of two single errors is often large: three draws make a small maximum rare.
N_MOVES = 3
LR = 1e-3
RMSPROP = {"decay": 0.9, "momentum": 0.9, "epsilon": 6.25e-4}


def draw_weights(case: ModelCase) -> Arrays:
    """The initial weights, moved away from zeros and ones (biases, alpha, layer norms)."""
    rng = np.random.default_rng(case.seed + 1)
    model = models.build("reference", case.arguments, "float32", case.seed)
    return {name: (value + 0.15 * rng.standard_normal(value.shape)).astype(np.float32)
            for name, value in models.variables_of("reference", model).items()}


def verify_model(case: ModelCase, reproduce: str = "verify_model(case)", float32: bool = True,
                 n_steps: int = N_STEPS) -> None:
    """Initial weights, every tap, all gradients, optimizer steps; float64, then float32.

    Args:
        case: the configuration and its data.
        reproduce: a command line for the message.
        float32: compare in float32 too.
        n_steps: optimizer steps.

    Raises:
        ParityError: with the first tap, gradient or variable that differs.
    """
    recorder.example(case.op, {"images": case.images})
    verify_initial(case, reproduce)
    weights = kept("weights", OP, case, lambda: draw_weights(case))
    expected = kept(("steps", n_steps), OP, case, lambda: reference_updates(case, weights, n_steps))
    ours = Training(case, "port", weights)
    outcome = ours.outcome(0)
    verify64(case, {"reference": expected[0].outcome, "port": outcome}, weights, reproduce)
    if float32:
        verify32(case, weights, expected[0].outcome, reproduce)
    verify_updates(case, ours, outcome, expected, reproduce)


class Training:
    """RMSProp steps of one side in float64, each in two halves: `outcome`, then `update` with it.

    An update may change the memory that an outcome looks at, so that is used or copied before.
    """

    def __init__(self, case: ModelCase, side: str, weights: Arrays) -> None:
        self.case, self.side = case, side
        self.model = models.build(side, case.arguments, "float64", case.seed)
        models.load(side, self.model, weights)
        self.step = models.optimizer_step(side, self.model, LR, RMSPROP, {})

    def outcome(self, i: int) -> ModelOutcome:
        """Forward and backward on the data of step i: of the first every tap, of others loss and gradients."""
        return run(self.case, self.side, self.model, "float64", i, taps=i == 0)

    def update(self, outcome: ModelOutcome) -> Arrays:
        """The variables after one step along the outcome's gradients."""
        self.step(outcome)
        return models.variables_of(self.side, self.model)


class Update(NamedTuple):
    """The outcome before an update and the variables after it."""

    outcome: ModelOutcome
    variables: Arrays


def reference_updates(case: ModelCase, weights: Arrays, n_steps: int) -> list[Update]:
    """The reference's first steps."""
    training, updates = Training(case, "reference", weights), []
    for i in range(n_steps):
        outcome = training.outcome(i)
        own = ModelOutcome(models.copied(outcome.taps), models.copied(outcome.gradients))
        updates.append(Update(own, models.copied(training.update(outcome))))
    return updates


def verify_initial(case: ModelCase, reproduce: str) -> None:
    """From the same seed both sides start from bit-equal weights under the same names."""
    def initial(side: str) -> Arrays:
        return models.variables_of(side, models.build(side, case.arguments, "float32", case.seed))

    found = {"reference": kept("initial", OP, case, lambda: initial("reference")),
             "port": initial("port")}
    _same_keys(case, found["port"], found["reference"], "variables", reproduce)
    for name, expected in found["reference"].items():
        check(_where(case, f"initial {name}", "float32", reproduce), found["port"][name], expected, 0.0)


def run(case: ModelCase, side: str, model: Any, dtype: str, step: int = 0, taps: bool = True,
        gradients: bool = True) -> ModelOutcome:
    """One forward and backward pass on the data of one step."""
    inter = case.inter if taps and gradients else []
    return models.forward(side, model, case.images[step],
                          None if case.labels is None else case.labels[step],
                          None if case.noise is None else case.noise[step], dtype, inter, taps,
                          gradients)


def verify64(case: ModelCase, outcomes: dict[str, ModelOutcome], weights: Arrays, reproduce: str
             ) -> None:
    """Every tap and gradient in float64; the same variables have none."""
    truth, ours = outcomes["reference"], outcomes["port"]
    _same_keys(case, ours.taps, truth.taps, "taps", reproduce)
    same_paths(case, ours, truth, reproduce)
    try:
        compare64(case, ours, truth, None, reproduce)
    except ParityError:
        compare64(case, ours, truth, moved_by_an_ulp(case, weights, tolerances.ULP64), reproduce)


def same_paths(case: ModelCase, ours: ModelOutcome, truth: ModelOutcome, reproduce: str) -> None:
    """A variable has a gradient on both sides or on neither (the optimizer skips one without)."""
    for name, expected in truth.gradients.items():
        if name.startswith("var/") and (ours.gradients.get(name) is None) != (expected is None):
            raise ParityError(f"{_where(case, name, 'float64', reproduce).head()}\n  one side has no "
                              f"gradient at all\n  reproduce: {reproduce}")


def compare64(case: ModelCase, ours: ModelOutcome, truth: ModelOutcome, moved: ModelOutcome | None,
              reproduce: str) -> None:
    """All taps and gradients; `moved` widens the bounds by the problem's own condition."""
    for name, expected in truth.taps.items():
        exact = not np.issubdtype(expected.dtype, np.floating)
        actual = ours.taps[name].astype(expected.dtype) if exact else ours.taps[name]
        bound = 0.0 if exact else tolerances.forward64(expected, tolerances.tap_magnitude(name))
        if moved is not None and not exact:
            bound += tolerances.conditioned64(moved.taps[name], expected)
        margin = check(_where(case, name, "float64", reproduce), actual, expected, bound)
        recorder.margin(case.op, "forward", "float64", margin)
    for name, expected in truth.gradients.items():
        actual = ours.gradients.get(name)
        if actual is None and expected is None:
            continue
        expected = np.zeros_like(actual) if expected is None else expected
        actual = np.zeros_like(expected) if actual is None else actual
        bound = tolerances.gradient64(expected, truth.largest)
        if moved is not None and moved.gradients.get(name) is not None:
            bound += tolerances.conditioned64(moved.gradients[name], expected)
        margin = check(_where(case, f"grad {name}", "float64", reproduce), actual, expected, bound)
        recorder.margin(case.op, "gradient", "float64", margin)


def moved_by_an_ulp(case: ModelCase, weights: Arrays, ulp: float, draw: int = 0) -> ModelOutcome:
    """The reference in float64 with every weight and pixel up to one ulp away.

    Draw 0 comes with gradients, further ones without.
    """
    rng = np.random.default_rng([case.seed, draw])

    def move(value: np.ndarray) -> np.ndarray:
        return value.astype(np.float64) * (1.0 + ulp * rng.uniform(-1, 1, value.shape))

    def compute() -> ModelOutcome:
        model = models.build("reference", case.arguments, "float64", case.seed)
        models.load("reference", model, {name: move(value) for name, value in weights.items()})
        images = np.stack([move(image) for image in case.images])
        return run(replace(case, images=images), "reference", model, "float64", gradients=draw == 0)

    return kept(("moved", ulp, draw), OP, case, compute)


def verify_updates(case: ModelCase, ours: Training, outcome: ModelOutcome, expected: Sequence[Update],
                   reproduce: str) -> None:
    """A few RMSProp steps in float64: losses before each update and the variables after it.

    Args:
        ours: the port's training, at its start.
        outcome: of its first step.
    """
    allowed = 0.0
    for i, truth in enumerate(expected):
        if i:
            outcome, loss = ours.outcome(i), truth.outcome.taps["loss/total"]
            check(_where(case, f"loss before update {i}", "float64", reproduce), outcome.taps["loss/total"], loss,
                  10 * tolerances.forward64(loss) + allowed * truth.outcome.largest)
        variables = ours.update(outcome)
        allowed += tolerances.step64(LR, truth.outcome.largest)
        for name, value in truth.variables.items():
            check(_where(case, f"{name} after update {i}", "float64", reproduce), variables[name], value,
                  tolerances.forward64(value) + allowed)


def verify32(case: ModelCase, weights: Arrays, truth: ModelOutcome, reproduce: str) -> None:
    """float32 on the same weights, images and draws, which float32 holds exactly.

    What an ulp in weights and pixels does to the truth only widens the bounds, so it is asked for only
    where the bounds without it do not hold.
    """
    def once(side: str) -> ModelOutcome:
        model = models.build(side, case.arguments, "float32", case.seed)
        models.load(side, model, weights)
        return run(case, side, model, "float32")

    runs = {"reference": kept("float32", OP, case, lambda: once("reference")), "port": once("port")}
    if parted(case, truth, *runs.values()):
        return
    try:
        compare32(case, runs, truth, [], reproduce)
    except ParityError:
        moved = [moved_by_an_ulp(case, weights, tolerances.ULP32, draw) for draw in range(N_MOVES)]
        if not parted(case, truth, moved[0]):
            compare32(case, runs, truth, moved, reproduce)


def parted(case: ModelCase, truth: ModelOutcome, *outcomes: ModelOutcome) -> bool:
    """Whether a run is on the other side of a discontinuity, which is then named in the report."""
    for outcome in outcomes:
        if place := models.same_pieces(outcome, truth, case.arguments):
            recorder.note(case.op, f"float32 not compared, other side of: {place}")
            return True
    return False


def compare32(case: ModelCase, runs: dict[str, ModelOutcome], truth: ModelOutcome,
              moved: Sequence[ModelOutcome], reproduce: str) -> None:
    """All taps and gradients; every outcome in `moved` widens the bounds by its effect on the truth."""
    for name, expected in truth.taps.items():
        actual, own = runs["port"].taps[name], runs["reference"].taps[name]
        if not np.issubdtype(expected.dtype, np.floating):
            check(_where(case, name, "float32", reproduce), actual.astype(own.dtype), own, 0.0)
            continue
        effect = max((tolerances.error(m.taps[name], expected) for m in moved), default=0.0)
        bound = tolerances.forward32(expected, own, effect, tolerances.tap_terms(name, truth.taps),
                                     tolerances.tap_magnitude(name))
        margin = check(_where(case, name, "float32", reproduce), actual,
                       np.where(np.isfinite(own), expected, own), bound, "float32")
        recorder.margin(case.op, "forward", "float32", margin)
    for name, expected in truth.gradients.items():
        if expected is None:
            continue
        actual, own = (zeros_for_none(runs[key].gradients.get(name), expected, np.float32)
                       for key in ("port", "reference"))
        # Gradients of the first draw alone, as the others are run without.
        effect = max((tolerances.error(zeros_for_none(m.gradients.get(name), expected), expected)
                      for m in moved[:1]), default=0.0)
        bound = tolerances.gradient32(expected, own, truth.largest, effect)
        margin = check(_where(case, f"grad {name}", "float32", reproduce), actual,
                       np.where(np.isfinite(own), expected, own), bound, "float32")
        recorder.margin(case.op, "gradient", "float32", margin)


def _where(case: ModelCase, tap: str, dtype: str, reproduce: str) -> Where:
    return Where(case.op, tap, f"port {dtype}", "reference float64", reproduce)


def _same_keys(case: ModelCase, ours: dict, theirs: dict, what: str, reproduce: str) -> None:
    if set(ours) != set(theirs):
        raise ParityError(f"{case.op}: {what} only in port {sorted(set(ours) - set(theirs))}, only in "
                          f"reference {sorted(set(theirs) - set(ours))}\n  reproduce: {reproduce}")
