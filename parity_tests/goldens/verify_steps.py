"""Optimizer steps from a recorded checkpoint, slots included, on one side: losses, scalars and variables.

Both sides run in float64 from the float32 checkpoint, so that they can be told from the recording by its
rounding alone. Bounds: `tolerances.STEP_BOUNDS`. Used by test_goldens_steps.py and by the device tier.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np

from parity_tests.goldens import Golden
from parity_tests.goldens.verify_models import MODELS, arguments_of, batch_of, checkpoint, variables_of
from parity_tests.harness import models, tolerances
from parity_tests.harness.compare import Where, check
from parity_tests.harness.sides import Arrays

SIDES = ("reference", "port")
HISTORIES = {"history_ckpt.npz": ("nonoise", "checkpoint"),
             "history_ckpt_noise.npz": ("noise", "checkpoint"),
             "history_fresh_slots.npz": ("nonoise", "fresh")}
RUNS = [(golden, file, side) for golden in MODELS for file in HISTORIES if golden.has(file)
        for side in SIDES]
# Steps run in the default tier: those that decide, and in the deep tier all that are recorded.
N_STEPS = 5


@dataclass
class Trajectory:
    """Scalars before each update, and the variables after `after` updates."""

    scalars: list[Arrays]
    variables: dict[int, Arrays]


def slots_of(golden: Golden) -> Arrays:
    """The checkpoint's optimizer slots; empty where it has none."""
    arrays = checkpoint(str(golden.folder), golden.manifest["checkpoint"])
    return importlib.import_module("port.checkpoints.convert").split_checkpoint(arrays)[1]


def run_steps(golden: Golden, file: str, side: str, dtype: str, steps: int) -> Trajectory:
    """Train from the checkpoint on the recorded batches."""
    variant, start = HISTORIES[file]
    manifest, variables = golden.manifest, variables_of(golden)
    model = models.build(side, arguments_of(golden), dtype)
    models.load(side, model, variables)
    slots = slots_of(golden) if start == "checkpoint" else {}
    step = models.optimizer_step(side, model, manifest["lr"], manifest["rmsprop"], slots)
    noise = golden.load("noise_samples.npz") if variant == "noise" else None
    found = Trajectory([], {})
    for i in range(steps):
        raw = None if noise is None else [noise[f"raw_{j}"][i] for j in range(len(noise))]
        # The mse is a tap: costly on the reference, so only before the first update there.
        outcome = models.forward(side, model, *batch_of(golden, i), raw, dtype,
                                 taps=side == "port" or i == 0)
        found.scalars.append({k: v for k, v in outcome.taps.items() if np.ndim(v) == 0})
        step(outcome)
        found.variables[i + 1] = models.variables_of(side, model)
    return found


def where(golden: Golden, file: str, side: str, tap: str) -> Where:
    """Names for a failure message."""
    return Where(golden.name, tap, f"{side} float64", f"the recording {file}", (
        f'python -m pytest "parity_tests/tests/goldens/test_goldens_steps.py::test_steps'
        f'[{golden.name}-{file[:-4]}-{side}]"'))


def held_history(golden: Golden, file: str, side: str, trajectory: Trajectory, history: Arrays
                 ) -> float:
    """Scalars before each update."""
    bounds, worst = tolerances.step_bounds(golden.manifest), 0.0
    for i, scalars in enumerate(trajectory.scalars):
        for name, values in history.items():
            if name.startswith("final_") or name not in scalars:
                continue
            expected = np.float64(values[i])
            if name == "loss/total":
                bound = tolerances.at_step(bounds.loss, i) * abs(expected)
            else:
                bound = tolerances.at_step(bounds.scalar, i) * max(1.0, abs(expected))
            margin = check(where(golden, file, side, f"{name} before update {i}"),
                           np.float64(scalars[name]), expected, bound)
            worst = max(worst, margin)
    return worst


def held_variables(golden: Golden, file: str, side: str, trajectory: Trajectory) -> float:
    """Variables after 5 steps: with noise in folders of options, without elsewhere."""
    noisy = not golden.has("history_ckpt.npz")
    if (file == "history_ckpt_noise.npz") != noisy or file == "history_fresh_slots.npz":
        return 0.0
    worst, bounds = 0.0, tolerances.step_bounds(golden.manifest)
    for after, (largest, rms) in ((5, (bounds.variable_max, bounds.variable_rms)),
                                  (20, tolerances.AFTER20)):
        if after not in trajectory.variables:
            continue
        for name, expected in golden.load_if_there(f"vars_ckpt_after{after}.npz").items():
            actual = trajectory.variables[after].get(name)
            if actual is None:
                continue
            tap = f"{name} after {after}"
            worst = max(worst, check(where(golden, file, side, tap), actual,
                                     expected.astype(np.float64), largest))
            error = float(np.sqrt(np.mean((actual - expected) ** 2)))
            worst = max(worst, check(where(golden, file, side, f"rms of {tap}"), np.float64(error),
                                     np.float64(0.0), rms))
    return worst


def verify_steps(golden: Golden, file: str, side: str, everything: bool = False) -> float:
    """The worst margin of the first steps, or of all; only the first loss where the slots are not there.

    Raises:
        ParityError: with the first scalar or variable that differs.
    """
    history = golden.load(file)
    steps = len(history["loss/total"])
    if not comparable(golden, file):
        steps = 1
    elif not everything:
        steps = min(steps, N_STEPS)
    trajectory = run_steps(golden, file, side, "float64", steps)
    return max(held_history(golden, file, side, trajectory, history),
               held_variables(golden, file, side, trajectory))


def comparable(golden: Golden, file: str) -> bool:
    """Whether what comes after the first update can be compared."""
    return bool(slots_of(golden)) or HISTORIES[file][1] == "fresh"


FLOAT32 = [golden for golden in MODELS if tolerances.step_class(golden.manifest) != "unsteady"
           and golden.manifest["lr"] < tolerances.FAST_LR and golden.has("history_ckpt_noise.npz")]


def verify_float32(golden: Golden) -> float:
    """A float32 port keeps to the recording within the looser bounds; the worst margin."""
    steps = min(N_STEPS, len(golden.load("history_ckpt_noise.npz")["loss/total"]))
    trajectory = run_steps(golden, "history_ckpt_noise.npz", "port", "float32", steps)
    history, worst = golden.load("history_ckpt_noise.npz"), 0.0
    for i, scalars in enumerate(trajectory.scalars):
        expected = np.float64(history["loss/total"][i])
        worst = max(worst, check(where(golden, "history_ckpt_noise.npz", "port", f"loss {i}"),
                                 np.float64(scalars["loss/total"]), expected,
                                 tolerances.STEP_FLOAT32["loss"] * abs(expected)))
    noisy = not golden.has("history_ckpt.npz")  # elsewhere the variables are those without noise
    for name, expected in golden.load_if_there("vars_ckpt_after5.npz").items():
        actual = trajectory.variables[5].get(name) if noisy and 5 in trajectory.variables else None
        if actual is not None:
            worst = max(worst, check(where(golden, "vars_ckpt_after5.npz", "port", name), actual,
                                     expected, tolerances.STEP_FLOAT32["variable"]))
    return worst
