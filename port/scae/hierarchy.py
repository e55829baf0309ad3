"""A third level of capsules on the object capsules, in PyTorch.

Read beside `reference/scae/hierarchy.py`: same names, same order of computation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import attention, losses
from port.core.taps import SILENT, Recorder
from port.scae import object_decoder as objects
from port.scae.config_modes import HierarchyConfig, UpperDecoder, UpperEncoder, UpperLosses
from port.scae.model import ImageAutoencoder, Objects

Array = Float[Tensor, "..."]


def upper_loss(terms: Mapping[str, Array], weights: UpperLosses) -> Array:
    """What the third level adds to the loss.

    -w·upper_log_prob - w·parent_log_prob + w·upper_dynamic_weights_l2 + Σ over posterior and prior of
    (w·within - w·between).

    Args:
        terms: scalars by name.
        weights: the configuration section `upper`.

    Returns:
        A scalar.

    Source: ours; the terms of the original `scae.py: ImageAutoencoder._loss`, one level up.
    """
    loss = -weights.caps_ll_weight * terms["upper_log_prob"]
    loss = loss - weights.parent_ll_weight * terms["parent_log_prob"]
    loss = loss + weights.dynamic_l2_weight * terms["upper_dynamic_weights_l2"]
    for kind in ("posterior", "prior"):
        loss = loss + (getattr(weights, f"{kind}_within_example_sparsity_weight")
                       * terms[f"upper_{kind}_within_sparsity_loss"])
        loss = loss - (getattr(weights, f"{kind}_between_example_sparsity_weight")
                       * terms[f"upper_{kind}_between_sparsity_loss"])
    return loss


class UpperLevel(nn.Module):
    """Set transformer over object capsules and capsules that vote for the objects' poses.

    Args:
        n_params: size of an object capsule's parameters.
        encoder: the configuration section `upper_encoder`.
        decoder: the configuration section `upper_decoder`.
        rng: draws the weights.
        masking: see `attention.qkv_attention`.
        mixing: see `object_decoder.capsule_likelihood`.

    Source: ours; the object level of the original `scae.py`, one level up.
    """

    def __init__(self, n_params: int, encoder: UpperEncoder, decoder: UpperDecoder,
                 rng: np.random.Generator, masking: str = "faithful", mixing: str = "faithful") -> None:
        super().__init__()
        self.encoder = attention.SetTransformer(
            objects.N_TRANSFORM_PARAMS + 1 + n_params, encoder.n_layers, encoder.n_heads, encoder.n_dims,
            encoder.n_output_dims, encoder.n_outputs, encoder.layer_norm, rng, 0, encoder.dropout_rate,
            masking)
        self.decoder = objects.ImageCapsule(encoder.n_output_dims, decoder, rng, mixing)

    def forward(self, pose: Array, presence: Array, params: Array, target_pose: Array,
                target_presence: Array, draws: Mapping[str, Any] | None = None, taps: Recorder = SILENT
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
        draws = {} if draws is None else draws
        tokens = taps.watch(torch.cat([pose, 1.0 - presence[..., None], params], -1))
        taps.record("upper_enc/input", tokens)
        encoded, _ = self.encoder(tokens, presence, draws.get("upper_attention"))
        taps.record("upper_enc/output", encoded)
        return self.decoder(encoded, target_pose, target_presence, draws.get("upper_caps"),
                            draws.get("upper_vote"), draws.get("upper_caps_mask"), taps)


class HierarchyAutoencoder(ImageAutoencoder):
    """Three levels of capsules: parts, objects, and capsules above the objects.

    The third level explains the objects' poses; its winning votes, as parent transforms and presences,
    let the objects vote for the parts again.

    Args:
        config: the configuration (kind `hierarchy`).
        seed: draws the initial weights; those of the lower levels are the image model's.

    Source: ours, from what the original's `capsule.py: CapsuleLayer` takes (parent transform, parent
    presence) and its author names as deeper hierarchies.
    """

    def __init__(self, config: HierarchyConfig, seed: int = 0) -> None:
        super().__init__(config, seed)
        repairs = config.repairs
        self.upper = UpperLevel(
            config.obj_decoder.n_caps_params, config.upper_encoder, config.upper_decoder,
            np.random.default_rng([seed, 1]), "log_presence" if "Q01" in repairs else "faithful",
            "normalised" if "Q03" in repairs else "faithful")

    def above(self, found: Objects, draws: Mapping[str, Any], scalars: dict[str, Array], log: Recorder
              ) -> Array:
        """The third level's part of the loss; its terms go into `scalars`."""
        settings, weights = self.config.autoencoder, self.config.upper
        votes, presence = found.votes, found.caps_presence_prob
        batch, n_objects = presence.shape
        pose = votes.transform[..., :2, :].reshape(batch, n_objects, objects.N_TRANSFORM_PARAMS)
        log.record("upper/pose", pose)
        given, target = (pose, presence), (pose, presence)
        if settings.stop_grad_caps_inpt:
            given = tuple(v.detach() for v in given)
        if settings.stop_grad_caps_target:
            target = tuple(v.detach() for v in target)
        upper, flat, likelihood, upper_presence = self.upper(
            *given, votes.raw_caps_params, *target, draws, log)
        # The third level's best vote for each object is the parent's view of it.
        rows = likelihood.winner.reshape(batch, n_objects, 1, 2, 3)
        last = torch.cat([rows.new_zeros(2), rows.new_ones(1)]).expand(batch, n_objects, 1, 1, 3)
        again = self.object_decoder.capsule_layer(
            found.encoded, draws.get("caps"), draws.get("vote"), draws.get("caps_mask"),
            torch.cat([rows, last], -2), likelihood.winner_pres[..., None], log)
        parts = self.object_decoder.capsule_likelihood(
            again.rows, again.scale, again.vote_presence, found.target_pose, found.target_presence)
        scalars |= {"upper_log_prob": likelihood.log_prob, "parent_log_prob": parts.log_prob,
                    "upper_dynamic_weights_l2": upper.dynamic_weights_l2}
        share = torch.sum(likelihood.posterior_mixing_probs, 1) / n_objects
        for kind, p in (("posterior", share), ("prior", upper_presence)):
            within, between = losses.sparsity_loss(
                getattr(weights, f"{kind}_sparsity_loss_type"), self.gather(p), settings.n_classes)
            scalars[f"upper_{kind}_within_sparsity_loss"] = within
            scalars[f"upper_{kind}_between_sparsity_loss"] = between
        log.record("res/upper_vote", flat)
        log.record("res/upper_presence", upper_presence)
        log.record("res/upper_winner", likelihood.winner)
        log.record("res/upper_winner_pres", likelihood.winner_pres)
        log.record("res/upper_is_from_capsule", likelihood.is_from_capsule)
        log.record("res/upper_vote_presence", likelihood.vote_presence)
        log.record("res/upper_posterior_mixing_probs", likelihood.posterior_mixing_probs)
        log.record("res/parent_vote", again.rows)
        log.record("res/parent_vote_presence_prob", again.vote_presence)
        return upper_loss(scalars, weights)
