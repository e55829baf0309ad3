"""The constellation autoencoder of the original's `capsules/models/constellation.py`, in TensorFlow 2.

Read beside `port/constellation/model.py`: same names, same order of computation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.constellation import decoder as decoders
from reference.core import attention, losses
from reference.core.module import NamedModule, Taps
from reference.scae.model import Result

Array = Float[tf.Tensor, "..."]


def total_loss(terms: Mapping[str, Array], weights: Mapping[str, float], with_mixing_kl: bool = False
               ) -> Array:
    """The optimised scalar.

    -log_prob + w·sparsity_loss + w·dynamic_weights_l2 + Σ over posterior and prior of (w·within -
    w·between). The mixing KL is in no loss (Q33).

    Args:
        terms: scalars by the names of the original's result.
        weights: the argument section `autoencoder`.
        with_mixing_kl: add it with its weight, the repair of Q33.

    Returns:
        A scalar.

    Source: original `models/constellation.py: ConstellationAutoencoder._loss`.
    """
    loss = -terms["log_prob"] + weights["sparsity_weight"] * terms["sparsity_loss"]
    loss += weights["dynamic_l2_weight"] * terms["dynamic_weights_l2"]
    for kind in ("posterior", "prior"):
        loss += (weights[f"{kind}_within_example_sparsity_weight"]
                 * terms[f"{kind}_within_sparsity_loss"])
        loss -= (weights[f"{kind}_between_example_sparsity_weight"]
                 * terms[f"{kind}_between_sparsity_loss"])
    if with_mixing_kl:
        loss += weights["mixing_kl_weight"] * terms["mixing_kl"]
    return loss


class ConstellationAutoencoder(NamedModule):
    """Points to object capsules and back: set transformer, votes, likelihood, losses.

    Args:
        arguments: nested class arguments (`obj_encoder`, `obj_decoder`, `autoencoder`, `repairs`).
        seed: draws the initial weights.
        dtype: `tf.float32` or `tf.float64`.

    Source: original `models/constellation.py: ConstellationAutoencoder`; paper section 2.1.
    """

    def __init__(self, arguments: Mapping[str, Any], seed: int = 0,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__("", dtype)
        self.arguments = a = {**arguments, "repairs": tuple(arguments.get("repairs", ()))}
        repairs, encoder, rng = a["repairs"], a["obj_encoder"], np.random.default_rng(seed)
        self.object_encoder = attention.SetTransformer(
            "set_transformer", decoders.N_DIMS, encoder["n_layers"], encoder["n_heads"],
            encoder["n_dims"], encoder["n_output_dims"], encoder["n_outputs"], encoder["layer_norm"],
            rng, encoder["n_inducing_points"], encoder["dropout_rate"],
            "log_presence" if "Q01" in repairs else "faithful", dtype)
        plain = a["obj_decoder"]["klass"] == "ConstellationDecoder"
        kind = decoders.ConstellationDecoder if plain else decoders.ConstellationCapsule
        scope = "constellation_decoder" if plain else "constellation_capsule"
        self.object_decoder = kind(scope, encoder["n_output_dims"], a["obj_decoder"], rng, repairs,
                                   dtype)

    def assign_noise(self, raw: Sequence[Array] | None) -> dict[str, Any]:
        """Raw draws, in the original's order, by their use; see the port's `noise_plan`."""
        draws = [] if raw is None else [tf.cast(r, self.dtype) for r in raw]
        encoder, decoder = self.arguments["obj_encoder"], self.arguments["obj_decoder"]
        uses: dict[str, Any] = {}
        if draws and encoder["dropout_rate"] > 0:
            uses["attention"] = [draws.pop(0) for _ in range(2 * encoder["n_layers"])]
        if draws and decoder["caps_dropout_rate"] > 0:
            uses["caps_mask"] = draws.pop(0)
        if draws and decoder["noise_type"] is not None:
            uses["caps"], uses["vote"] = draws.pop(0), draws.pop(0)
        if draws:
            raise ValueError(f"{len(draws)} raw draws too many for this configuration")
        return uses

    def __call__(self, points: Array, presence: Array | None = None,
                 noise: Sequence[Array] | None = None, taps: bool = False,
                 tape: tf.GradientTape | None = None) -> Result:
        """One forward pass.

        Args:
            points: `[B, M, 2]`.
            presence: `[B, M]`, 1 for a point that is there; None for all.
            noise: raw draws in the original's order; None for no noise.
            taps: record every intermediate.
            tape: watches the points, so that a gradient can be taken there.
        """
        settings, repairs = self.arguments["autoencoder"], self.arguments["repairs"]
        draws, log = self.assign_noise(noise), Taps(tape)
        points = log.watch(tf.cast(points, self.dtype))
        presence = None if presence is None else tf.cast(presence, self.dtype)
        log["input/corners"] = log["obj_enc/input"] = points
        if presence is not None:
            log["input/presence"] = log["obj_enc/presence"] = presence
        encoded, steps = self.object_encoder(points, presence, draws.get("attention"))
        for i, (before, after) in enumerate(steps):
            log[f"obj_enc/layer{i}_in"], log[f"obj_enc/layer{i}_out"] = before, after
        log["obj_enc/output"] = encoded
        explained = self.object_decoder(encoded, points, presence, draws.get("caps"),
                                        draws.get("vote"), draws.get("caps_mask"))

        likelihood, n_points = explained.likelihood, points.shape[1]
        posterior = likelihood.posterior_mixing_probs
        mass_explained_by_votes = tf.reduce_sum(posterior, 1)
        by_capsule = tf.reshape(mass_explained_by_votes, [*explained.pres_logit_per_caps.shape, -1])
        share = mass_explained_by_votes / n_points  # Q35: of votes, not of capsules, and of absent points too
        if "Q35" in repairs:
            there = tf.ones_like(points[..., 0]) if presence is None else presence
            present = tf.reduce_sum(posterior * there[..., None], 1)
            share = tf.reduce_sum(tf.reshape(present, by_capsule.shape), -1) / tf.maximum(
                tf.reduce_sum(there, 1, keepdims=True), 1.0)
        scalars = {"log_prob": likelihood.log_prob, "dynamic_weights_l2": explained.dynamic_weights_l2,
                   "mixing_kl": explained.mixing_kl, "sparsity_loss": explained.sparsity_loss,
                   "mean_scale": tf.reduce_mean(explained.scale)}
        for kind, p in (("posterior", share), ("prior", explained.caps_presence_prob)):
            constant = settings["prior_within_example_constant"] if kind == "prior" else 0.0
            within, between = losses.sparsity_loss(
                settings[f"{kind}_sparsity_loss_type"], p, settings["n_classes"], constant)
            scalars[f"{kind}_within_sparsity_loss"] = within
            scalars[f"{kind}_between_sparsity_loss"] = between
        loss = total_loss(scalars, settings, "Q33" in repairs)
        if taps:
            self._record(log, explained, scalars)
            log["loss/total"], log["loss/mass_explained_by_capsule"] = loss, mass_explained_by_votes
        return Result(loss, scalars, tf.reduce_sum(by_capsule, -1), explained.caps_presence_prob,
                      presence, None, None, log if taps else None)

    def _record(self, log: Taps, explained: decoders.Explained, scalars: dict[str, Array]) -> None:
        """The original's result fields."""
        log["obj_dec/all_params"] = explained.all_params
        fields = {**explained.likelihood._asdict(), "vote": explained.vote, "scale": explained.scale,
                  "pres_logit_per_caps": explained.pres_logit_per_caps,
                  "pres_logit_per_vote": explained.pres_logit_per_vote,
                  "raw_caps_params": explained.raw_caps_params,
                  "raw_caps_features": explained.raw_caps_features, "transform": explained.transform,
                  "caps_presence_prob": explained.caps_presence_prob, **scalars}
        log.update({f"res/{name}": value for name, value in fields.items() if value is not None})
