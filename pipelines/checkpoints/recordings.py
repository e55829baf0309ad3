"""Both sides against a recording: taps and gradients of every file that is there.

What the model computes is fixed by the recording's manifest: loss weights, noise, learning rate and
optimizer constants come from there, and a stored setting that says otherwise is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import port
from parity_tests.harness import models, tolerances
from parity_tests.harness.compare import zeros_for_none
from parity_tests.harness.models import ModelOutcome
from pipelines.checkpoints import original, proof
from pipelines.checkpoints.comparison import Report, Section
from pipelines.support.values import BadInput
from port.checkpoints import contents, convert
from port.checkpoints.complete import same
from port.config import AnyConfig
from port.families import Model

SIDES = ("reference", "port")
N_MOVES = 1  # the recording's own error is the measure; this only adds what it may have by luck
LOG_PRESENCES = ("res/mixing_logits", "res/mixing_log_prob")
Arrays = dict[str, np.ndarray]


@dataclass
class Recording:
    """A folder of recordings and the two models that are held to it.

    Attributes:
        folder: where it lies.
        manifest: its manifest.json.
        config: the model's configuration, from the manifest.
        variables: side → variables under original names.
        slots: side → optimizer slots under original names.
    """

    folder: Path
    manifest: dict[str, Any]
    config: AnyConfig
    variables: dict[str, Arrays]
    slots: dict[str, Arrays]

    def has(self, file: str) -> bool:
        """Whether a file is there."""
        return (self.folder / file).is_file()

    def load(self, file: str) -> Arrays:
        """All arrays of a file, none where it is missing.

        Raises:
            BadInput: the file is damaged.
        """
        path = self.folder / file
        if not path.is_file():
            return {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except Exception as error:  # a damaged archive fails in many ways inside zipfile and NumPy
            raise BadInput(f"{path}: cannot be read ({' '.join(str(error).split())})") from None

    @cached_property
    def batches(self) -> Arrays:
        """The recorded batches."""
        return self.load("batches.npz")

    def noise(self, variant: str, step: int = 0) -> list[np.ndarray] | None:
        """Raw draws of a step in order; None for no noise.

        Raises:
            KeyError: they are not there.
        """
        if variant == "nonoise":
            return None
        raw = {}
        if step == 0:
            for file in ("forward64_noise.npz", "forward_noise.npz"):
                raw = raw or {name.removeprefix("noise/"): value for name, value in self.load(file).items()
                              if name.startswith("noise/")}
        raw = raw or {name: value[step] for name, value in self.load("noise_samples.npz").items()}
        return [raw[f"raw_{i}"] for i in range(max(len(raw), 1))]

    def model(self, side: str, dtype: str) -> Any:
        """A side's model with its variables."""
        return proof.build(side, self.config, self.variables[side], dtype)

    def run(self, side: str, variant: str, dtype: str, inter: tuple[str, ...], gradients: bool,
            ulp: float = 0.0, draw: int = 0) -> ModelOutcome:
        """One pass on batch 0; with `ulp` every weight and pixel is up to so much away."""
        (image, label), model = models.inputs_of(self.batches, 0), self.model(side, dtype)
        if ulp:
            rng = np.random.default_rng([11, draw])
            models.load(side, model, {name: proof.moved(value, ulp, rng)
                                      for name, value in self.variables[side].items()})
            image = proof.moved(image, ulp, rng)
        return models.forward(side, model, image, label, self.noise(variant), dtype, inter,
                              gradients=gradients)


def compare(report: Report, folder: Path, source: contents.Contents, model: Model,
            slots: Mapping[str, Mapping[str, Any]]) -> None:
    """Everything that a recording's folder allows to compare.

    Raises:
        BadInput: no recording of this model, nothing in it that can be compared, or a stored
            setting contradicts it.
    """
    from pipelines.checkpoints import histories

    recording = open_recording(folder, source, model, slots)
    report.facts["recording"] = folder.resolve().name
    before = len(report.sections)
    seen = models.INPUTS[recording.config.kind][0]
    if seen not in recording.batches:
        raise BadInput(f"{folder}: no batches.npz with {seen!r}; nothing can be run")
    for variant in ("nonoise", "noise"):
        for dtype in ("float64", "float32"):
            passes(report, recording, variant, dtype)
    histories.compare(report, recording)
    if len(report.sections) == before:
        raise BadInput(f"{folder}: none of its files can be compared (forward…, grads…, history…, vars…)")


