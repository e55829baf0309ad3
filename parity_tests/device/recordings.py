"""The port against every recording that is here: models, operations, optimizer steps, routing ancestors."""

from __future__ import annotations

import functools
from collections.abc import Callable

from parity_tests import goldens
from parity_tests.device.checks import Check, Skipped
from parity_tests.goldens import Golden, Record, verify_models, verify_ops, verify_steps
from parity_tests.goldens import routing as goldens_routing
from parity_tests.goldens.ops import ELSEWHERE, GOLDEN_RECIPES
from parity_tests.goldens.routing import RoutingRecord
from parity_tests.harness import recorder, sides


def checks() -> list[Check]:
    """One a recording, dtype and path."""
    return [*_models(), *_operations(), *_steps(), *_routing("capsnet"), *_routing("em")]


def _models() -> list[Check]:
    """With taps, as recordings are made, and without, as training runs it."""
    found = []
    for golden, variant, dtype, side in verify_models.RUNS:
        if side == "port":
            name, short = f"{golden.name}-{variant}-{dtype}", committed(golden)
            found.append(Check(f"models/{name}", functools.partial(_model, golden, variant, dtype), short))
            if golden in goldens.models():
                found.append(Check(f"fast/{name} without taps", functools.partial(
                    _without_taps, golden, variant, dtype), short))
    for golden in verify_models.MODELS:
        for variant in ("nonoise", "noise"):
            if golden.has(f"grads64_{variant}.npz") and not golden.has(f"grads_{variant}.npz"):
                found += [Check(f"{kind}/{golden.name}-{variant}-gradients in float32", functools.partial(
                    _gradients32, golden, variant, kind == "models"), committed(golden))
                    for kind in ("models", "fast")]
    return found


def committed(golden: Golden) -> bool:
    """Whether a recording is part of the repository."""
    return golden.folder.is_relative_to(goldens.HERE)


def _model(golden: Golden, variant: str, dtype: str, device: str) -> float:
    return told(lambda: verify_models.verify_golden(golden, variant, dtype, "port"))


def _without_taps(golden: Golden, variant: str, dtype: str, device: str) -> float:
    return told(lambda: verify_models.verify_without_taps(golden, variant, dtype))


def _gradients32(golden: Golden, variant: str, taps: bool, device: str) -> float:
    margin = told(lambda: verify_models.verify_gradients32(golden, variant, taps))
    if margin is None:
        raise Skipped("float32 falls on the other side of a discontinuity")
    return margin


def told(compare: Callable[[], float | None]) -> float | None:
    """A comparison whose recording may lack a file."""
    try:
        return compare()
    except goldens.MissingGolden as missing:
        raise Skipped(str(missing)) from None


def _operations() -> list[Check]:
    records = [record for record in goldens.records() if record.ok and record.function in GOLDEN_RECIPES
               and record.function not in ELSEWHERE]
    first = {(r.function, r.dtype): r.key for r in reversed(records)}
    return [Check(f"ops/{record.key}", functools.partial(_operation, record), record.key in first.values())
            for record in records]


def _operation(record: Record, device: str) -> float:
    golden, arrays, truth = GOLDEN_RECIPES[record.function], record.arrays(), None
    if record.dtype != "float64":
        with sides.placed("cpu"):
            truth = verify_ops.run_record(golden, record, arrays, "port", "float64")
    return verify_ops.compare_record(record, golden, arrays, "port", truth)


def _steps() -> list[Check]:
    found = [Check(f"steps/{golden.name}-{file[:-4]}-float64", functools.partial(
        _float64_steps, golden, file), committed(golden)) for golden, file, side in verify_steps.RUNS
        if side == "port"]
    return found + [Check(f"steps/{golden.name}-float32", functools.partial(_float32_steps, golden),
                          committed(golden)) for golden in verify_steps.FLOAT32]


def _float64_steps(golden: Golden, file: str, device: str) -> float:
    return told(lambda: verify_steps.verify_steps(golden, file, "port"))


def _float32_steps(golden: Golden, device: str) -> float:
    return told(lambda: verify_steps.verify_float32(golden))


def _routing(family: str) -> list[Check]:
    """Records of the routing ancestors, by the kernels where they run."""
    records = goldens_routing.records(family)
    first = goldens_routing.first_of_each(records)
    return [Check(f"{family}/{record.name}", functools.partial(_routing_record, record),
                  record.name in first) for record in records]


def _routing_record(record: RoutingRecord, device: str) -> float:
    try:
        from parity_tests.goldens import verify_capsnet, verify_em
    except ImportError as error:  # the rows of CapsNet are drawn by Hypothesis
        raise Skipped(str(error)) from None
    recorder.reset()
    told(lambda: (verify_capsnet if record.family == "capsnet" else verify_em).verify(record, "port"))
    return max((entry["worst_margin"] for entry in recorder.STATE["goldens"].values()), default=0.0)
