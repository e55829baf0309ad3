"""Object capsules of the original's `capsules/capsule.py`: layer, image capsule, likelihood.

Read beside `reference/scae/object_decoder.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from port.core import initializers, layers, mixture, ops
from port.core.parameters import parameter
from port.core.taps import SILENT, Recorder
from port.scae import config as configuration

Array = Float[Tensor, "..."]

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
    is_from_capsule: Int[Tensor, "..."]
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
    [B, O, 1, 3, 3] (the capsules' poses, or the parent's), rows [B, O, M, 6] (the votes without their last row).
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
    rows: Array


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
    return torch.sum(density, -1)


def degrees_of_freedom(raw: Array) -> Array:
    """ν = softplus(raw) + 2, so that the variance is finite.

    Args:
        raw: a scalar, the trained variable `df`.

    Returns:
        A scalar above 2.

    Source: original `capsule.py: CapsuleLikelihood` (pdf 'student').
    """
    return ops.softplus(raw) + 2.0


def capsule_likelihood(votes: Float[Tensor, "batch caps points dims"],
                       scales: Float[Tensor, "batch caps points"],
                       vote_presence_prob: Float[Tensor, "batch caps points"],
                       x: Float[Tensor, "batch points dims"],
                       presence: Float[Tensor, "batch points"] | None,
                       dummy_vote: Float[Tensor, "1 1 points dims"], mixing: str = "faithful",
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
    dummy = torch.full_like(log_prob[:, :1], LOG_DUMMY)
    log_prob = torch.cat([log_prob, dummy], 1)
    mixing_logits = torch.cat([ops.safe_log(vote_presence_prob), dummy], 1)
    mixing_log_prob = mixture.mixing_log_prob(mixing_logits)
    joint = (mixing_logits if mixing == "faithful" else mixing_log_prob) + log_prob
    per_point = ops.log_sum_exp(joint, 1)
    if presence is not None:
        per_point = per_point * presence
    total = torch.mean(torch.sum(per_point, -1))

    vote_presence = (mixing_logits[:, :n_caps] > mixing_logits[:, n_caps:]).to(votes.dtype)
    posterior = torch.softmax(joint, 1)
    winner_index = torch.argmax(joint[:, :n_caps], 1)
    # `gather` for `take_along_dim`, whose broadcasting would fix the batch size of an exported graph.
    index = winner_index[:, None]
    winner = votes.gather(1, index[..., None].expand(-1, -1, -1, votes.shape[-1])).squeeze(1)
    winner_pres = vote_presence_prob.gather(1, index).squeeze(1)
    soft_winner = (torch.sum(posterior[:, :n_caps, :, None] * votes, 1)
                   + posterior[:, n_caps, :, None] * dummy_vote[:, 0])
    soft_winner_pres = torch.sum(posterior[:, :n_caps] * vote_presence_prob, 1)
    return Likelihood(total, vote_presence, winner, winner_pres, winner_index, mixing_logits,
                      mixing_log_prob, soft_winner, soft_winner_pres,
                      posterior[:, :n_caps].mT)


class CapsuleLikelihood(nn.Module):
    """`capsule_likelihood` with its learned dummy vote.

    Args:
        n_points: M; `dummy_vote` is [1, 1, M, D].
        n_dims: D.
        rng: draws the dummy vote.
        mixing: see `capsule_likelihood`.
        pdf: `normal`, or `student` with a trained scalar `df`.

    Source: original `capsule.py: CapsuleLikelihood`.
    """

    def __init__(self, n_points: int, n_dims: int, rng: np.random.Generator,
                 mixing: str = "faithful", pdf: str = "normal") -> None:
        super().__init__()
        self.mixing = mixing
        self.dummy_vote = parameter(initializers.glorot_uniform(rng, (1, 1, n_points, n_dims)))
        self.df = nn.Parameter(torch.tensor(INITIAL_DF)) if pdf == "student" else None

    def forward(self, votes: Array, scales: Array, vote_presence_prob: Array, x: Array,
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
    raw = raw.to(logit.dtype)
    return logit + (raw * noise_scale if noise_type == "uniform" else raw)


def _votes(parent: Float[Tensor, "batch caps 1 3 3"], relation: Float[Tensor, "batch caps votes 6"],
           similarity: bool) -> tuple[Float[Tensor, "batch caps votes 3 3"], Float[Tensor, "batch caps votes 6"]]:
    """parent · relation as matrices, and their first two rows.

    One product for each capsule: 3×3 by 3×3M, whose columns are those of all its votes. A compiler is given the
    entries, each a sum of products: it makes one loop of those that are used and of what stands around them, and
    TF32, where it is allowed, does not shorten the votes.
    """
    if torch.compiler.is_compiling():
        c = ops.transform_entries(relation, similarity)
        entries = [parent[..., i, 0] * c[j] + parent[..., i, 1] * c[3 + j] for i in range(3) for j in range(3)]
        for i in range(3):
            entries[3 * i + 2] = entries[3 * i + 2] + parent[..., i, 2]
        matrix = torch.stack(entries, -1).unflatten(-1, (3, 3))
        return matrix, torch.stack(entries[:6], 2).movedim(2, -1)
    # In memory parameter by parameter, not vote by vote.
    inner = ops.geometric_transform(relation.mT.contiguous().mT, similarity, as_matrix=True)
    columns = inner.movedim(2, -1)
    matrix = (parent[:, :, 0] @ columns.flatten(-2)).unflatten(-1, columns.shape[-2:]).movedim(-1, 2)
    return matrix, matrix[..., :2, :].flatten(-2)


class CapsuleLayer(nn.Module):
    """Object capsules: features to votes for every part, vote = CCR · CPR.

    Args:
        n_features: size of the features.
        settings: the configuration section `obj_decoder`.
        rng: draws the weights.

    Source: original `capsule.py: CapsuleLayer`; paper section 2.2.
    """

    def __init__(self, n_features: int, settings: configuration.ObjDecoder,
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.settings = settings
        n_caps, n_votes = settings.n_caps, settings.n_votes
        n_params, hiddens = settings.n_caps_params, _hidden_sizes(settings.n_hiddens)
        self.splits = [n_votes * N_TRANSFORM_PARAMS, N_TRANSFORM_PARAMS, 1, n_votes, n_votes]
        self.batch_mlp = nn.ModuleList([
            nn.Identity() if n_params is None
            else layers.BatchMLP(n_caps, n_features, [*hiddens, n_params], True, rng),
            # Q20: no bias on the last layer, so that the static and dynamic relations stay apart.
            layers.BatchMLP(n_caps, (n_features if n_params is None else n_params) + 1,
                            [*hiddens, sum(self.splits)], False, rng)])
        shapes = [(n_caps, 1, N_TRANSFORM_PARAMS), (n_caps, 1), (n_caps, n_votes), (n_caps, n_votes)]
        self.biases = nn.ParameterList(parameter(np.zeros(shape, np.float32)) for shape in shapes)
        self.cpr_static = parameter(initializers.glorot_uniform(
            rng, (1, n_caps, n_votes, N_TRANSFORM_PARAMS)))

    def forward(self, features: Array, caps_noise: Array | None = None,
                 vote_noise: Array | None = None, caps_mask: Array | None = None,
                 parent_transform: Array | None = None,
                 parent_presence: Array | None = None, taps: Recorder = SILENT) -> CapsuleVotes:
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
        n_votes, similarity = self.settings.n_votes, self.settings.similarity_transform
        raw_caps_params = self.batch_mlp[0](features)
        exists = torch.ones_like(features[..., :1]) if caps_mask is None else caps_mask.to(
            features.dtype)
        all_params = self.batch_mlp[1](torch.cat([raw_caps_params, exists], -1))
        ccr_bias, caps_bias, vote_bias, scale_bias = self.biases
        dynamic, ccr, caps_logit, vote_logit, scale = all_params.split(self.splits, -1)
        dynamic = dynamic.reshape(batch, n_caps, n_votes, N_TRANSFORM_PARAMS)
        ccr = ccr.reshape(batch, n_caps, 1, N_TRANSFORM_PARAMS) + ccr_bias
        caps_logit, vote_logit = caps_logit + caps_bias, vote_logit + vote_bias
        scale = scale + scale_bias
        if caps_mask is not None:
            caps_logit = caps_logit + ops.safe_log(exists)
        kind, size = self.settings.noise_type, self.settings.noise_scale
        caps_logit = add_noise(caps_logit, caps_noise, kind, size)
        vote_logit = add_noise(vote_logit, vote_noise, kind, size)

        if parent_transform is None:
            parent_transform = ops.geometric_transform(ccr, similarity, as_matrix=True)
        if not self.settings.deformations:
            dynamic = torch.zeros_like(dynamic)
        vote, rows = _votes(parent_transform, dynamic + self.cpr_static, similarity)
        caps_presence = torch.sigmoid(caps_logit) if parent_presence is None else parent_presence
        vote_presence = caps_presence * torch.sigmoid(vote_logit)
        if self.settings.learn_vote_scale:
            scale = ops.softplus(scale + 0.5) + 1e-2
        else:
            scale = taps.watch(torch.ones_like(scale))
        l2 = torch.sum(torch.square(dynamic)) / 2.0 / batch
        return CapsuleVotes(vote, scale, vote_presence, caps_logit, vote_logit, l2, raw_caps_params,
                            features, all_params, parent_transform, rows)


class ImageCapsule(nn.Module):
    """Capsule layer and likelihood for image parts, whose poses are six numbers.

    Args:
        n_features: size of the features.
        settings: the configuration section `obj_decoder`.
        rng: draws the weights.
        mixing: see `capsule_likelihood`.

    Source: original `scae.py: ImageCapsule`.
    """

    def __init__(self, n_features: int, settings: configuration.ObjDecoder,
                 rng: np.random.Generator, mixing: str = "faithful") -> None:
        super().__init__()
        self.capsule_layer = CapsuleLayer(n_features, settings, rng)
        self.capsule_likelihood = CapsuleLikelihood(settings.n_votes, N_TRANSFORM_PARAMS, rng, mixing)

    def forward(self, features: Array, x: Array, presence: Array | None = None,
                 caps_noise: Array | None = None, vote_noise: Array | None = None,
                 caps_mask: Array | None = None, taps: Recorder = SILENT
                ) -> tuple[CapsuleVotes, Array, Likelihood, Array]:
        """Votes, votes as `[B, O, M, 6]`, likelihood of `x`, caps_presence_prob `[B, O]`.

        Args:
            features: `[B, O, F]`.
            x: `[B, M, 6]`, the parts' poses.
            presence: `[B, M]` of the parts.
            caps_noise, vote_noise, caps_mask, taps: see `CapsuleLayer`.
        """
        votes = self.capsule_layer(features, caps_noise, vote_noise, caps_mask, taps=taps)
        likelihood = self.capsule_likelihood(votes.rows, votes.scale, votes.vote_presence, x, presence)
        return votes, votes.rows, likelihood, torch.amax(votes.vote_presence, 2)
