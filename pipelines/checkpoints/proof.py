"""The proof of a conversion: every tensor equal, then both sides on the same input.

Bounds are those of `parity_tests/harness/tolerances.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

import port
from parity_tests.harness import models, tolerances
from parity_tests.harness.models import ModelOutcome
from pipelines.checkpoints import original
from pipelines.checkpoints.comparison import Report
from port.checkpoints import contents, convert
from port.config import SPELLINGS, AnyConfig
from port.constellation import data as constellation_data
from port.families import Model, family_of

BATCH = 2
N_MOVES = 3
# An input where float32 falls on the other side of an argmax than float64 proves nothing about the port; the examples
# on which it does are drawn anew then, at most so often. Every second time they have strokes in place of noise: a model
# that was trained on digits explains noise so badly that in float32 every image of it has a winner that float64 does
# not have.
N_INPUTS = 6
N_STROKES = 3

# Taps that choose, the axis of the argmax (None: the tap is the choice itself, or one side of a half), in words.
PIECES = (("obj_enc/presence", 1, "the most present part"),
          ("part_dec/mixing_logits_with_bg", 1, "a pixel's strongest component"),
          ("lengths", 1, "the longest class capsule"), ("classes/activation", -1, "the most active class"),
          ("res/is_from_capsule", None, "a part's winning capsule"), ("res/vote_presence", None, "a vote's presence"))

# Scalars of a pass without taps, which takes other code where kernels are fused.
FAST = " (no taps)"

Arrays = Mapping[str, np.ndarray]


def tensors(report: Report, source: contents.Contents, model: Model,
            slots: Mapping[str, Mapping[str, torch.Tensor]], step: int | None) -> None:
    """Every variable, slot and the step of a converted model against its source, bit for bit."""
    section = report.section("tensors", "the checkpoint", "tensors")
    ours = convert.to_tf(model) | convert.slots_to_tf(model, slots)
    theirs = source.variables | source.slots
    for name, expected in theirs.items():
        actual = ours.get(name)
        row = section.add(name, "port", "bits", actual, expected)
        if row.verdict == "exact" and actual.tobytes() != expected.tobytes():
            section.rows[-1] = row = replace(row, verdict="fail", note="another dtype or other bits")
    for name in ours:
        if name not in theirs:
            section.add(name, "port", "bits", None, np.zeros(()), note="not in the checkpoint")
    if source.step is not None or step is not None:
        section.add("global_step", "port", "bits", None if step is None else np.int64(step),
                    np.int64(-1 if source.step is None else source.step))


def reading(report: Report, found: original.Original) -> None:
    """What TensorFlow's own reader has of the same checkpoint, bit for bit.

    Types that NumPy lacks come widened here and as they are there; they are compared by value.
    """
    import reference

    section = report.section("the checkpoint, read without TensorFlow", "TensorFlow's reader", "tensors")
    opened = port.read_checkpoint(found.prefix)
    try:
        theirs = reference.read_checkpoint(found.prefix)
    except reference.CheckpointError as error:
        if "not supported" in str(error):  # slices of format V1, or of a type
            report.notes.append(f"not compared with TensorFlow's own reader: {error}")
        else:
            section.add(found.prefix.name, "port", "bits", None, np.zeros(()), note=f"refused: {error}")
        return
    for name in {**dict.fromkeys(theirs), **dict.fromkeys(opened)}:
        ours, expected = opened.get(name), theirs.get(name)
        if expected is None:
            section.add(name, "port", "bits", None, np.zeros(()), note="TensorFlow has no such array")
        elif ours is not None and ours.dtype == object:
            continue  # strings, which no model has
        else:
            row = section.add(name, "port", "bits", ours, expected)
            if row.verdict == "exact" and ours.dtype == expected.dtype and (
                    ours.tobytes() != expected.tobytes()):
                section.rows[-1] = replace(row, verdict="fail", note="other bits")


class Input:
    """A random batch: image and label or points and presences, and noise; float32 holds it exactly.

    Args:
        config: of the model.
        seed: of all that is drawn.
        batch: number of examples.
        drawn: strokes on black, where pixels would be noise.
    """

    def __init__(self, config: AnyConfig, seed: int, batch: int = BATCH, drawn: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.clipped = config.kind != "constellation"
        if config.kind == "constellation":
            points = constellation_data.create(np.random.RandomState(seed), batch, drop_prob=0.3)
            self.image, self.label = points.corners, points.presence
        else:
            side = config.canvas
            self.image = strokes(rng, batch, side, config.channels) if drawn else rng.random(
                (batch, side, side, config.channels)).astype(np.float32)
            self.label = None
            if config.kind in SPELLINGS:
                self.label = rng.integers(0, config.n_classes, batch)
            elif config.autoencoder.probe:
                self.label = rng.integers(0, config.autoencoder.n_classes, batch)
        self.noise = None
        if family_of(config).draws:
            noise = port.Noise.draw(torch.Generator().manual_seed(seed), config, batch)
            self.noise = [raw.numpy() for raw in noise.raw] or None

    def replace(self, examples: np.ndarray, other: Input) -> None:
        """Take some examples, `[B]` of bool, from another input, noise included."""
        def mixed(own: np.ndarray, theirs: np.ndarray) -> np.ndarray:
            return np.where(examples.reshape(-1, *[1] * (own.ndim - 1)), theirs, own)
        self.image = mixed(self.image, other.image)
        self.label = None if self.label is None else mixed(self.label, other.label)
        self.noise = None if self.noise is None else [
            mixed(own, theirs) for own, theirs in zip(self.noise, other.noise, strict=True)]

    def run(self, side: str, model: object, dtype: str, image: np.ndarray | None = None,
            taps: bool = True) -> ModelOutcome:
        """Taps of one side (or scalars alone, the way training runs), without gradients."""
        return models.forward(side, model, self.image if image is None else image, self.label,
                              self.noise, dtype, taps=taps, gradients=False)

    def run_port(self, model: object, dtype: str) -> ModelOutcome:
        """Taps of the port, and its scalars once more as the fast path gives them."""
        outcome = self.run("port", model, dtype)
        fast = self.run("port", model, dtype, taps=False).taps
        return ModelOutcome(outcome.taps | {name + FAST: value for name, value in fast.items()}, {})


def strokes(rng: np.random.Generator, batch: int, side: int, channels: int) -> np.ndarray:
    """A few soft lines on black: shape [B, H, W, C], values in [0, 1].

    Args:
        rng: draws the ends of the lines, in the middle half of the image, and their colours.
        batch: number of images.
        side: height and width in pixels.
        channels: of a colour.
    """
    ends = rng.uniform(0.25, 0.75, (batch, N_STROKES, 2, 1, 2)) * side
    along = np.linspace(0.0, 1.0, 2 * side)[:, None]
    points = ends[:, :, 0] + (ends[:, :, 1] - ends[:, :, 0]) * along  # [B, strokes, points, 2]
    pixels = np.stack(np.mgrid[:side, :side], -1).reshape(-1, 2)
    apart = np.sqrt(((pixels[:, None] - points[:, :, None]) ** 2).sum(-1)).min(-1)  # [B, strokes, pixels]
    colour = rng.uniform(0.5, 1.0, (batch, N_STROKES, 1, channels))
    ink = (np.clip(1.5 - apart, 0.0, 1.0)[..., None] * colour).max(1)
    return ink.reshape(batch, side, side, channels).astype(np.float32)


def build(side: str, config: AnyConfig, variables: Arrays, dtype: str) -> object:
    """One side's model with given variables."""
    model = models.build(side, config.to_arguments(), dtype)
    models.load(side, model, {name: np.asarray(value, dtype) for name, value in variables.items()})
    return model


