"""Capsules that vote for points, of the original's `capsules/capsule.py`: with poses, and without.

Read beside `port/constellation/decoder.py`: same names, same order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.constellation import likelihood as constellation_likelihood
from reference.core import layers, ops
from reference.core.module import NamedModule
from reference.scae import object_decoder as objects
from reference.scae.object_decoder import Likelihood

Array = Float[tf.Tensor, "..."]

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


def caps_presence(vote_presence: Float[tf.Tensor, "batch votes"], n_caps: int
                  ) -> Float[tf.Tensor, "batch caps"]:
    """Largest presence among a capsule's votes.

    Args:
        vote_presence: `[B, V]`; the original gives the 0 or 1 of the likelihood (Q32).
        n_caps: O.

    Returns:
        `[B, O]`.

    Source: original `capsule.py: ConstellationCapsule` (its field `caps_presence_prob`).
    """
    return tf.reduce_max(tf.reshape(vote_presence, [vote_presence.shape[0], n_caps, -1]), 2)


class _Decoder(NamedModule):
    """What both decoders share: the likelihood, and what follows from it.

    Args:
        scope: holds `order_invariant_capsule_likelihood`.
        settings: the argument section `obj_decoder`.
        repairs: ids of repaired quirks.
        dtype: of the variables.
    """

    def __init__(self, scope: str, settings: Mapping[str, Any], repairs: tuple[str, ...] = (),
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.settings, self.repairs = dict(settings), tuple(repairs)
        self.likelihood = constellation_likelihood.OrderInvariantCapsuleLikelihood(
            f"{scope}/order_invariant_capsule_likelihood", settings["n_votes"],
            settings.get("pdf", "normal"), dtype)

    def _explain(self, x: Array, presence: Array | None, vote: Array, scale: Array,
                 vote_presence: Array, caps_logit: Array, vote_logit: Array, l2: Array,
                 all_params: Array, **fields: Array | None) -> Explained:
        likelihood = self.likelihood(vote, scale, vote_presence, x, presence)
        # Q33: the number of points, where the mixing has as many states as votes and one more.
        n_states = vote.shape[1] + 1 if "Q33" in self.repairs else x.shape[1]
        soft = "Q32" in self.repairs
        return Explained(
            likelihood, vote, scale, vote_presence, caps_logit, vote_logit, l2,
            constellation_likelihood.mixing_kl(likelihood.mixing_logits, likelihood.mixing_log_prob,
                                               n_states),
            constellation_likelihood.usage_loss(likelihood.is_from_capsule, presence, caps_logit),
            caps_presence(vote_presence if soft else likelihood.vote_presence,
                          self.settings["n_caps"]), all_params, **fields)


class ConstellationCapsule(_Decoder):
    """Capsules with poses: a vote is the translation of CCR · CPR.

    Args:
        scope: holds `capsule_layer` and `order_invariant_capsule_likelihood`.
        n_features: size of the features.
        settings: the argument section `obj_decoder`.
        rng: draws the weights.
        repairs: ids of repaired quirks (Q32, Q33).
        dtype: of the variables.

    Source: original `capsule.py: ConstellationCapsule`; paper section 2.1.
    """

    def __init__(self, scope: str, n_features: int, settings: Mapping[str, Any],
                 rng: np.random.Generator, repairs: tuple[str, ...] = (),
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, settings, repairs, dtype)
        self.capsule_layer = objects.CapsuleLayer(f"{scope}/capsule_layer", n_features, settings, rng,
                                                  dtype)

    def __call__(self, features: Array, x: Array, presence: Array | None = None,
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
        batch, n_caps, _ = votes.scale.shape

        def merged(value: Array) -> Array:
            return tf.reshape(value, [batch, n_caps * value.shape[2], *value.shape[3:]])

        transform = merged(votes.vote)
        return self._explain(
            x, presence, transform[..., :N_DIMS, N_DIMS], merged(votes.scale),
            merged(votes.vote_presence),
            votes.pres_logit_per_caps[..., 0], merged(votes.pres_logit_per_vote),
            votes.dynamic_weights_l2, votes.all_params,
            raw_caps_params=merged(votes.raw_caps_params),
            raw_caps_features=merged(votes.raw_caps_features), transform=transform)


class ConstellationDecoder(_Decoder):
    """The plain baseline: an MLP of its own per capsule gives votes outright, without poses.

    Args:
        scope: holds `batch_mlp` and `order_invariant_capsule_likelihood`.
        n_features: size of the features.
        settings: the argument section `obj_decoder`; of it count n_caps, n_votes, n_hiddens (two
            hidden layers of this size, or those listed), noise_type, noise_scale and pdf.
        rng: draws the weights.
        repairs: ids of repaired quirks (Q31, Q32, Q33).
        dtype: of the variables.

    Source: original `capsule.py: ConstellationDecoder`.
    """

    def __init__(self, scope: str, n_features: int, settings: Mapping[str, Any],
                 rng: np.random.Generator, repairs: tuple[str, ...] = (),
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, settings, repairs, dtype)
        n_votes, hiddens = settings["n_votes"], settings["n_hiddens"]
        hiddens = [hiddens] * 2 if isinstance(hiddens, int) else list(hiddens)
        self.splits = [1, n_votes, n_votes, n_votes * N_DIMS]
        self.batch_mlp = layers.BatchMLP(f"{scope}/batch_mlp", settings["n_caps"], n_features,
                                         [*hiddens, sum(self.splits)], True, rng, dtype)

    def __call__(self, features: Array, x: Array, presence: Array | None = None,
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
        batch, n_caps, _ = all_params.shape
        caps_logit, vote_logit, scale, vote = tf.split(all_params, self.splits, -1)
        if "Q31" not in self.repairs:  # the network's own logits are thrown away
            caps_logit, vote_logit = tf.zeros_like(caps_logit), tf.zeros_like(vote_logit)
        kind, size = self.settings["noise_type"], self.settings["noise_scale"]
        caps_logit = objects.add_noise(caps_logit, caps_noise, kind, size)
        vote_logit = objects.add_noise(vote_logit, vote_noise, kind, size)
        vote_presence = tf.nn.sigmoid(caps_logit) * tf.nn.sigmoid(vote_logit)
        scale = ops.softplus(scale + 0.5) + 1e-6
        return self._explain(
            x, presence, tf.reshape(vote, [batch, -1, N_DIMS]), tf.reshape(scale, [batch, -1]),
            tf.reshape(vote_presence, [batch, -1]), caps_logit[..., 0],
            tf.reshape(vote_logit, [batch, -1]), tf.zeros([], self.dtype), all_params)