def open_recording(folder: Path, source: contents.Contents, model: Model,
                   slots: Mapping[str, Mapping[str, Any]]) -> Recording:
    """The folder's manifest, joined with the checkpoint and the converted model."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise BadInput(f"{folder}: no manifest.json; expected a folder of recordings")
    with original.in_words(str(path)):
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(manifest, dict):
                raise BadInput(f"{path}: records of single operations; expected those of a model")
            config = port.config.from_manifest(manifest)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, port.ConfigError | BadInput):
                raise
            raise BadInput(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
        kind = model.config.kind
        stored, theirs = (port.config.explicit(each, kind) for each in (model.config, config))
    n_layers = len(config.cnn.output_channels) if kind == "scae" else 0
    wrong = [f"{key} is {stored[key]!r} in the folder, {theirs[key]!r} in the recording" for key in stored
             if key != "n_points" and not same(key, stored[key], theirs[key], n_layers)]
    if wrong:
        raise BadInput(f"{folder}: recorded with other settings than the converted model has: "
                       + "; ".join(wrong))
    return Recording(folder, manifest, config,
                     {"reference": source.variables, "port": convert.to_tf(model)},
                     {"reference": source.slots, "port": convert.slots_to_tf(model, slots)})


def is_tap(name: str) -> bool:
    """Whether an array of a forward file is a tap (not a raw graph tensor or a repeated draw)."""
    return not name.startswith(("noise/", "raw/", "mod/", "input/pattern_"))


def passes(report: Report, recording: Recording, variant: str, dtype: str) -> None:
    """Taps and gradients of one variant in one precision, both sides."""
    infix = "64" if dtype == "float64" else ""
    files = {kind: f"{kind}{infix}_{variant}.npz" for kind in ("forward", "grads")}
    missing = [file for file in files.values() if not recording.has(file)]
    if missing:
        report.notes.append(f"not found: {', '.join(missing)}")
    if len(missing) == 2:
        return
    taps, grads = (recording.load(file) for file in files.values())
    if variant == "noise":
        try:
            recording.noise(variant)
        except KeyError:
            report.notes.append(f"not comparable: {' and '.join(set(files.values()) - set(missing))}; the "
                                "draws (noise_samples.npz) are not there")
            return
    inter = tuple(name.removeprefix("inter/") for name in grads if name.startswith("inter/"))
    runs = {side: recording.run(side, variant, dtype, inter, bool(grads)) for side in SIDES}
    largest = tolerances.scale(*(value for name, value in grads.items() if name.startswith("var/")))
    bounds = PlainBounds(largest) if dtype == "float64" else ErrorBounds.of(
        recording, variant, inter, bool(grads), largest, runs)
    if taps:
        defined = recording.load(f"forward64_{variant}.npz")
        section = report.section(files["forward"], "the recording")
        # Computed order; what only the recording has comes last and fails.
        names = [name for name in runs["reference"].taps if name in taps]
        names += [name for name in taps if is_tap(name) and name not in names and (
            not defined or name in defined)]
        for name in names:
            add_tap(section, name, dtype, taps[name], bounds, runs)
        absent = [name for name in runs["reference"].taps if name not in taps]
        if absent:
            report.notes.append(f"not in {files['forward']}: {len(absent)} taps "
                                f"({', '.join(absent)})")
    if grads:
        add_gradients(report, recording, files["grads"], dtype, grads, bounds, runs)
    if isinstance(bounds, ErrorBounds) and not recording.has(f"forward64_{variant}.npz"):
        section = report.section(f"float64 on the input of {files['forward']}", "the reference")
        for name, expected in bounds.truth.taps.items():
            exact = not np.issubdtype(expected.dtype, np.floating)
            section.add(name, "port", "float64", bounds.port64.taps.get(name), expected,
                        0.0 if exact else tolerances.forward64(expected, tolerances.tap_magnitude(name)))


@dataclass(frozen=True)
class PlainBounds:
    """Bounds of a pass in float64: a share of what is expected.

    Attributes:
        largest: entry of any recorded gradient of a variable.
    """

    largest: float

    def tap(self, side: str, name: str, expected: np.ndarray) -> float:
        """Bound of one tap, the same on both sides."""
        return tolerances.forward64(expected) if np.issubdtype(expected.dtype, np.floating) else 0.0

    def gradient(self, side: str, name: str, expected: np.ndarray) -> float:
        """Bound of one gradient, the same on both sides."""
        return tolerances.gradient64(expected, self.largest)


@dataclass(frozen=True)
class ErrorBounds:
    """Bounds of a pass in float32: from each other's error to the truth.

    Attributes:
        largest: entry of any recorded gradient of a variable.
        runs: the passes in float32, by side.
        truth: the reference's pass in float64, the recording of it where there is one.
        port64: the port's pass in float64, without gradients.
        near: the reference's passes in float64 with inputs an ulp of float32 away.
        parted: the discontinuity that a run is on the other side of, or "".
    """

    largest: float
    runs: dict[str, ModelOutcome]
    truth: ModelOutcome
    port64: ModelOutcome
    near: list[ModelOutcome]
    parted: str

    @classmethod
    def of(cls, recording: Recording, variant: str, inter: tuple[str, ...], gradients: bool, largest: float,
           runs: dict[str, ModelOutcome]) -> ErrorBounds:
        """Run what the bounds need."""
        own = recording.run("reference", variant, "float64", inter, gradients)
        truth = ModelOutcome(own.taps | recording.load(f"forward64_{variant}.npz"),
                             own.gradients | recording.load(f"grads64_{variant}.npz"))
        near = [recording.run("reference", variant, "float64", inter, gradients, tolerances.ULP32, i)
                for i in range(N_MOVES)]
        arguments = recording.config.to_arguments()
        parted = next(filter(None, (models.same_pieces(run, own, arguments) for run in runs.values())), "")
        return cls(largest, runs, truth, recording.run("port", variant, "float64", (), False), near, parted)

    def own(self, side: str, name: str, recorded: np.ndarray, kind: str) -> np.ndarray | None:
        """What is to have float32's error here: for the port the reference, for it the recording."""
        if side == "reference":
            return recorded
        outcome = self.runs["reference"]
        return outcome.taps.get(name) if kind == "tap" else outcome.gradients.get(name)

    def tap(self, side: str, name: str, expected: np.ndarray) -> float:
        """Bound of one tap of one side."""
        if not np.issubdtype(expected.dtype, np.floating):
            return 0.0
        truth = self.truth.taps.get(name, expected)
        own = self.own(side, name, expected, "tap")
        effect = max(tolerances.error(run.taps[name], truth) for run in self.near)
        return tolerances.recorded32(tolerances.forward32(
            truth, expected if own is None else own, effect, tolerances.tap_terms(name, self.truth.taps),
            tolerances.tap_magnitude(name)))

    def gradient(self, side: str, name: str, expected: np.ndarray) -> float:
        """Bound of one gradient of one side."""
        truth, near = (zeros_for_none(run.gradients.get(name), expected) for run in (self.truth, self.near[0]))
        own = zeros_for_none(self.own(side, name, expected, "gradient"), expected)
        return tolerances.recorded32(tolerances.gradient32(truth, own, self.largest,
                                                           tolerances.error(near, truth)))


