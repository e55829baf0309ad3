"""Whole-model configurations drawn by hypothesis, and port against reference on one of them.

`verify_model(case)` needs no pytest: the mutation tests call it too.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.harness import covering, models, recorder, tolerances
from parity_tests.harness.compare import ParityError, Where, check, zeros_for_none
from parity_tests.harness.models import ModelOutcome
from parity_tests.harness.reference_values import kept
from parity_tests.harness.sides import Arrays
from parity_tests.harness.strategies import Maker

OP = "scae.model.ImageAutoencoder"
N_STEPS = 3
# Runs of the truth with inputs an ulp away. One number upstream can carry most of a tap's error, and
# the ratio of two single errors is often large: three draws make a small maximum rare.
N_MOVES = 3
LR = 1e-3
RMSPROP = {"decay": 0.9, "momentum": 0.9, "epsilon": 6.25e-4}


@dataclass(repr=False)
class ModelCase:
    """One configuration with its data.

    Attributes:
        arguments: nested class arguments.
        images: `[N_STEPS, B, S, S, C]`.
        labels: `[N_STEPS, B]`, or None.
        noise: one list of raw draws a step, or None.
        seed: of the weights.
    """

    arguments: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray | None
    noise: list[list[np.ndarray]] | None
    seed: int

    @property
    def op(self) -> str:
        """Name in the registry."""
        return OP

    @property
    def inter(self) -> list[str]:
        """Taps with respect to which the loss is differentiated too."""
        return models.inter_of(self.arguments)

    def __repr__(self) -> str:
        return (f"ModelCase(images {list(self.images.shape)}, labels {self.labels is not None}, noise "
                f"{self.noise is not None}, seed {self.seed}, {json.dumps(self.arguments)})")


def draw_model(m: Maker) -> ModelCase:
    """A small model with every setting drawn."""
    parts, objects, batch, features = m.sizes(4, 2, 5)
    channels, canvas = m.choice([1, 3]), m.size(10, 14)
    features = m.choice([features, features, 0])
    repairs = sorted(importlib.import_module("port.core.quirks").MODEL_REPAIRS)
    chosen = [repair for repair in repairs if m.flag(3)] if m.flag(3) else []
    arguments = {
        "canvas": canvas, "channels": channels, "repairs": chosen,
        "cnn": {"output_channels": m.sizes(2, 3, 6), "kernel_shapes": m.choice([[3], [3, 2]]),
                "strides": [2, 1], "paddings": "VALID", "activate_final": not m.flag(4)},
        "part_encoder": {"n_caps": parts, "n_caps_dims": 6, "n_features": features,
                         "noise_scale": m.choice([4.0, 1.5, 0.5, 0.0]),
                         "similarity_transform": m.flag(3),
                         "encoder_type": m.choice(["conv_att", "conv_att", "conv", "linear"])},
        "part_decoder": {"template_size": m.sizes(2, 3, 6), "n_channels": channels,
                         "learn_output_scale": m.flag(3),
                         "colorize_templates": bool(features) and not m.flag(3),
                         "template_nonlin": m.choice(["relu1", "sigmoid"]),
                         "color_nonlin": m.choice(["relu1", "sigmoid"]),
                         "use_alpha_channel": m.flag()},
        "obj_encoder": {"n_layers": m.size(1, 3), "n_heads": m.choice([1, 1, 2]),
                        "n_dims": m.size(4, 7), "n_output_dims": m.size(3, 8), "n_outputs": objects,
                        "layer_norm": not m.flag(3), "dropout_rate": m.choice([0.0, 0.0, 0.3]),
                        "n_inducing_points": m.choice([0, 0, 0, 3])},
        "obj_decoder": {"n_caps": objects, "n_caps_dims": 2, "n_votes": parts,
                        "n_caps_params": m.size(2, 6), "n_hiddens": m.choice([7, 5, [6, 4]]),
                        "learn_vote_scale": not m.flag(3), "deformations": not m.flag(3),
                        "noise_type": m.choice(["uniform", "uniform", "logistic", "normal", None]),
                        "noise_scale": m.choice([4.0, 2.0]), "similarity_transform": m.flag(3),
                        "caps_dropout_rate": m.choice([0.0, 0.0, 0.3])},
        "autoencoder": _autoencoder(m)}
    # Held exactly by float32, so that both precisions see the same images.
    images = m.uniform(N_STEPS, batch, canvas, canvas, channels).astype(np.float32)
    labels = None if m.flag(5) else m.rng.integers(
        0, arguments["autoencoder"]["n_classes"], (N_STEPS, batch))
    noise = None if m.flag(4) else [draw_noise(m.rng, arguments, batch) for _ in range(N_STEPS)]
    encoder = arguments["obj_encoder"]
    if not encoder["dropout_rate"] and not encoder["n_inducing_points"] and m.flag(4):
        arguments["autoencoder"]["object_encoder"] = "mlp"
    return ModelCase(arguments, images, labels, noise, m.seed)


def _autoencoder(m: Maker) -> dict[str, Any]:
    kinds = ["l2", "entropy", "kl"]
    weights = {f"{kind}_{place}_example_sparsity_weight": m.choice([0.3, 1.0, 2.0])
               for kind in ("prior", "posterior") for place in ("within", "between")}
    return weights | {
        "n_classes": m.choice([10, 3]), "dynamic_l2_weight": m.choice([10.0, 0.5]),
        "caps_ll_weight": m.choice([1.0, 0.7]), "vote_type": m.choice(["enc", "soft", "hard"]),
        "pres_type": m.choice(["enc", "soft", "hard"]), "stop_grad_caps_inpt": not m.flag(3),
        "stop_grad_caps_target": not m.flag(3), "prior_sparsity_loss_type": m.choice(kinds),
        "prior_within_example_constant": m.choice([0.0, 0.0, 1.3]),
        "posterior_sparsity_loss_type": m.choice(kinds),
        "primary_caps_sparsity_weight": m.choice([0.0, 0.4]),
        "rec_ll_weight": m.choice([1.0, 1.0, 0.6]),
        "template_l1_weight": m.choice([0.0, 0.0, 0.4, 2.0]),
        "mse_weight": m.choice([0.0, 0.0, 0.4, 2.0]),
        "weight_decay": m.choice([0.0, 0.05]), "feed_templates": not m.flag(3),
        "probe": not m.flag(5), "target": m.choice(["image", "image", "sobel"])}


def noise_kinds(arguments: dict[str, Any]) -> list[tuple[str, tuple[int, ...]]]:
    """Kind and shape of the raw draws of one example, in the order in which the original draws.

    Written from the recordings' manifests, not from the port's own plan.
    """
    part = arguments["part_encoder"]
    kinds: list[tuple[str, tuple[int, ...]]] = []
    if part["noise_scale"] > 0:
        kinds.append(("uniform from 0", (part["n_caps"],)))
    if "obj_decoder" in arguments:
        kinds += _level_kinds(part["n_caps"], arguments["obj_encoder"], arguments["obj_decoder"])
    if "upper_decoder" in arguments:
        kinds += _level_kinds(arguments["obj_decoder"]["n_caps"], arguments["upper_encoder"],
                              arguments["upper_decoder"])
    return kinds


def _level_kinds(n_tokens: int, encoder: dict[str, Any], decoder: dict[str, Any]
                 ) -> list[tuple[str, tuple[int, ...]]]:
    kinds: list[tuple[str, tuple[int, ...]]] = []
    if encoder["dropout_rate"] > 0:
        kinds += [("keep", (n_tokens, encoder["n_dims"]))] * (2 * encoder["n_layers"])
    if decoder["caps_dropout_rate"] > 0:
        kinds.append(("keep capsules", (decoder["n_caps"], 1)))
    if decoder["noise_type"] is not None:
        kinds += [(decoder["noise_type"], (decoder["n_caps"], 1)),
                  (decoder["noise_type"], (decoder["n_caps"], decoder["n_votes"]))]
    return kinds


def draw_noise(rng: np.random.Generator, arguments: dict[str, Any], batch: int) -> list[np.ndarray]:
    """Raw draws in the original's order; at least one capsule of an example is kept."""
    raw = []
    for kind, shape in noise_kinds(arguments):
        shape = (batch, *shape)
        if kind.startswith("uniform"):
            value = rng.random(shape) - (0.0 if kind == "uniform from 0" else 0.5)
        elif kind.startswith("keep"):
            value = (rng.random(shape) > 0.3).astype(np.float64)
            if kind == "keep capsules":
                value[:, 0] = 1.0
        else:
            value = 2.0 * rng.standard_normal(shape)
        raw.append(value.astype(np.float32))
    return raw


