"""What votes without an order say about a set of points, after the original's `capsules/capsule.py`.

Read beside `port/constellation/likelihood.py`: same names, same order.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int

from reference.core import mixture, ops
from reference.core.module import NamedModule
from reference.scae import object_decoder as objects
from reference.scae.object_decoder import Likelihood

Array = Float[tf.Tensor, "..."]


def order_invariant_likelihood(votes: Float[tf.Tensor, "batch votes dims"],
                               scales: Float[tf.Tensor, "batch votes"],
                               vote_presence_prob: Float[tf.Tensor, "batch votes"],
                               x: Float[tf.Tensor, "batch points dims"],
                               presence: Float[tf.Tensor, "batch points"] | None, n_votes: int,
                               df: Array | None = None) -> Likelihood:
    """Every point is explained by any vote of any capsule, or by a dummy; Σ points, mean over batch.

    log p(x_m) = lse over V + 1 of (log π_v + log p(x_m; vote_v, scale_v)), π normalised per example.

    Args:
        votes: `[B, V, D]`, V = capsules · votes of each, capsule by capsule.
        scales: `[B, V]`.
        vote_presence_prob: `[B, V]`; its safe_log are the mixing logits.
        x: `[B, M, D]`.
        presence: `[B, M]` weights of the points, or None.
        n_votes: votes of each capsule.
        df: degrees of freedom of Student's t; None for normal votes.

    Returns:
        `Likelihood` with vote_presence `[B, V]` (1 where a logit is above the dummy's), winner
        `[B, M, D]` and winner_pres `[B, M]` of the best vote without the dummy (ties to the lowest),
        is_from_capsule its capsule, mixing_logits and mixing_log_prob `[B, V + 1]`, posterior
        `[B, M, V]`; soft_winner and soft_winner_pres are zeros (Q37).

    Source: original `capsule.py: OrderInvariantCapsuleLikelihood`; paper section 2.1.
    """
    log_prob = objects.vote_log_prob(x[:, None], votes[:, :, None], scales[:, :, None], df)
    dummy = tf.fill(tf.shape(log_prob[:, :1]), tf.constant(objects.LOG_DUMMY, log_prob.dtype))
    log_prob = tf.concat([log_prob, dummy], 1)
    mixing_logits = tf.concat([ops.safe_log(vote_presence_prob), dummy[..., 0]], 1)
    mixing_log_prob = mixture.mixing_log_prob(mixing_logits)
    # Unlike the image model's likelihood (Q03) this one normalises.
    per_point = ops.log_sum_exp(mixing_log_prob[..., None] + log_prob, 1)
    if presence is not None:
        per_point = per_point * presence
    total = tf.reduce_mean(tf.reduce_sum(per_point, -1))

    vote_presence = tf.cast(mixing_logits[:, :-1] > mixing_logits[:, -1:], votes.dtype)
    joint = mixing_logits[..., None] + log_prob
    posterior = tf.nn.softmax(joint, 1)
    winner_index = tf.argmax(joint[:, :-1], 1)
    winner = tf.gather(votes, winner_index, batch_dims=1)
    winner_pres = tf.gather(vote_presence_prob, winner_index, batch_dims=1)
    return Likelihood(total, vote_presence, winner, winner_pres, winner_index // n_votes,
                      mixing_logits, mixing_log_prob, tf.zeros_like(winner), tf.zeros_like(winner_pres),
                      tf.transpose(posterior[:, :-1], [0, 2, 1]))


class OrderInvariantCapsuleLikelihood(NamedModule):
    """`order_invariant_likelihood` with its trained degrees of freedom, if any.

    Args:
        scope: holds, for `student`, the scalar `df`.
        n_votes: votes of each capsule.
        pdf: `normal` or `student`.
        dtype: of the variables.

    Source: original `capsule.py: OrderInvariantCapsuleLikelihood`.
    """

    def __init__(self, scope: str, n_votes: int, pdf: str = "normal",
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.n_votes = n_votes
        student = pdf == "student"
        self.df = self.add_variable("df", np.float32(objects.INITIAL_DF)) if student else None

    def __call__(self, votes: Array, scales: Array, vote_presence_prob: Array, x: Array,
                 presence: Array | None = None) -> Likelihood:
        df = None if self.df is None else objects.degrees_of_freedom(self.df)
        return order_invariant_likelihood(votes, scales, vote_presence_prob, x, presence, self.n_votes,
                                          df)


def mixing_kl(mixing_logits: Float[tf.Tensor, "batch components"],
              mixing_log_prob: Float[tf.Tensor, "batch components"], n_states: int) -> Array:
    """Mean over the batch of Σ softmax(logits) · (log π + log n): KL of the mixing from uniform.

    Args:
        mixing_logits: `[B, V + 1]`.
        mixing_log_prob: `[B, V + 1]`, normalised.
        n_states: n; the original gives the number of points, not of components (Q33).

    Returns:
        A scalar.

    Source: original `capsule.py: ConstellationCapsule` (its field `mixing_kl`).
    """
    terms = tf.nn.softmax(mixing_logits, -1) * (mixing_log_prob + math.log(n_states))
    return tf.reduce_mean(tf.reduce_sum(terms, -1))


def usage_loss(is_from_capsule: Int[tf.Tensor, "batch points"],
               presence: Float[tf.Tensor, "batch points"] | None,
               pres_logit: Float[tf.Tensor, "batch caps"]) -> Array:
    """Capsules that win should be present: Σ_O [wins > 0] · xe(wins > 1, logit), mean over the batch.

    wins = Σ over the points of presence · [won by the capsule]. A capsule that wins a single point is
    pushed to be absent, one that wins none is left alone (Q34). Wins have no gradient.

    Args:
        is_from_capsule: `[B, M]`.
        presence: `[B, M]`, or None for all present.
        pres_logit: `[B, O]` presence logits of the capsules, noise included.

    Returns:
        A scalar.

    Source: original `capsule.py: ConstellationCapsule` (its field `sparsity_loss`).
    """
    won = tf.one_hot(is_from_capsule, pres_logit.shape[1], dtype=pres_logit.dtype)
    if presence is not None:
        won = won * presence[..., None]
    wins = tf.stop_gradient(tf.reduce_sum(won, 1))
    several = tf.cast(wins > 1.0, pres_logit.dtype)
    error = tf.nn.sigmoid_cross_entropy_with_logits(several, pres_logit)
    return tf.reduce_mean(tf.reduce_sum(error * tf.cast(wins > 0.0, pres_logit.dtype), -1))
