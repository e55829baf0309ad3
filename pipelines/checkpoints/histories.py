"""Recorded training steps: scalars before each update and variables after some, both sides in float64."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from parity_tests.harness import models, tolerances
from pipelines.checkpoints.comparison import Report, Section

if TYPE_CHECKING:
    from pipelines.checkpoints.recordings import Arrays, Recording

# File → (noise, whose slots it starts with).
HISTORIES = {"history_ckpt.npz": ("nonoise", "checkpoint"),
             "history_ckpt_noise.npz": ("noise", "checkpoint"),
             "history_fresh_slots.npz": ("nonoise", "fresh")}
NOT_COMPARED = {"history_ckpt_perturbed.npz": "its weights were perturbed by 1e-7, at random"}
SIDES = ("reference", "port")
# The steps that decide; later ones are run only where variables are recorded after them.
N_STEPS = 5
NO_SLOTS = "not comparable: no slots"


@dataclass
class Trajectory:
    """Scalars before each update, and the variables after each."""

    scalars: list[Arrays]
    variables: list[Arrays]


def compare(report: Report, recording: Recording) -> None:
    """Every history and every file of variables that is there."""
    after, variant = variables_files(recording), variables_variant(recording)
    has_slots = all(recording.slots[side] for side in SIDES)
    wanted = {file: recording.load(file) for file in HISTORIES if recording.has(file)}
    missing = [file for file in HISTORIES if file not in wanted]
    if missing:
        report.notes.append(f"not found: {', '.join(missing)}")
    for file, why in NOT_COMPARED.items():
        if recording.has(file):
            report.notes.append(f"not compared: {file}; {why}")
    for file, arrays in wanted.items():
        found = trajectories(report, recording, *HISTORIES[file], recorded_steps(arrays),
                             after if HISTORIES[file] == (variant, "checkpoint") else {}, has_slots)
        if not found:
            continue
        add_history(report, recording, file, arrays, found)
        if HISTORIES[file][1] == "checkpoint" and not has_slots:
            report.notes.append(f"{file} after the first update: {NO_SLOTS}")
        if HISTORIES[file] == (variant, "checkpoint"):
            add_variables(report, recording, after, found)
            after = {}
    if after and not has_slots:
        report.notes.append(f"{', '.join(after.values())}: {NO_SLOTS}")
    elif after:  # no history beside them
        found = trajectories(report, recording, variant, "checkpoint", 0, after, has_slots)
        add_variables(report, recording, after, found)


def recorded_steps(arrays: Arrays) -> int:
    """Number of steps of a history; single numbers in it are something else."""
    return max((len(values) for values in arrays.values() if values.ndim), default=0)


def trajectories(report: Report, recording: Recording, noise: str, start: str, recorded: int,
                 after: dict[int, str], has_slots: bool) -> dict[str, Trajectory]:
    """Both sides' steps of one kind: those that decide, and up to the last recorded variables."""
    if noise == "noise" and not recording.has("noise_samples.npz"):
        report.notes.append("not comparable: steps with noise; noise_samples.npz is not there")
        return {}
    comparable = has_slots or start == "fresh"
    steps = max([min(recorded, N_STEPS), *after]) if comparable else 1
    steps = min(steps, len(recording.batches[models.INPUTS[recording.config.kind][0]]))
    return {side: run(recording, noise, start, side, steps, comparable) for side in SIDES}


def variables_files(recording: Recording) -> dict[int, str]:
    """Number of steps → file of variables after so many."""
    found = {}
    for path in sorted(recording.folder.glob("vars_ckpt_after*.npz")):
        match = re.fullmatch(r"vars_ckpt_after(\d+)\.npz", path.name)
        if match and int(match[1]):
            found[int(match[1])] = path.name
    return found


def variables_variant(recording: Recording) -> str:
    """Whether the recorded variables come from steps with noise: in folders of options they do."""
    if recording.has("history_ckpt.npz"):
        return "nonoise"
    said = " ".join(str(text) for name, text in (recording.manifest.get("files") or {}).items()
                    if name.startswith("vars_ckpt_after"))
    return "noise" if "noisy" in said or recording.has("history_ckpt_noise.npz") else "nonoise"


def run(recording: Recording, noise: str, start: str, side: str, steps: int, comparable: bool
        ) -> Trajectory:
    """Train one side in float64 on the recorded batches."""
    manifest, model = recording.manifest, recording.model(side, "float64")
    found = Trajectory([], [])
    slots = recording.slots[side] if start == "checkpoint" else {}
    step = models.optimizer_step(side, model, manifest["lr"], manifest["rmsprop"], slots
                                 ) if comparable and "rmsprop" in manifest else None
    for i in range(steps):
        outcome = models.forward(side, model, *models.inputs_of(recording.batches, i),
                                 recording.noise(noise, i), "float64", taps=i == 0,
                                 gradients=step is not None)
        found.scalars.append({name: value for name, value in outcome.taps.items() if np.ndim(value) == 0})
        if step is None:
            break
        step(outcome)
        found.variables.append(models.variables_of(side, model))
    return found


def add_history(report: Report, recording: Recording, file: str, arrays: Arrays,
                found: dict[str, Trajectory]) -> None:
    """Scalars before each update."""
    bounds = tolerances.step_bounds(recording.manifest)
    section = report.section(file, "the recording", "steps")
    names = [name for name, values in arrays.items() if values.ndim and not name.startswith("final_")]
    absent = [name for name in names if name not in found["reference"].scalars[0]]
    if absent:
        report.notes.append(f"not compared: {len(absent)} scalars of {file} ({', '.join(absent)})")
    for i in range(len(found["port"].scalars)):
        for name in names:
            for side, trajectory in found.items():
                if name not in trajectory.scalars[i] or i >= len(arrays[name]):
                    continue
                expected = np.float64(arrays[name][i])
                bound = (tolerances.at_step(bounds.loss, i) * abs(expected) if name == "loss/total"
                         else tolerances.at_step(bounds.scalar, i) * max(1.0, abs(expected)))
                section.add(f"{name} before update {i}", side, "float64",
                            np.float64(trajectory.scalars[i][name]), expected, bound)


def add_variables(report: Report, recording: Recording, after: dict[int, str],
                  found: dict[str, Trajectory]) -> None:
    """Variables after some updates: their largest and their root mean square difference."""
    bounds = tolerances.step_bounds(recording.manifest)
    for number, file in after.items():
        known = min((len(trajectory.variables) for trajectory in found.values()), default=0)
        if known < number:
            report.notes.append(f"{file}: " + (NO_SLOTS if not known else f"only {known} steps can be run"))
            continue
        largest, rms = ((bounds.variable_max, bounds.variable_rms) if number <= N_STEPS
                        else tolerances.AFTER20)
        section, recorded = report.section(file, "the recording", "steps"), recording.load(file)
        for name, expected in recorded.items():
            for side, trajectory in found.items():
                _add_variable(section, f"{name} after {number}", side,
                              trajectory.variables[number - 1].get(name), expected, largest, rms)
        absent = [name for name in found["reference"].variables[0] if name not in recorded]
        if absent:
            report.notes.append(f"not in {file}: {len(absent)} variables ({', '.join(absent)})")


def _add_variable(section: Section, name: str, side: str, actual: np.ndarray | None,
                  expected: np.ndarray, largest: float, rms: float) -> None:
    row = section.add(name, side, "float64", actual, expected, largest)
    if row.verdict != "fail":
        error = np.sqrt(np.mean((actual - expected.astype(np.float64)) ** 2))
        if error > rms:
            section.add(f"rms of {name}", side, "float64", error, np.float64(0.0), rms)