def moved(value: np.ndarray, ulp: float, rng: np.random.Generator) -> np.ndarray:
    """Every entry up to one ulp away, in float64."""
    value = np.asarray(value, np.float64)
    return value * (1.0 + ulp * rng.uniform(-1, 1, value.shape))


def forward(report: Report, config: AnyConfig, source: Arrays, converted: Arrays, seed: int = 0) -> None:
    """Both sides on random input: float64 to float64, then both in float32 to float64.

    Args:
        report: gets two sections.
        config: of both models.
        source: the checkpoint's variables, for the reference.
        converted: the converted model's under original names, for the port.
        seed: of the input.
    """
    built = {(side, dtype): build(side, config, source if side == "reference" else converted, dtype)
             for side in ("reference", "port") for dtype in ("float64", "float32")}
    batch = Input(config, seed)
    truth = batch.run("reference", built["reference", "float64"], "float64")
    forward64(report, config, batch, truth, batch.run_port(built["port", "float64"], "float64"), source)
    parted = np.zeros(BATCH, bool)
    for attempt in range(N_INPUTS):
        if attempt:
            batch.replace(parted, Input(config, seed + attempt, drawn=bool(attempt % 2)))
            truth = batch.run("reference", built["reference", "float64"], "float64")
        runs = {"port": batch.run_port(built["port", "float32"], "float32"),
                "reference": batch.run("reference", built["reference", "float32"], "float32")}
        found = [other_piece(run, truth) for run in runs.values()]
        parted = np.logical_or.reduce([examples for _, examples in found])
        if not parted.any():
            break
        words = next(words for words, examples in found if examples.any())
        which = " and ".join(str(i) for i in np.flatnonzero(parted))
        report.notes.append(f"input {attempt}, example {which}: float32 falls on the other side of {words} than "
                            "float64; drawn anew")
    forward32(report, config, batch, truth, runs, source)