def without_sigmoid_tail(name: str, recorded: np.ndarray, bounds: ErrorBounds) -> np.ndarray:
    """A float32 recording of log-presences, free of what the original's own sigmoid loses in the tail.

    An entry that is explained by that is replaced by the truth; any other stands as it is.
    """
    truth, presence = (bounds.truth.taps.get(tap) for tap in (name, "res/mixing_logits"))
    if name not in LOG_PRESENCES or truth is None or truth.shape != recorded.shape:
        return recorded
    with np.errstate(invalid="ignore"):
        explained = np.abs(recorded - truth) <= tolerances.sigmoid_tail32(presence)
    return np.where(explained, truth, recorded).astype(recorded.dtype)


def add_tap(section: Section, name: str, dtype: str, expected: np.ndarray,
            bounds: PlainBounds | ErrorBounds, runs: dict[str, ModelOutcome]) -> None:
    """One row for each side."""
    if isinstance(bounds, ErrorBounds):
        expected = without_sigmoid_tail(name, expected, bounds)
    for side, run in runs.items():
        bound = bounds.tap(side, name, expected) if name in run.taps else 0.0
        section.add(name, side, dtype, run.taps.get(name), expected, bound)


def add_gradients(report: Report, recording: Recording, file: str, dtype: str, grads: Arrays,
                  bounds: PlainBounds | ErrorBounds, runs: dict[str, ModelOutcome]) -> None:
    """Every recorded gradient; a variable has none only if the manifest's `no_gradient` names it."""
    if isinstance(bounds, ErrorBounds) and bounds.parted:
        report.notes.append(f"not comparable: {file}; float32 falls on the other side of a discontinuity "
                            f"({bounds.parted}) than float64")
        return
    section = report.section(file, "the recording", "gradients")
    for name, expected in grads.items():
        for side, run in runs.items():
            if name.startswith("inter/") and name.removeprefix("inter/") not in run.taps:
                section.add(name, side, dtype, None, expected)
                continue
            section.add(name, side, dtype, zeros_for_none(run.gradients.get(name), expected), expected,
                        bounds.gradient(side, name, expected))
    none = {f"var/{name}" for name in recording.manifest.get("no_gradient", [])}
    for name in sorted(none):
        for side, run in runs.items():
            gradient = run.gradients.get(name)
            if gradient is not None:
                section.add(name, side, dtype, None, gradient, note="has a gradient, recorded as none")
    absent = [name for name in runs["reference"].gradients
              if name.startswith("var/") and name not in grads and name not in none]
    if absent:
        report.notes.append(f"not in {file}: the gradients of {len(absent)} variables "
                            f"({', '.join(absent)})")
