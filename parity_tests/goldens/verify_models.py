"""Every recorded model, one at a time, on one side: each tap, scalar and gradient in either dtype.

Used by test_goldens_models.py, and by the device tier, which has no TensorFlow: there the port itself on
the CPU in float64 (held to the reference by the suite) stands where the reference does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator

import numpy as np

from parity_tests import goldens
from parity_tests.goldens import Golden
from parity_tests.harness import models, sides, tolerances
from parity_tests.harness.compare import Where, check
from parity_tests.harness.models import ModelOutcome
from parity_tests.harness.sides import Arrays

SIDES = ("reference", "port")
MODELS = [*goldens.models(), *goldens.constellations()]
RUNS = [(golden, variant, dtype, side) for golden in MODELS for variant in ("nonoise", "noise")
        for dtype, infix in (("float64", "64"), ("float32", ""))
        if any(golden.has(f"{kind}{infix}_{variant}.npz") for kind in ("forward", "grads"))
        for side in SIDES]


def run_id(run: tuple[Golden, str, str, str]) -> str:
    """Test id: golden-variant-dtype-side."""
    golden, variant, dtype, side = run
    return f"{golden.name}-{variant}-{dtype}-{side}"


def arguments_of(golden: Golden) -> dict:
    """Nested class arguments of a recorded model, whichever way its manifest gives them."""
    return importlib.import_module("port.config").from_manifest(golden.manifest).to_arguments()


_truths = ["reference"]


@contextlib.contextmanager
def without_reference() -> Iterator[None]:
    """Within the block nothing needs TensorFlow: the truth behind float32 is the port on the CPU in
    float64, and checkpoints are read by the oracle."""
    _truths.append("port")
    try:
        yield
    finally:
        _truths.pop()


def checkpoint(folder: str, prefix: str) -> Arrays:
    """All arrays of a checkpoint."""
    reader = "reference" if _truths[-1] == "reference" else "parity_tests.oracles.checkpoint"
    return _checkpoint(reader, f"{folder}/{prefix}")


@functools.lru_cache(maxsize=8)
def _checkpoint(reader: str, prefix: str) -> Arrays:
    return importlib.import_module(reader).read_checkpoint(prefix)


def variables_of(golden: Golden) -> Arrays:
    """The checkpoint's model variables."""
    arrays = checkpoint(str(golden.folder), golden.manifest["checkpoint"])
    return importlib.import_module("port.checkpoints.convert").split_checkpoint(arrays)[0]


def noise_of(golden: Golden, variant: str, recorded: Arrays, step: int = 0) -> list | None:
    """Raw draws in order: those in the forward file, else those of `noise_samples.npz`."""
    if variant == "nonoise":
        return None
    raw = {name.removeprefix("noise/"): value for name, value in recorded.items()
           if name.startswith("noise/")}
    if not raw:
        raw = {name: value[step] for name, value in golden.load("noise_samples.npz").items()}
    return [raw[f"raw_{i}"] for i in range(len(raw))]


