"""What a forward pass leaves for recordings and pictures, and no loss needs: reconstructions, taps.

The names are those of the recordings of the original, in their order; `port.scae.model` makes the pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from port.core import backends, mixture
from port.core.taps import CHANNELS_LAST, PARTS_CHANNELS_LAST, Recorder
from port.scae.object_decoder import CapsuleVotes, Likelihood
from port.scae.part_decoder import Decoded, PartDecoder
from port.scae.part_encoder import PartCapsules

Array = Float[Tensor, "..."]

# Fields that recordings have under the same names, in the recordings' order.
VOTE_FIELDS = ("pres_logit_per_caps", "pres_logit_per_vote", "raw_caps_params", "raw_caps_features")
LIKELIHOOD_FIELDS = ("winner", "winner_pres", "is_from_capsule", "mixing_logits", "mixing_log_prob", "soft_winner",
                     "soft_winner_pres", "posterior_mixing_probs")
AT_ONCE = 8  # reconstructions by one capsule each: B·O of K canvases would be the most memory of a recorded pass


class Pass(NamedTuple):
    """What a forward pass has made by its end, for recordings and pictures."""

    target: Array
    parts: PartCapsules
    templates: Array
    votes: CapsuleVotes
    flat_votes: Array
    vote_presence: Array
    likelihood: Likelihood
    caps_presence_prob: Array
    dec_pose: Array
    dec_presence: Array
    decoded: Decoded
    log_prob: Array


def pictures(decoder: PartDecoder, made: Pass) -> dict[str, Array]:
    """Reconstructions that the loss does not need, channels first."""
    bottom_up = decoder(made.parts.pose, made.parts.presence, made.templates)
    top_down = decoder(made.likelihood.winner, made.parts.presence, made.templates)
    return {"target": made.target,
            "reconstruction": mixture.mixture_mean(made.decoded.mixing_logits, made.decoded.means),
            "mode": mixture.mixture_mode(made.decoded.mixing_logits, made.decoded.means),
            "bottom_up": mixture.mixture_mean(bottom_up.mixing_logits, bottom_up.means),
            "top_down": mixture.mixture_mean(top_down.mixing_logits, top_down.means),
            "templates": made.templates, "transformed_templates": made.decoded.transformed_templates}


@torch.no_grad()
def capsule_pictures(decoder: PartDecoder, made: Pass) -> Array:
    """What each object capsule alone draws from its own votes, `[B, O, C, S, S]`.

    Votes meet the presences and templates of their own example, as with Q25 repaired: the
    original's pairing crosses examples and makes no picture of any of them.
    """
    n_caps = made.flat_votes.shape[1]
    drawn = []
    for i, votes in enumerate(made.flat_votes):  # one example at a time: O·K canvases are large
        own = made.templates[i:i + 1] if len(made.templates) == len(made.flat_votes) else made.templates
        call = decoder(votes, made.vote_presence[i] * made.parts.presence[i], own.expand(n_caps, *own.shape[1:]))
        drawn.append(mixture.mixture_mean(call.mixing_logits, call.means))
    return torch.stack(drawn)


@torch.no_grad()
def per_capsule(decoder: PartDecoder, repairs: Sequence[str], log: Recorder, made: Pass) -> None:
    """One reconstruction per object capsule, from its own votes; in no loss, so in no graph."""
    batch, n_caps, n_parts = made.flat_votes.shape[:3]

    # Q25: votes run over (example, capsule), presences and features over (capsule, example).
    def spread(x: Array) -> Array:
        if "Q25" in repairs:
            return x.repeat_interleave(n_caps, 0)
        return x.repeat(n_caps, *[1] * (x.ndim - 1))

    pose = made.flat_votes.reshape(batch * n_caps, n_parts, 6)
    presence = made.vote_presence.reshape(batch * n_caps, n_parts) * spread(made.parts.presence)
    log.record("per_caps_rec/pose_in", pose)
    log.record("per_caps_rec/presence_in", presence)
    own = made.templates.shape[0] == batch
    per_caps = spread(made.templates) if own else made.templates

    def mean(rows: slice) -> Array:
        call = decoder(pose[rows], presence[rows], per_caps[rows] if own else per_caps)
        return torch.mean(mixture.mixture_mean(call.mixing_logits, call.means), (1, 2, 3))
    # An exported program takes any number of examples, which the length of a loop would fix.
    means = [mean(slice(None))] if backends.exporting() else [
        mean(slice(i, i + AT_ONCE)) for i in range(0, len(pose), AT_ONCE)]
    log.record("per_caps_rec/mean_per_image", torch.cat(means))


def record(decoder: PartDecoder, repairs: Sequence[str], log: Recorder, made: Pass, scalars: dict[str, Array],
           images: dict[str, Array]) -> None:
    """What only recordings need: decoder intermediates and the original's result fields."""
    mean, mode = images["reconstruction"], images["mode"]
    log.record("part_dec/pose_in", made.dec_pose)
    log.record("part_dec/presence_in", made.dec_presence)
    log.record("part_dec/inverse_pose", decoder.sampled_pose(made.dec_pose))
    log.record("part_dec/transformed_templates", made.decoded.transformed_templates, PARTS_CHANNELS_LAST)
    log.record("part_dec/mixing_logits_with_bg", made.decoded.mixing_logits, PARTS_CHANNELS_LAST)
    log.record("part_dec/mean", mean, CHANNELS_LAST)
    log.record("part_dec/mode", mode, CHANNELS_LAST)
    log.record("part_dec/log_prob_per_pixel", made.log_prob, CHANNELS_LAST)
    if decoder.scale is not None:
        log.record("part_dec/scale", made.decoded.scale)
    log.record("loss_parts/rec_mode", mode, CHANNELS_LAST)
    log.record("loss_parts/rec_mean", mean, CHANNELS_LAST)
    log.record("bottom_up/mean", images["bottom_up"], CHANNELS_LAST)
    log.record("top_down/mean", images["top_down"], CHANNELS_LAST)
    per_capsule(decoder, repairs, log, made)
    log.record("obj_dec/raw_caps_params", made.votes.raw_caps_params)
    log.record("obj_dec/all_params", made.votes.all_params)
    fields = {"vote": made.flat_votes, "scale": made.votes.scale, "vote_presence": made.vote_presence,
              **{name: getattr(made.votes, name) for name in VOTE_FIELDS},
              **{name: getattr(made.likelihood, name) for name in LIKELIHOOD_FIELDS},
              "caps_presence_prob": made.caps_presence_prob, "primary_presence": made.parts.presence,
              "template_pres": made.parts.presence, **scalars}
    for name, value in fields.items():
        log.record(f"res/{name}", value)
    log.record("res/templates", made.templates, PARTS_CHANNELS_LAST)
    log.record("res/used_templates", made.decoded.transformed_templates, PARTS_CHANNELS_LAST)
    log.record("res/rec_mode", mode, CHANNELS_LAST)
    log.record("res/rec_mean", mean, CHANNELS_LAST)
    log.record("res/mse_per_pixel", torch.square(made.target - mode), CHANNELS_LAST)
    log.record("res/rec_ll_per_pixel", made.log_prob, CHANNELS_LAST)
