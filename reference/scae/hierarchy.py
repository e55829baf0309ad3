"""A third level of capsules on the object capsules, in TensorFlow 2.

Read beside `port/scae/hierarchy.py`: same names, same order of computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import attention, losses
from reference.core.module import NamedModule, Taps
from reference.scae import object_decoder as objects
from reference.scae.model import ImageAutoencoder, Objects

Array = Float[tf.Tensor, "..."]


def upper_loss(terms: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    """What the third level adds to the loss.

    -w·upper_log_prob - w·parent_log_prob + w·upper_dynamic_weights_l2 + Σ over posterior and prior of
    (w·within - w·between).

    Args:
        terms: scalars by name.
        weights: the argument section `upper`.

    Returns:
        A scalar.

    Source: ours; the terms of the original `scae.py: ImageAutoencoder._loss`, one level up.
    """
    loss = -weights["caps_ll_weight"] * terms["upper_log_prob"]
    loss -= weights["parent_ll_weight"] * terms["parent_log_prob"]
    loss += weights["dynamic_l2_weight"] * terms["upper_dynamic_weights_l2"]
    for kind in ("posterior", "prior"):
        loss += (weights[f"{kind}_within_example_sparsity_weight"]
                 * terms[f"upper_{kind}_within_sparsity_loss"])
        loss -= (weights[f"{kind}_between_example_sparsity_weight"]
                 * terms[f"upper_{kind}_between_sparsity_loss"])
    return loss


class UpperLevel(NamedModule):
    """Set transformer over object capsules and capsules that vote for the objects' poses.

    Args:
        scope: `upper`; holds `set_transformer` and `image_capsule`.
        n_params: size of an object capsule's parameters.
        encoder: the argument section `upper_encoder`.
        decoder: the argument section `upper_decoder`.
        rng: draws the weights.
        masking: see `attention.qkv_attention`.
        mixing: see `object_decoder.capsule_likelihood`.
        dtype: of the variables.

    Source: ours; the object level of the original `scae.py`, one level up.
    """

    def __init__(self, scope: str, n_params: int, encoder: Mapping[str, Any], decoder: Mapping[str, Any],
                 rng: np.random.Generator, masking: str = "faithful", mixing: str = "faithful",
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.encoder = attention.SetTransformer(
            f"{scope}/set_transformer", objects.N_TRANSFORM_PARAMS + 1 + n_params, encoder["n_layers"],
            encoder["n_heads"], encoder["n_dims"], encoder["n_output_dims"], encoder["n_outputs"],
            encoder["layer_norm"], rng, 0, encoder["dropout_rate"], masking, dtype)
        self.decoder = objects.ImageCapsule(f"{scope}/image_capsule", encoder["n_output_dims"], decoder,
                                            rng, mixing, dtype)

    def __call__(self, pose: Array, presence: Array, params: Array, target_pose: Array,
                 target_presence: Array, draws: Mapping[str, Any] | None = None, taps: Taps | None = None
                 ) -> tuple[objects.CapsuleVotes, Array, objects.Likelihood, Array]:
        """Votes for the objects, flat, likelihood of the objects' poses, presences `[B, U]`.

        Args:
            pose: `[B, O, 6]` of the objects, as input.
            presence: `[B, O]`, as input and as mask.
            params: `[B, O, P]` of the objects, as input.
            target_pose: `[B, O, 6]`, what is explained.
            target_presence: `[B, O]`, its weights.
            draws: raw draws by use (`upper_attention`, `upper_caps_mask`, `upper_caps`, `upper_vote`).
            taps: receives the intermediates.
        """
        draws, taps = {} if draws is None else draws, Taps() if taps is None else taps
        tokens = taps.watch(tf.concat([pose, 1.0 - presence[..., None], params], -1))
        taps["upper_enc/input"] = tokens
        encoded, _ = self.encoder(tokens, presence, draws.get("upper_attention"))
        taps["upper_enc/output"] = encoded
        return self.decoder(encoded, target_pose, target_presence, draws.get("upper_caps"),
                            draws.get("upper_vote"), draws.get("upper_caps_mask"), taps)


class HierarchyAutoencoder(ImageAutoencoder):
    """Three levels of capsules: parts, objects, and capsules above the objects.

    The third level explains the objects' poses; its winning votes, as parent transforms and presences,
    let the objects vote for the parts again.

    Args:
        arguments: those of the image model and the sections `upper_encoder`, `upper_decoder`, `upper`.
        seed: draws the initial weights; those of the lower levels are the image model's.
        dtype: `tf.float32` or `tf.float64`.

    Source: ours, from what the original's `capsule.py: CapsuleLayer` takes (parent transform, parent
    presence) and its author names as deeper hierarchies.
    """

    def __init__(self, arguments: Mapping[str, Any], seed: int = 0,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(arguments, seed, dtype)
        a, repairs = self.arguments, self.arguments["repairs"]
        self.upper = UpperLevel(
            "upper", a["obj_decoder"]["n_caps_params"], a["upper_encoder"], a["upper_decoder"],
            np.random.default_rng([seed, 1]), "log_presence" if "Q01" in repairs else "faithful",
            "normalised" if "Q03" in repairs else "faithful", dtype)

    def above(self, found: Objects, draws: Mapping[str, Any], scalars: dict[str, Array], log: Taps
              ) -> Array:
        """The third level's part of the loss; its terms go into `scalars`."""
        settings, weights = self.arguments["autoencoder"], self.arguments["upper"]
        votes, presence = found.votes, found.caps_presence_prob
        batch, n_objects = presence.shape
        pose = tf.reshape(votes.transform[..., :2, :], [batch, n_objects, objects.N_TRANSFORM_PARAMS])
        log["upper/pose"] = pose
        given, target = (pose, presence), (pose, presence)
        if settings["stop_grad_caps_inpt"]:
            given = tuple(tf.stop_gradient(v) for v in given)
        if settings["stop_grad_caps_target"]:
            target = tuple(tf.stop_gradient(v) for v in target)
        upper, flat, likelihood, upper_presence = self.upper(
            *given, votes.raw_caps_params, *target, draws, log)
        # The third level's best vote for each object is the parent's view of it.
        rows = tf.reshape(likelihood.winner, [batch, n_objects, 1, 2, 3])
        last = tf.constant([[0.0, 0.0, 1.0]], self.dtype) * tf.ones([batch, n_objects, 1, 1, 1], self.dtype)
        again = self.object_decoder.capsule_layer(
            found.encoded, draws.get("caps"), draws.get("vote"), draws.get("caps_mask"),
            tf.concat([rows, last], -2), likelihood.winner_pres[..., None], log)
        down = tf.reshape(again.vote[..., :2, :], [*again.vote.shape[:3], objects.N_TRANSFORM_PARAMS])
        parts = self.object_decoder.capsule_likelihood(
            down, again.scale, again.vote_presence, found.target_pose, found.target_presence)
        scalars |= {"upper_log_prob": likelihood.log_prob, "parent_log_prob": parts.log_prob,
                    "upper_dynamic_weights_l2": upper.dynamic_weights_l2}
        share = tf.reduce_sum(likelihood.posterior_mixing_probs, 1) / n_objects
        for kind, p in (("posterior", share), ("prior", upper_presence)):
            within, between = losses.sparsity_loss(
                weights[f"{kind}_sparsity_loss_type"], p, settings["n_classes"])
            scalars[f"upper_{kind}_within_sparsity_loss"] = within
            scalars[f"upper_{kind}_between_sparsity_loss"] = between
        log["res/upper_vote"], log["res/upper_presence"] = flat, upper_presence
        log["res/upper_winner"], log["res/upper_winner_pres"] = likelihood.winner, likelihood.winner_pres
        log["res/upper_is_from_capsule"] = likelihood.is_from_capsule
        log["res/upper_vote_presence"] = likelihood.vote_presence
        log["res/upper_posterior_mixing_probs"] = likelihood.posterior_mixing_probs
        log["res/parent_vote"], log["res/parent_vote_presence_prob"] = down, again.vote_presence
        return upper_loss(scalars, weights)