def covering_case(row: dict[str, Any], index: int) -> ModelCase:
    """A whole-model case from one covering row."""
    arguments, rng = covering.arguments(row, index), np.random.default_rng(100 + index)
    side, batch = arguments["canvas"], row["batch"]
    images = rng.random((N_STEPS, batch, side, side, row["channels"])).astype(np.float32)
    labels = rng.integers(0, 10, (N_STEPS, batch)) if row["label"] else None
    noise = [draw_noise(rng, arguments, batch) for _ in range(N_STEPS)] if row["noise"] else None
    return ModelCase(arguments, images, labels, noise, 100 + index)


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
    expected = kept(("steps", n_steps), OP, case, lambda: [
        models.copied(found) for found in trajectory(case, "reference", weights, n_steps)])
    ours = trajectory(case, "port", weights, n_steps)
    outcome = next(ours)
    verify64(case, {"reference": expected[0], "port": outcome}, weights, reproduce)
    if float32:
        verify32(case, weights, expected[0], reproduce)
    verify_steps(case, itertools.chain([outcome], ours), expected, reproduce)


def trajectory(case: ModelCase, side: str, weights: Arrays, n_steps: int
               ) -> Iterator[ModelOutcome | Arrays]:
    """RMSProp steps of one side in float64: in turn the outcome before an update, the variables after.

    Every tap of the first outcome, of the others the loss and the gradients alone. An update may change
    the memory that an outcome looks at, so each is used or copied before the next is asked for.
    """
    model = models.build(side, case.arguments, "float64", case.seed)
    models.load(side, model, weights)
    step = models.optimizer_step(side, model, LR, RMSPROP, {})
    for i in range(n_steps):
        outcome = run(case, side, model, "float64", i, taps=i == 0)
        yield outcome
        step(outcome)
        yield models.variables_of(side, model)


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


def verify_steps(case: ModelCase, ours: Iterable[ModelOutcome | Arrays],
                 expected: Sequence[ModelOutcome | Arrays], reproduce: str) -> None:
    """A few RMSProp steps in float64: losses before each update and the variables after it."""
    allowed, largest = 0.0, 0.0
    for i, (found, truth) in enumerate(zip(ours, expected, strict=True)):
        update = i // 2
        if isinstance(truth, ModelOutcome):
            largest, loss = truth.largest, truth.taps["loss/total"]
            if update:
                check(_where(case, f"loss before update {update}", "float64", reproduce),
                      found.taps["loss/total"], loss,
                      10 * tolerances.forward64(loss) + allowed * largest)
            continue
        allowed += tolerances.step64(LR, largest)
        for name, value in truth.items():
            check(_where(case, f"{name} after update {update}", "float64", reproduce), found[name],
                  value, tolerances.forward64(value) + allowed)


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


# Every value of every option, nearly every pair of values; run in every tier.
SPECIAL = tuple(covering_case(row, index) for index, row in enumerate([*covering.rows(), covering.MLP]))
