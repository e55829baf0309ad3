"""Whole-model configurations: drawn by hypothesis, and fixed ones; `drawn.verify` compares both sides."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity_tests.harness import covering, models
from parity_tests.harness.strategies import Maker

OP = "scae.model.ImageAutoencoder"
N_STEPS = 3


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


# Every value of every option, nearly every pair of values; run in every tier.
SPECIAL = tuple(covering_case(row, index) for index, row in enumerate([*covering.rows(), covering.MLP]))