def batch_of(golden: Golden, step: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
    """Image and label of one recorded batch; of a constellation points and presences."""
    return models.inputs_of(golden.load("batches.npz"), step)


def outcome(golden: Golden, variant: str, dtype: str, side: str, inter: tuple[str, ...]
            ) -> ModelOutcome:
    """One run of a recorded configuration on batch 0; the reference's are kept."""
    run = _kept_outcome if side == "reference" else _outcome
    return run(golden, variant, dtype, side, inter)


def _outcome(golden: Golden, variant: str, dtype: str, side: str, inter: tuple[str, ...]
             ) -> ModelOutcome:
    recorded = golden.load_if_there(f"forward64_{variant}.npz") or golden.load_if_there(
        f"forward_{variant}.npz")
    model = models.build(side, arguments_of(golden), dtype)
    models.load(side, model, variables_of(golden))
    image, label = batch_of(golden)
    return models.forward(side, model, image, label, noise_of(golden, variant, recorded), dtype, inter)


_kept_outcome = functools.lru_cache(maxsize=4)(_outcome)


def truth_of(golden: Golden, variant: str, inter: tuple[str, ...]) -> ModelOutcome:
    """The float64 run that a float32 one is measured against; kept."""
    with sides.placed("cpu"):
        return _kept_outcome(golden, variant, "float64", _truths[-1], inter)


def forget() -> None:
    """Drop what is kept of the reference (it was mutated, say)."""
    _kept_outcome.cache_clear()
    _moved.cache_clear()


def is_tap(name: str) -> bool:
    """Whether an array of a forward file is a tap.

    Not raw graph tensors, repeated draws, and the patterns of a constellation, which no model sees.
    """
    return not name.startswith(("noise/", "raw/", "mod/", "input/pattern_"))


def verify_golden(golden: Golden, variant: str, dtype: str, side: str) -> float:
    """Compare one side with one recording; needs no pytest.

    Args:
        golden: the folder.
        variant: `noise` or `nonoise`.
        dtype: `float64` or `float32`.
        side: `reference` or `port`.

    Returns:
        The worst margin, error / bound.

    Raises:
        ParityError: with the first tap or gradient that differs.
    """
    run = (golden, variant, dtype, side)
    infix = "64" if dtype == "float64" else ""
    taps = golden.load_if_there(f"forward{infix}_{variant}.npz")
    grads = golden.load_if_there(f"grads{infix}_{variant}.npz")
    inter = tuple(name.removeprefix("inter/") for name in grads if name.startswith("inter/"))
    ours = outcome(golden, variant, dtype, side, inter)
    truth = ours if dtype == "float64" else recorded_truth(golden, variant, inter)
    worst = 0.0
    moved = () if dtype == "float64" else (moved_by_an_ulp(golden, variant, inter, bool(grads)),)
    defined = golden.load_if_there(f"forward64_{variant}.npz")  # its keys are the taps
    for name, expected in taps.items():
        if is_tap(name) and (name in defined or not defined or name in ours.taps):
            worst = max(worst, held_tap(run, name, ours, expected, truth, moved))
    # Where float32 falls on the other side of a discontinuity its gradients are another piece's.
    parted = dtype == "float32" and models.same_pieces(ours, truth, arguments_of(golden), _truths[-1])
    if grads and not parted:
        worst = max(worst, held_gradients(run, ours, grads, truth, moved))
    return worst


def recorded_truth(golden: Golden, variant: str, inter: tuple[str, ...]) -> ModelOutcome:
    """The float64 recording; arrays it lacks come from a float64 run (`truth_of`)."""
    found = truth_of(golden, variant, inter)
    taps = found.taps | golden.load_if_there(f"forward64_{variant}.npz")
    return ModelOutcome(taps, found.gradients | golden.load_if_there(f"grads64_{variant}.npz"))


def moved_by_an_ulp(golden: Golden, variant: str, inter: tuple[str, ...], gradients: bool
                    ) -> ModelOutcome:
    """The float64 run with every weight and pixel up to one float32 ulp away; kept."""
    with sides.placed("cpu"):
        return _moved(golden, variant, inter, gradients, _truths[-1])


@functools.lru_cache(maxsize=4)
def _moved(golden: Golden, variant: str, inter: tuple[str, ...], gradients: bool, side: str
           ) -> ModelOutcome:
    rng = np.random.default_rng(0)

    def move(value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, np.float64)
        return value * (1.0 + tolerances.ULP32 * rng.uniform(-1, 1, value.shape))

    recorded = golden.load_if_there(f"forward64_{variant}.npz") or golden.load_if_there(
        f"forward_{variant}.npz")
    model = models.build(side, arguments_of(golden), "float64")
    models.load(side, model, {k: move(v) for k, v in variables_of(golden).items()})
    if side == "port":
        model.check_range = False  # a white pixel moved by an ulp
    image, label = batch_of(golden)
    return models.forward(side, model, move(image), label, noise_of(golden, variant, recorded),
                          "float64", inter if gradients else (), gradients=gradients)


def where(run: tuple[Golden, str, str, str], tap: str) -> Where:
    """Names for a failure message."""
    return Where(run[0].name, tap, f"{run[3]} {run[2]}", "the recording",
                 f'python -m pytest "parity_tests/tests/goldens/test_goldens_models.py::test_model[{run_id(run)}]"')


def held_tap(run: tuple[Golden, str, str, str], name: str, ours: ModelOutcome, expected: np.ndarray,
             truth: ModelOutcome, moved: tuple[ModelOutcome, ...]) -> float:
    """Compare one tap; counts and labels exactly."""
    assert name in ours.taps, f"{run_id(run)}: no tap {name}"
    actual = ours.taps[name]
    if not np.issubdtype(expected.dtype, np.floating):
        return check(where(run, name), actual.astype(np.int64), expected.astype(np.int64), 0.0)
    if run[2] == "float64":
        return check(where(run, name), actual, expected, tolerances.forward64(expected), "float64")
    effect = max(tolerances.error(m.taps[name], truth.taps[name]) for m in moved)
    bound = tolerances.forward32(truth.taps[name], expected, effect,
                                 tolerances.tap_terms(name, truth.taps), tolerances.tap_magnitude(name))
    return check(where(run, name), actual, truth.taps[name], bound, "float32")


def held_gradients(run: tuple[Golden, str, str, str], ours: ModelOutcome, grads: Arrays,
                   truth: ModelOutcome, moved: tuple[ModelOutcome, ...]) -> float:
    """Compare every recorded gradient; a variable has none only if `no_gradient` names it."""
    golden, _, dtype, _ = run
    largest = tolerances.scale(*(v for name, v in grads.items() if name.startswith("var/")))
    worst = 0.0
    for name, expected in grads.items():
        actual = ours.gradients.get(name)
        actual = np.zeros_like(expected) if actual is None else actual
        if dtype == "float64":
            bound = tolerances.gradient64(expected, largest)
            worst = max(worst, check(where(run, name), actual, expected, bound, "float64"))
        else:
            true = truth.gradients[name]
            true = np.zeros(expected.shape) if true is None else true
            effect = max(tolerances.error(
                np.zeros(expected.shape) if m.gradients[name] is None else m.gradients[name], true)
                for m in moved)
            bound = tolerances.gradient32(true, expected, largest, effect)
            worst = max(worst, check(where(run, name), actual, true, bound, "float32"))
    for name in golden.manifest.get("no_gradient", []):
        assert ours.gradients.get(f"var/{name}") is None, f"{run_id(run)}: {name} has a gradient"
    return worst


def verify_without_taps(golden: Golden, variant: str, dtype: str) -> float:
    """Loss, scalars and gradients of the port as training runs it: without taps, by its faster paths.

    In float32 the plain path is held to the recording by `verify_golden`; here the two paths of the port
    share the recording's bound, with what the recording itself loses taken from float64.

    Returns:
        The worst margin, error / bound.

    Raises:
        ParityError: with the first scalar or gradient that differs.
        AssertionError: nothing was compared.
    """
    infix = "64" if dtype == "float64" else ""
    recorded = golden.load_if_there(f"forward{infix}_{variant}.npz")
    model = models.build("port", arguments_of(golden), dtype)
    models.load("port", model, variables_of(golden))
    image, label = batch_of(golden)
    ours = models.forward("port", model, image, label, noise_of(golden, variant, recorded), dtype,
                          taps=False)
    place = f'python -m pytest "parity_tests/tests/ops/test_fast_paths.py::test_recording[{golden.name}-{variant}'

    def at(name: str) -> Where:
        return Where(golden.name, name, f"port {dtype}, kernel", "the recording", f'{place}-{dtype}]"')

    truth, margins = golden.load_if_there(f"forward64_{variant}.npz"), []
    for name, value in ours.taps.items():
        if name not in recorded or not np.issubdtype(np.asarray(recorded[name]).dtype, np.floating):
            continue
        if dtype == "float64":
            margins.append(check(at(name), value, recorded[name], tolerances.forward64(
                recorded[name], tolerances.tap_magnitude(name))))
        elif name in truth:
            margins.append(check(at(name), value, truth[name], tolerances.forward32(
                truth[name], recorded[name], 0.0, tolerances.tap_terms(name, truth),
                tolerances.tap_magnitude(name)), "float32"))
    grads = golden.load_if_there(f"grads{infix}_{variant}.npz")
    true = golden.load_if_there(f"grads64_{variant}.npz")
    largest = tolerances.scale(*(v for name, v in grads.items() if name.startswith("var/")))
    for name, expected in grads.items():
        if not name.startswith("var/"):
            continue
        actual = ours.gradients.get(name)
        actual = np.zeros_like(expected) if actual is None else actual
        if dtype == "float64":
            margins.append(check(at(name), actual, expected, tolerances.gradient64(expected, largest)))
        elif name in true:
            margins.append(check(at(name), actual, true[name],
                                 tolerances.gradient32(true[name], expected, largest), "float32"))
    assert margins, f"{golden.name}-{variant}-{dtype}: nothing to compare"
    return max(margins)


def verify_gradients32(golden: Golden, variant: str, taps: bool) -> float | None:
    """Float32 gradients of the port against a float64 recording that has no float32 ones.

    What float32 itself loses, which elsewhere the recording in float32 says, is here what the port loses
    on the CPU.

    Args:
        golden: the folder.
        variant: `noise` or `nonoise`.
        taps: by the plain path; else as training runs it.

    Returns:
        The worst margin; None where float32 falls on the other side of a discontinuity, behind which
        gradients are another piece's.

    Raises:
        ParityError: with the first gradient that differs.
    """
    inter: tuple[str, ...] = ()
    recorded = golden.load(f"grads64_{variant}.npz")
    true = {name: value for name, value in recorded.items() if name.startswith("var/")}
    with sides.placed("cpu"):
        own = _outcome(golden, variant, "float32", "port", inter)
    ours = _outcome(golden, variant, "float32", "port", inter)
    arguments = arguments_of(golden)
    truth = truth_of(golden, variant, inter)
    if any(models.same_pieces(run, truth, arguments, _truths[-1]) for run in (own, ours)):
        return None
    if not taps:
        image, label = batch_of(golden)
        model = models.build("port", arguments, "float32")
        models.load("port", model, variables_of(golden))
        draws = noise_of(golden, variant, golden.load_if_there(f"forward64_{variant}.npz"))
        ours = models.forward("port", model, image, label, draws, "float32", taps=False)
    moved = moved_by_an_ulp(golden, variant, inter, True)
    largest, worst = tolerances.scale(*true.values()), 0.0
    for name, expected in true.items():
        found, losing, shifted = (np.zeros(expected.shape) if of.gradients.get(name) is None
                                  else of.gradients[name] for of in (ours, own, moved))
        bound = tolerances.gradient32(expected, losing, largest, tolerances.error(shifted, expected))
        place = Where(golden.name, name, "port float32", "the recording in float64",
                      f"python -m parity_tests.device --only models/{golden.name}")
        worst = max(worst, check(place, np.asarray(found, np.float32), expected, bound, "float32"))
    return worst