def forward64(report: Report, config: AnyConfig, batch: Input, truth: ModelOutcome, ours: ModelOutcome,
              source: Arrays) -> None:
    """Every tap in float64; the problem's own condition is measured where a plain bound is missed."""
    section = report.section("random input, float64", "the reference in float64")
    near = None
    for name, expected in with_fast(truth, ours):
        exact = not np.issubdtype(expected.dtype, np.floating)
        bound = 0.0 if exact else tolerances.forward64(expected, tolerances.tap_magnitude(plain(name)))
        row = section.add(name, "port", "float64", ours.taps.get(name), expected, bound)
        if row.verdict == "fail" and not exact:
            near = near or moved_truth(config, batch, source, tolerances.ULP64, 0)
            bound += tolerances.conditioned64(near.taps[plain(name)], expected)
            section.rows.pop()
            section.add(name, "port", "float64", ours.taps.get(name), expected, bound)
    unexpected(section, ours, truth, "float64")


def plain(name: str) -> str:
    """The tap's name, however it was computed."""
    return name.removesuffix(FAST)


def with_fast(truth: ModelOutcome, ours: ModelOutcome) -> list[tuple[str, np.ndarray]]:
    """Every tap of the truth in order, then what the port's fast path is held to."""
    return [*truth.taps.items(), *((name, truth.taps[plain(name)]) for name in ours.taps
                                   if name.endswith(FAST) and plain(name) in truth.taps)]


def forward32(report: Report, config: AnyConfig, batch: Input, truth: ModelOutcome,
              runs: Mapping[str, ModelOutcome], source: Arrays) -> None:
    """Every tap of both sides in float32 against the reference in float64."""
    section = report.section("random input, float32", "the reference in float64")
    near = [moved_truth(config, batch, source, tolerances.ULP32, draw) for draw in range(N_MOVES)]
    for name, expected in with_fast(truth, runs["port"]):
        bound = 0.0
        if np.issubdtype(expected.dtype, np.floating):
            tap = plain(name)
            effect = max(tolerances.error(run.taps[tap], expected) for run in near)
            bound = tolerances.forward32(expected, runs["reference"].taps[tap], effect,
                                         tolerances.tap_terms(tap, truth.taps),
                                         tolerances.tap_magnitude(tap))
        for side, run in runs.items():
            if side == "port" or not name.endswith(FAST):
                section.add(name, side, "float32", run.taps.get(name), expected, bound)
    unexpected(section, runs["port"], truth, "float32")


def unexpected(section, ours: ModelOutcome, truth: ModelOutcome, dtype: str) -> None:
    """A tap that only the port has is a difference too."""
    for name in ours.taps:
        if plain(name) not in truth.taps:
            section.add(name, "port", dtype, None, np.zeros(()), note="the reference has no such tap")


def moved_truth(config: AnyConfig, batch: Input, source: Arrays, ulp: float, draw: int) -> ModelOutcome:
    """The reference in float64 with every weight and pixel up to one ulp away."""
    rng = np.random.default_rng([7, draw])
    model = build("reference", config, {name: moved(value, ulp, rng) for name, value in source.items()},
                  "float64")
    image = moved(batch.image, ulp, rng)
    return batch.run("reference", model, "float64", np.clip(image, 0.0, 1.0) if batch.clipped else image)


def other_piece(run: ModelOutcome, truth: ModelOutcome) -> tuple[str, np.ndarray]:
    """The first argmax or comparison that parts two runs, in words, and the examples, `[B]`, on which any does.

    Each example is computed by itself, so that one on which two runs part says nothing against the others.
    """
    first, parted = "", np.zeros(BATCH, bool)
    for name, axis, words in PIECES:
        if name not in truth.taps:
            continue
        if axis is not None:
            one, other = (np.argmax(outcome.taps[name], axis) for outcome in (run, truth))
        elif name.endswith("presence"):
            one, other = (outcome.taps[name] > 0.5 for outcome in (run, truth))
        else:
            one, other = (outcome.taps[name] for outcome in (run, truth))
        unlike = (one != other).reshape(BATCH, -1).any(1) if one.shape == other.shape else np.ones(BATCH, bool)
        first, parted = first or words * bool(unlike.any()), parted | unlike
    return first, parted
