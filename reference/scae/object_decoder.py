"""Object capsules of the original's `capsules/capsule.py`: layer, image capsule, likelihood.

Read beside `port/scae/object_decoder.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float, Int

from reference.core import initializers, layers, mixture, ops
from reference.core.module import NamedModule, Taps

Array = Float[tf.Tensor, "..."]

N_TRANSFORM_PARAMS = 6
INITIAL_DF = 2.0  # of the trained variable, see `degrees_of_freedom`
LOG_DUMMY = -2.0 * math.log(10.0)  # Q05: logit and log-density of the dummy component alike


class Likelihood(NamedTuple):
    """What the votes say about the points; fields and shapes as the original's result.

    log_prob (), vote_presence [B, O, M] (0 or 1), winner [B, M, D], winner_pres [B, M],
    is_from_capsule [B, M], mixing_logits and mixing_log_prob [B, O + 1, M], soft_winner [B, M, D],
    soft_winner_pres [B, M], posterior_mixing_probs [B, M, O].
    """

    log_prob: Array
    vote_presence: Array
    winner: Array
    winner_pres: Array
    is_from_capsule: Int[tf.Tensor, "..."]
    mixing_logits: Array
    mixing_log_prob: Array
    soft_winner: Array
    soft_winner_pres: Array
    posterior_mixing_probs: Array


class CapsuleVotes(NamedTuple):
    """Output of the capsule layer.

    vote [B, O, M, 3, 3], scale and vote_presence [B, O, M], pres_logit_per_caps [B, O, 1],
    pres_logit_per_vote [B, O, M], dynamic_weights_l2 (), raw_caps_params [B, O, P],
    raw_caps_features [B, O, F], all_params [B, O, …] (the second MLP's output), transform
    [B, O, 1, 3, 3] (the capsules' poses, or the parent's).
    """

    vote: Array
    scale: Array
    vote_presence: Array
    pres_logit_per_caps: Array
    pres_logit_per_vote: Array
    dynamic_weights_l2: Array
    raw_caps_params: Array
    raw_caps_features: Array
    all_params: Array
    transform: Array


def vote_log_prob(x: Array, votes: Array, scales: Array, df: Array | None = None) -> Array:
    """Log-density of points under votes: Σ_D log N(x_d; vote_d, scale), or of Student's t.

    Args:
        x: `[..., D]`, broadcasts against `votes`.
        votes: `[..., D]`.
        scales: the shape of `votes` without D.
        df: degrees of freedom of a Student's t per coordinate (Q38); None for the normal density.

    Returns:
        The broadcast shape without D.

    Source: original `capsule.py: CapsuleLikelihood` (its argument `pdf`).
    """
    scales = scales[..., None]
    density = (mixture.normal_log_prob(x, votes, scales) if df is None
               else mixture.student_log_prob(x, df, votes, scales))
    return tf.reduce_sum(density, -1)


def degrees_of_freedom(raw: Array) -> Array:
    """ν = softplus(raw) + 2, so that the variance is finite.

    Args:
        raw: a scalar, the trained variable `df`.

    Returns:
        A scalar above 2.

    Source: original `capsule.py: CapsuleLikelihood` (pdf 'student').
    """
    return ops.softplus(raw) + 2.0


def capsule_likelihood(votes: Float[tf.Tensor, "batch caps points dims"],
                       scales: Float[tf.Tensor, "batch caps points"],
                       vote_presence_prob: Float[tf.Tensor, "batch caps points"],
                       x: Float[tf.Tensor, "batch points dims"],
                       presence: Float[tf.Tensor, "batch points"] | None,
                       dummy_vote: Float[tf.Tensor, "1 1 points dims"], mixing: str = "faithful",
                       df: Array | None = None) -> Likelihood:
    """Mixture of all capsules' votes plus a dummy, per point; Σ points, mean over the batch.

    log p(x_m) = lse over O + 1 of (mixing_logits + Σ_D log N(x_m; vote, scale)).

    Args:
        votes: `[B, O, M, D]`, capsule o's vote for point m.
        scales: `[B, O, M]`.
        vote_presence_prob: `[B, O, M]`; its safe_log are the mixing logits.
        x: `[B, M, D]`.
        presence: `[B, M]` weights of the points, or None.
        dummy_vote: `[1, 1, M, D]`; enters the soft winner only.
        mixing: `faithful` uses the unnormalised logits (Q03); `normalised` log mixing probabilities.
        df: degrees of freedom of Student's t; None for normal votes.

    Returns:
        `Likelihood`. The winner is taken over the capsules without the dummy, ties to the lowest;
        `vote_presence` is logit > dummy logit (Q04).

    Source: original `capsule.py: CapsuleLikelihood`; paper equation (5).
    """
    n_caps = votes.shape[1]
    log_prob = vote_log_prob(x[:, None], votes, scales, df)
    dummy = tf.fill(tf.shape(log_prob[:, :1]), tf.constant(LOG_DUMMY, log_prob.dtype))
    log_prob = tf.concat([log_prob, dummy], 1)
    mixing_logits = tf.concat([ops.safe_log(vote_presence_prob), dummy], 1)
    mixing_log_prob = mixture.mixing_log_prob(mixing_logits)
    joint = (mixing_logits if mixing == "faithful" else mixing_log_prob) + log_prob
    per_point = ops.log_sum_exp(joint, 1)
    if presence is not None:
        per_point = per_point * presence
    total = tf.reduce_mean(tf.reduce_sum(per_point, -1))

    vote_presence = tf.cast(mixing_logits[:, :n_caps] > mixing_logits[:, n_caps:], votes.dtype)
    posterior = tf.nn.softmax(joint, 1)
    winner_index = tf.argmax(joint[:, :n_caps], 1)
    winner = tf.gather(tf.transpose(votes, [0, 2, 1, 3]), winner_index, batch_dims=2)
    winner_pres = tf.gather(tf.transpose(vote_presence_prob, [0, 2, 1]), winner_index, batch_dims=2)
    all_votes = tf.concat([votes, tf.repeat(dummy_vote, votes.shape[0], axis=0)], 1)
    soft_winner = tf.reduce_sum(posterior[..., None] * all_votes, 1)
    soft_winner_pres = tf.reduce_sum(posterior[:, :n_caps] * vote_presence_prob, 1)
    return Likelihood(total, vote_presence, winner, winner_pres, winner_index, mixing_logits,
                      mixing_log_prob, soft_winner, soft_winner_pres,
                      tf.transpose(posterior[:, :n_caps], [0, 2, 1]))


class CapsuleLikelihood(NamedModule):
    """`capsule_likelihood` with its learned dummy vote.

    Args:
        scope: holds `dummy_vote` [1, 1, M, D] and, for `student`, the scalar `df`.
        n_points: M.
        n_dims: D.
        rng: draws the dummy vote.
        mixing: see `capsule_likelihood`.
        pdf: `normal`, or `student` with a trained scalar `df`.
        dtype: of the variables.

    Source: original `capsule.py: CapsuleLikelihood`.
    """

    def __init__(self, scope: str, n_points: int, n_dims: int, rng: np.random.Generator,
                 mixing: str = "faithful", pdf: str = "normal", dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.mixing = mixing
        self.dummy_vote = self.add_variable("dummy_vote", initializers.glorot_uniform(
            rng, (1, 1, n_points, n_dims)))
        self.df = self.add_variable("df", np.float32(INITIAL_DF)) if pdf == "student" else None

    def __call__(self, votes: Array, scales: Array, vote_presence_prob: Array, x: Array,
                 presence: Array | None = None) -> Likelihood:
        df = None if self.df is None else degrees_of_freedom(self.df)
        return capsule_likelihood(votes, scales, vote_presence_prob, x, presence, self.dummy_vote,
                                  self.mixing, df)


def _hidden_sizes(n_hiddens: int | Sequence[int]) -> list[int]:
    return [n_hiddens] if isinstance(n_hiddens, int) else list(n_hiddens)


def add_noise(logit: Array, raw: Array | None, noise_type: str | None, noise_scale: float) -> Array:
    """logit + draws: uniform ones times `noise_scale`, the other kinds as they come (Q06).

    Args:
        logit: any shape.
        raw: draws of the same shape, or None for no noise.
        noise_type: `uniform`, `logistic`, `normal` (Q39) or None.
        noise_scale: factor of uniform draws in [-½, ½).

    Returns:
        The same shape.

    Source: original `capsule.py: CapsuleLayer` (noise of the presence logits).
    """
    if raw is None:
        return logit
    raw = tf.cast(raw, logit.dtype)
    return logit + (raw * noise_scale if noise_type == "uniform" else raw)


class CapsuleLayer(NamedModule):
    """Object capsules: features to votes for every part, vote = CCR · CPR.

    Args:
        scope: holds `batch_mlp`, `batch_mlp_1`, `add`, `add_1`, `add_2`, `add_3`, `cpr_static`.
        n_features: size of the features.
        settings: the argument section `obj_decoder`.
        rng: draws the weights.
        dtype: of the variables.

    Source: original `capsule.py: CapsuleLayer`; paper section 2.2.
    """

    def __init__(self, scope: str, n_features: int, settings: Mapping[str, Any],
                 rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.settings = dict(settings)
        n_caps, n_votes = settings["n_caps"], settings["n_votes"]
        n_params, hiddens = settings["n_caps_params"], _hidden_sizes(settings["n_hiddens"])
        self.splits = [n_votes * N_TRANSFORM_PARAMS, N_TRANSFORM_PARAMS, 1, n_votes, n_votes]
        self.batch_mlp = [
            tf.identity if n_params is None
            else layers.BatchMLP(f"{scope}/batch_mlp", n_caps, n_features, [*hiddens, n_params], True,
                                 rng, dtype),
            # Q20: no bias on the last layer, so that the static and dynamic relations stay apart.
            layers.BatchMLP(f"{scope}/batch_mlp_1", n_caps,
                            (n_features if n_params is None else n_params) + 1,
                            [*hiddens, sum(self.splits)], False, rng, dtype)]
        shapes = [(n_caps, 1, N_TRANSFORM_PARAMS), (n_caps, 1), (n_caps, n_votes), (n_caps, n_votes)]
        self.biases = [self.add_variable(f"add{f'_{i}' if i else ''}/b", np.zeros(shape, np.float32))
                       for i, shape in enumerate(shapes)]
        self.cpr_static = self.add_variable("cpr_static", initializers.glorot_uniform(
            rng, (1, n_caps, n_votes, N_TRANSFORM_PARAMS)))

    def __call__(self, features: Array, caps_noise: Array | None = None,
                 vote_noise: Array | None = None, caps_mask: Array | None = None,
                 parent_transform: Array | None = None,
                 parent_presence: Array | None = None,
                 taps: Taps | None = None) -> CapsuleVotes:
        """Vote.

        Args:
            features: `[B, O, F]`.
            caps_noise: raw draws `[B, O, 1]` for the capsules' presence logits.
            vote_noise: raw draws `[B, O, M]` for the votes' presence logits.
            caps_mask: `[B, O, 1]`, 1 keeps a capsule (capsule dropout; not rescaled).
            parent_transform: `[B, O, 1, 3, 3]` in place of the capsules' own poses.
            parent_presence: `[B, O, 1]` in place of the capsules' own presence probability.
            taps: watches a scale that is constant.
        """
        batch, n_caps, _ = features.shape
        n_votes, similarity = self.settings["n_votes"], self.settings["similarity_transform"]
        raw_caps_params = self.batch_mlp[0](features)
        exists = tf.ones([batch, n_caps, 1], features.dtype) if caps_mask is None else tf.cast(
            caps_mask, features.dtype)
        all_params = self.batch_mlp[1](tf.concat([raw_caps_params, exists], -1))
        ccr_bias, caps_bias, vote_bias, scale_bias = self.biases
        dynamic, ccr, caps_logit, vote_logit, scale = tf.split(all_params, self.splits, -1)
        dynamic = tf.reshape(dynamic, [batch, n_caps, n_votes, N_TRANSFORM_PARAMS])
        ccr = tf.reshape(ccr, [batch, n_caps, 1, N_TRANSFORM_PARAMS]) + ccr_bias
        caps_logit, vote_logit = caps_logit + caps_bias, vote_logit + vote_bias
        scale = scale + scale_bias
        if caps_mask is not None:
            caps_logit = caps_logit + ops.safe_log(exists)
        kind, size = self.settings["noise_type"], self.settings["noise_scale"]
        caps_logit = add_noise(caps_logit, caps_noise, kind, size)
        vote_logit = add_noise(vote_logit, vote_noise, kind, size)

        if parent_transform is None:
            parent_transform = ops.geometric_transform(ccr, similarity, as_matrix=True)
        if not self.settings["deformations"]:
            dynamic = tf.zeros_like(dynamic)
        cpr = ops.geometric_transform(dynamic + self.cpr_static, similarity, as_matrix=True)
        vote = tf.matmul(tf.repeat(parent_transform, n_votes, axis=2), cpr)
        caps_presence = tf.nn.sigmoid(caps_logit) if parent_presence is None else parent_presence
        vote_presence = caps_presence * tf.nn.sigmoid(vote_logit)
        if self.settings["learn_vote_scale"]:
            scale = ops.softplus(scale + 0.5) + 1e-2
        else:
            scale = tf.ones_like(scale) if taps is None else taps.watch(tf.ones_like(scale))
        l2 = tf.reduce_sum(tf.square(dynamic)) / 2.0 / batch
        return CapsuleVotes(vote, scale, vote_presence, caps_logit, vote_logit, l2, raw_caps_params,
                            features, all_params, parent_transform)


class ImageCapsule(NamedModule):
    """Capsule layer and likelihood for image parts, whose poses are six numbers.

    Args:
        scope: holds `capsule_layer` and `capsule_likelihood`.
        n_features: size of the features.
        settings: the argument section `obj_decoder`.
        rng: draws the weights.
        mixing: see `capsule_likelihood`.
        dtype: of the variables.

    Source: original `scae.py: ImageCapsule`.
    """

    def __init__(self, scope: str, n_features: int, settings: Mapping[str, Any],
                 rng: np.random.Generator, mixing: str = "faithful",
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.capsule_layer = CapsuleLayer(f"{scope}/capsule_layer", n_features, settings, rng, dtype)
        self.capsule_likelihood = CapsuleLikelihood(
            f"{scope}/capsule_likelihood", settings["n_votes"], N_TRANSFORM_PARAMS, rng, mixing,
            dtype=dtype)

    def __call__(self, features: Array, x: Array, presence: Array | None = None,
                 caps_noise: Array | None = None, vote_noise: Array | None = None,
                 caps_mask: Array | None = None, taps: Taps | None = None
                 ) -> tuple[CapsuleVotes, Array, Likelihood, Array]:
        """Votes, votes as `[B, O, M, 6]`, likelihood of `x`, caps_presence_prob `[B, O]`.

        Args:
            features: `[B, O, F]`.
            x: `[B, M, 6]`, the parts' poses.
            presence: `[B, M]` of the parts.
            caps_noise, vote_noise, caps_mask, taps: see `CapsuleLayer`.
        """
        votes = self.capsule_layer(features, caps_noise, vote_noise, caps_mask, taps=taps)
        flat = tf.reshape(votes.vote[..., :2, :], [*votes.vote.shape[:3], N_TRANSFORM_PARAMS])
        likelihood = self.capsule_likelihood(flat, votes.scale, votes.vote_presence, x, presence)
        return votes, flat, likelihood, tf.reduce_max(votes.vote_presence, 2)
