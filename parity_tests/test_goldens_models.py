"""Every recorded model: each tap, scalar and gradient, on both sides and in both dtypes.

Folders are discovered, so recordings nobody has seen are compared too; of each folder the files
that are there, of each file the arrays that are there.
"""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest

from parity_tests import goldens, models, recorder, tolerances
from parity_tests.compare import Where, check
from parity_tests.goldens import Golden
from parity_tests.models import ModelOutcome
from parity_tests.shared_recordings import needs_shared
from parity_tests.sides import Arrays

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


@functools.lru_cache(maxsize=8)
def checkpoint(folder: str, prefix: str) -> Arrays:
    """All arrays of a checkpoint."""
    return importlib.import_module("reference").read_checkpoint(f"{folder}/{prefix}")


def variables_of(golden: Golden) -> Arrays:
    """The checkpoint's model variables."""
    arrays = checkpoint(str(golden.folder), golden.manifest["checkpoint"])
    return importlib.import_module("port.convert").split_checkpoint(arrays)[0]


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


def forget() -> None:
    """Drop what is kept of the reference (it was mutated, say)."""
    _kept_outcome.cache_clear()
    moved_by_an_ulp.cache_clear()


def is_tap(name: str) -> bool:
    """Whether an array of a forward file is a tap.

    Not raw graph tensors, repeated draws, and the patterns of a constellation, which no model sees.
    """
    return not name.startswith(("noise/", "raw/", "mod/", "input/pattern_"))


@pytest.mark.golden
@pytest.mark.parametrize("run", RUNS, ids=[run_id(run) for run in RUNS])
def test_model(run: tuple[Golden, str, str, str], tier: str) -> None:
    """Taps and gradients of one folder, variant, dtype and side."""
    golden, variant, dtype, side = run
    if tier == "smoke" and (dtype == "float32" or not golden.folder.is_relative_to(goldens.HERE)):
        pytest.skip("smoke tier: committed fixtures in float64")
    kind = f"model {variant} {dtype} {side}"
    recorder.golden(golden.name, kind, None, "fail")
    try:
        margin = verify_golden(golden, variant, dtype, side)
    except goldens.MissingGolden as missing:  # a folder may hold only some files
        recorder.golden(golden.name, kind, None, "skipped", str(missing))
        pytest.skip(str(missing))
    recorder.golden(golden.name, kind, margin, "pass")


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
    parted = dtype == "float32" and models.same_pieces(ours, truth, arguments_of(golden))
    if grads and not parted:
        worst = max(worst, held_gradients(run, ours, grads, truth, moved))
    return worst


def recorded_truth(golden: Golden, variant: str, inter: tuple[str, ...]) -> ModelOutcome:
    """The float64 recording; arrays it lacks come from the reference in float64."""
    found = outcome(golden, variant, "float64", "reference", inter)
    taps = found.taps | golden.load_if_there(f"forward64_{variant}.npz")
    return ModelOutcome(taps, found.gradients | golden.load_if_there(f"grads64_{variant}.npz"))


@functools.lru_cache(maxsize=4)
def moved_by_an_ulp(golden: Golden, variant: str, inter: tuple[str, ...], gradients: bool
                    ) -> ModelOutcome:
    """The reference in float64 with every weight and pixel up to one float32 ulp away."""
    rng = np.random.default_rng(0)

    def move(value: np.ndarray) -> np.ndarray:
        value = np.asarray(value, np.float64)
        return value * (1.0 + tolerances.ULP32 * rng.uniform(-1, 1, value.shape))

    recorded = golden.load_if_there(f"forward64_{variant}.npz") or golden.load_if_there(
        f"forward_{variant}.npz")
    model = models.build("reference", arguments_of(golden), "float64")
    models.load("reference", model, {k: move(v) for k, v in variables_of(golden).items()})
    image, label = batch_of(golden)
    return models.forward("reference", model, move(image), label, noise_of(golden, variant, recorded),
                          "float64", inter if gradients else (), gradients=gradients)


def where(run: tuple[Golden, str, str, str], tap: str) -> Where:
    """Names for a failure message."""
    return Where(run[0].name, tap, f"{run[3]} {run[2]}", "the recording",
                 f'python -m pytest "parity_tests/test_goldens_models.py::test_model[{run_id(run)}]"')


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


@pytest.mark.golden
@pytest.mark.parametrize("name", needs_shared(goldens.EXPECTED, goldens.discover().get))
def test_is_here(name: str) -> None:
    """A folder that is not here is reported with its place."""
    reasons = dict(goldens.missing())
    if name in reasons:
        recorder.golden(name, "model", None, "skipped", reasons[name])
        pytest.skip(reasons[name])
