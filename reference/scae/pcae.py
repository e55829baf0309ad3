"""Part capsules alone: images to parts and back, without object capsules, in TensorFlow 2.

Read beside `port/scae/pcae.py`: same names, same order of computation; images are channels last here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import losses, mixture, ops, preprocess
from reference.core.module import NamedModule, Taps
from reference.scae import part_decoder as decoders
from reference.scae import part_encoder as encoders
from reference.scae.model import Result

Array = Float[tf.Tensor, "..."]


def total_loss(terms: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    """The optimised scalar: -w·rec_ll + w·template_l1 + w·rec_mse + w·primary_caps_l1 + weight decay.

    Args:
        terms: scalars by name; `rec_mse` only where its weight is not 0.
        weights: the argument section `autoencoder`.

    Returns:
        A scalar.

    Source: mlberkeley/scae-pytorch `models/pcae.py`; the last two terms are those of the original.
    """
    loss = -weights["rec_ll_weight"] * terms["rec_ll"]
    loss += weights["template_l1_weight"] * terms["template_l1"]
    if weights["mse_weight"] > 0:
        loss += weights["mse_weight"] * terms["rec_mse"]
    loss += weights["primary_caps_sparsity_weight"] * terms["primary_caps_l1"]
    if "weight_decay_loss" in terms:
        loss += weights["weight_decay"] * terms["weight_decay_loss"]
    return loss


class PartAutoencoder(NamedModule):
    """Part capsule autoencoder: part encoder, template decoder, three terms of loss.

    Args:
        arguments: nested class arguments (`canvas`, `channels`, `cnn`, `part_encoder`, `part_decoder`,
            `autoencoder`, `repairs`).
        seed: draws the initial weights, the same as the image model's part capsules.
        dtype: `tf.float32` or `tf.float64`.

    Source: the part capsules of the original `scae.py: ImageAutoencoder`; losses as in
    mlberkeley/scae-pytorch `models/pcae.py`.
    """

    def __init__(self, arguments: Mapping[str, Any], seed: int = 0,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__("", dtype)
        self.arguments = a = {**arguments, "repairs": arguments.get("repairs", ())}
        part, rng = a["part_encoder"], np.random.default_rng(seed)
        self.part_encoder = encoders.PartEncoder(
            "capsule_image_encoder", a["canvas"], a["channels"], a["cnn"], part, rng,
            "transposed" if "Q02" in a["repairs"] else "faithful", dtype=dtype)
        self.part_decoder = decoders.PartDecoder(
            "template_based_image_decoder", a["canvas"], part["n_caps"], part["n_features"],
            a["part_decoder"], rng, dtype)

    def decayed_weights(self) -> list[tf.Variable]:
        """The variables under weight decay: those named `w` or `weights` (Q15)."""
        return [variable for name, variable in self.variables_by_name.items()
                if name.rpartition("/")[2] in ("w", "weights")]

    def __call__(self, image: Array, label: tf.Tensor | None = None,
                 noise: Sequence[Array] | None = None, taps: bool = False,
                 target: Array | None = None, tape: tf.GradientTape | None = None) -> Result:
        """One forward pass.

        Args:
            image: `[B, S, S, C]` in [0, 1].
            label: not used; parts know no classes.
            noise: one raw draw `[B, K]` for the parts' presences; None for no noise.
            taps: record every intermediate.
            target: what is reconstructed, `[B, S, S, C]`; by default as for the image model.
            tape: watches taps that no variable reaches, so that gradients can be taken there.
        """
        settings = self.arguments["autoencoder"]
        image = tf.cast(image, self.dtype)
        if target is None:
            edges = settings["target"] == "sobel"
            target = preprocess.normalized_sobel_edges(image) if edges else image
        else:
            target = tf.cast(target, self.dtype)
        log, draw = Taps(tape), None
        if noise and self.arguments["part_encoder"]["noise_scale"] > 0:
            draw = tf.cast(noise[0], self.dtype)
        parts = self.part_encoder(image, draw, log)
        templates = self.part_decoder.make_templates(parts.feature, log)
        decoded = self.part_decoder(parts.pose, parts.presence, templates)
        log_prob = mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means, decoded.scale)
        scalars = {"rec_ll": ops.flat_reduce(log_prob),
                   "template_l1": losses.template_l1(self.part_decoder.templates),
                   "primary_caps_l1": ops.flat_reduce(parts.presence)}
        mean = mixture.mixture_mean(decoded.mixing_logits, decoded.means)
        if taps or settings["mse_weight"] > 0:
            scalars["rec_mse"] = tf.reduce_mean(tf.square(target - mean))
        if settings["weight_decay"] > 0:
            scalars["weight_decay_loss"] = losses.weight_decay_loss(self.decayed_weights())
        loss = total_loss(scalars, settings)
        if taps:
            log["input/image"] = image
            log["part_dec/inverse_pose"] = self.part_decoder.sampled_pose(parts.pose)
            log["part_dec/transformed_templates"] = decoded.transformed_templates
            log["part_dec/mixing_logits_with_bg"] = decoded.mixing_logits
            log["part_dec/mean"] = mean
            log["part_dec/log_prob_per_pixel"] = log_prob
            if self.part_decoder.scale is not None:
                log["part_dec/scale"] = decoded.scale
            log["res/rec_mean"], log["res/primary_presence"] = mean, parts.presence
            log.update({f"res/{name}": value for name, value in scalars.items()})
            log["loss/total"] = loss
        return Result(loss, scalars, None, None, parts.presence, None, None, log if taps else None)
