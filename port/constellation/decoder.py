"""Capsules that vote for points, of the original's `capsules/capsule.py`: with poses, and without.

Read beside `reference/constellation/decoder.py`: same names, same order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.constellation import config
from port.constellation import likelihood as constellation_likelihood
from port.core import layers, ops
from port.scae import object_decoder as objects
from port.scae.object_decoder import Likelihood

Array = Float[Tensor, "..."]

N_DIMS = 2  # of a point, so of a vote


class Explained(NamedTuple):
    """A set of points as capsules explain it; V = capsules · votes of each, capsule by capsule.

    likelihood (see `order_invariant_likelihood`), vote [B, V, 2], scale [B, V], vote_presence_prob
    [B, V], pres_logit_per_caps [B, O], pres_logit_per_vote [B, V], dynamic_weights_l2 (), mixing_kl (),
    sparsity_loss (), caps_presence_prob [B, O], all_params [B, O, …], and of capsules with poses
    raw_caps_params [B, O·P], raw_caps_features [B, O·F], transform [B, V, 3, 3] (else None).
    """

    likelihood: Likelihood
    vote: Array
    scale: Array
    vote_presence_prob: Array
    pres_logit_per_caps: Array
    pres_logit_per_vote: Array
    dynamic_weights_l2: Array
    mixing_kl: Array
    sparsity_loss: Array
    caps_presence_prob: Array
    all_params: Array
    raw_caps_params: Array | None = None
    raw_caps_features: Array | None = None
    transform: Array | None = None


def caps_presence(vote_presence: Float[Tensor, "batch votes"], n_caps: int
                  ) -> Float[Tensor, "batch caps"]:
    """Largest presence among a capsule's votes.

    Args:
        vote_presence: `[B, V]`; the original gives the 0 or 1 of the likelihood (Q32).
        n_caps: O.

    Returns:
        `[B, O]`.

    Source: original `capsule.py: ConstellationCapsule` (its field `caps_presence_prob`).
    """
    return torch.amax(vote_presence.reshape(vote_presence.shape[0], n_caps, -1), 2)


class _Decoder(nn.Module):
    """What both decoders share: the likelihood, and what follows from it.

    Args:
        settings: the configuration section `obj_decoder`.
        repairs: ids of repaired quirks.
    """

    def __init__(self, settings: config.VoteDecoder,
                 repairs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.settings, self.repairs = settings, tuple(repairs)
        self.order_invariant_capsule_likelihood = (
            constellation_likelihood.OrderInvariantCapsuleLikelihood(settings.n_votes, settings.pdf))

    def _explain(self, x: Array, presence: Array | None, vote: Array, scale: Array,
                 vote_presence: Array, caps_logit: Array, vote_logit: Array, l2: Array,
                 all_params: Array, **fields: Array | None) -> Explained:
        likelihood = self.order_invariant_capsule_likelihood(vote, scale, vote_presence, x, presence)
        # Q33: the number of points, where the mixing has as many states as votes and one more.
        n_states = vote.shape[1] + 1 if "Q33" in self.repairs else x.shape[1]
        soft = "Q32" in self.repairs
        return Explained(
            likelihood, vote, scale, vote_presence, caps_logit, vote_logit, l2,
            constellation_likelihood.mixing_kl(likelihood.mixing_logits, likelihood.mixing_log_prob,
                                               n_states),
            constellation_likelihood.usage_loss(likelihood.is_from_capsule, presence, caps_logit),
            caps_presence(vote_presence if soft else likelihood.vote_presence,
                          self.settings.n_caps), all_params, **fields)


class ConstellationCapsule(_Decoder):
    """Capsules with poses: a vote is the translation of CCR · CPR.

    Args:
        n_features: size of the features.
        settings: the configuration section `obj_decoder`.
        rng: draws the weights.
        repairs: ids of repaired quirks (Q32, Q33).

    Source: original `capsule.py: ConstellationCapsule`; paper section 2.1.
    """

    def __init__(self, n_features: int, settings: config.VoteDecoder,
                 rng: np.random.Generator, repairs: tuple[str, ...] = ()) -> None:
        super().__init__(settings, repairs)
        self.capsule_layer = objects.CapsuleLayer(n_features, settings, rng)

    def forward(self, features: Array, x: Array, presence: Array | None = None,
                caps_noise: Array | None = None, vote_noise: Array | None = None,
                caps_mask: Array | None = None) -> Explained:
        """Explain points.

        Args:
            features: `[B, O, F]`.
            x: `[B, M, 2]`.
            presence: `[B, M]`, or None for all present.
            caps_noise, vote_noise, caps_mask: see `CapsuleLayer`.
        """
        votes = self.capsule_layer(features, caps_noise, vote_noise, caps_mask)
        transform = votes.vote.flatten(1, 2)
        return self._explain(
            x, presence, transform[..., :N_DIMS, N_DIMS], votes.scale.flatten(1),
            votes.vote_presence.flatten(1),
            votes.pres_logit_per_caps[..., 0], votes.pres_logit_per_vote.flatten(1),
            votes.dynamic_weights_l2, votes.all_params,
            raw_caps_params=votes.raw_caps_params.flatten(1),
            raw_caps_features=votes.raw_caps_features.flatten(1), transform=transform)


class ConstellationDecoder(_Decoder):
    """The plain baseline: an MLP of its own per capsule gives votes outright, without poses.

    Args:
        n_features: size of the features.
        settings: the configuration section `obj_decoder`; of it count n_caps, n_votes, n_hiddens (two
            hidden layers of this size, or those listed), noise_type, noise_scale and pdf.
        rng: draws the weights.
        repairs: ids of repaired quirks (Q31, Q32, Q33).

    Source: original `capsule.py: ConstellationDecoder`.
    """

    def __init__(self, n_features: int, settings: config.VoteDecoder,
                 rng: np.random.Generator, repairs: tuple[str, ...] = ()) -> None:
        super().__init__(settings, repairs)
        n_votes, hiddens = settings.n_votes, settings.n_hiddens
        hiddens = [hiddens] * 2 if isinstance(hiddens, int) else list(hiddens)
        self.splits = [1, n_votes, n_votes, n_votes * N_DIMS]
        self.batch_mlp = layers.BatchMLP(settings.n_caps, n_features, [*hiddens, sum(self.splits)],
                                         True, rng)

    def forward(self, features: Array, x: Array, presence: Array | None = None,
                caps_noise: Array | None = None, vote_noise: Array | None = None,
                caps_mask: None = None) -> Explained:
        """Explain points.

        Args:
            features: `[B, O, F]`.
            x: `[B, M, 2]`.
            presence: `[B, M]`, or None for all present.
            caps_noise, vote_noise: see `CapsuleLayer`.
            caps_mask: there is no capsule dropout here.
        """
        all_params = self.batch_mlp(features)
        caps_logit, vote_logit, scale, vote = all_params.split(self.splits, -1)
        if "Q31" not in self.repairs:  # the network's own logits are thrown away
            caps_logit, vote_logit = torch.zeros_like(caps_logit), torch.zeros_like(vote_logit)
        kind, size = self.settings.noise_type, self.settings.noise_scale
        caps_logit = objects.add_noise(caps_logit, caps_noise, kind, size)
        vote_logit = objects.add_noise(vote_logit, vote_noise, kind, size)
        vote_presence = torch.sigmoid(caps_logit) * torch.sigmoid(vote_logit)
        scale = ops.softplus(scale + 0.5) + 1e-6
        return self._explain(
            x, presence, vote.reshape(len(vote), -1, N_DIMS), scale.flatten(1),
            vote_presence.flatten(1), caps_logit[..., 0], vote_logit.flatten(1),
            scale.new_zeros(()), all_params)
