"""What votes without an order say about a set of points, after the original's `capsules/capsule.py`.

Read beside `reference/constellation/likelihood.py`: same names, same order.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from port.core import mixture, ops
from port.scae import object_decoder as objects
from port.scae.object_decoder import Likelihood

Array = Float[Tensor, "..."]


def order_invariant_likelihood(votes: Float[Tensor, "batch votes dims"],
                               scales: Float[Tensor, "batch votes"],
                               vote_presence_prob: Float[Tensor, "batch votes"],
                               x: Float[Tensor, "batch points dims"],
                               presence: Float[Tensor, "batch points"] | None, n_votes: int,
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
    dummy = torch.full_like(log_prob[:, :1], objects.LOG_DUMMY)
    log_prob = torch.cat([log_prob, dummy], 1)
    mixing_logits = torch.cat([ops.safe_log(vote_presence_prob), dummy[..., 0]], 1)
    mixing_log_prob = mixture.mixing_log_prob(mixing_logits)
    # Unlike the image model's likelihood (Q03) this one normalises.
    per_point = ops.log_sum_exp(mixing_log_prob[..., None] + log_prob, 1)
    if presence is not None:
        per_point = per_point * presence
    total = torch.mean(torch.sum(per_point, -1))

    vote_presence = (mixing_logits[:, :-1] > mixing_logits[:, -1:]).to(votes.dtype)
    joint = mixing_logits[..., None] + log_prob
    posterior = torch.softmax(joint, 1)
    winner_index = torch.argmax(joint[:, :-1], 1)
    # `gather` for `take_along_dim`, whose broadcasting would fix the batch size of an exported graph.
    winner = votes.gather(1, winner_index[..., None].expand(-1, -1, votes.shape[-1]))
    winner_pres = vote_presence_prob.gather(1, winner_index)
    return Likelihood(total, vote_presence, winner, winner_pres, winner_index // n_votes,
                      mixing_logits, mixing_log_prob, torch.zeros_like(winner),
                      torch.zeros_like(winner_pres), posterior[:, :-1].mT)


class OrderInvariantCapsuleLikelihood(nn.Module):
    """`order_invariant_likelihood` with its trained degrees of freedom, if any.

    Args:
        n_votes: votes of each capsule.
        pdf: `normal`, or `student` with a trained scalar `df`.

    Source: original `capsule.py: OrderInvariantCapsuleLikelihood`.
    """

    def __init__(self, n_votes: int, pdf: str = "normal") -> None:
        super().__init__()
        self.n_votes = n_votes
        self.df = nn.Parameter(torch.tensor(objects.INITIAL_DF)) if pdf == "student" else None

    def forward(self, votes: Array, scales: Array, vote_presence_prob: Array, x: Array,
                presence: Array | None = None) -> Likelihood:
        df = None if self.df is None else objects.degrees_of_freedom(self.df)
        return order_invariant_likelihood(votes, scales, vote_presence_prob, x, presence, self.n_votes,
                                          df)


def mixing_kl(mixing_logits: Float[Tensor, "batch components"],
              mixing_log_prob: Float[Tensor, "batch components"], n_states: int) -> Array:
    """Mean over the batch of Σ softmax(logits) · (log π + log n): KL of the mixing from uniform.

    Args:
        mixing_logits: `[B, V + 1]`.
        mixing_log_prob: `[B, V + 1]`, normalised.
        n_states: n; the original gives the number of points, not of components (Q33).

    Returns:
        A scalar.

    Source: original `capsule.py: ConstellationCapsule` (its field `mixing_kl`).
    """
    terms = torch.softmax(mixing_logits, -1) * (mixing_log_prob + math.log(n_states))
    return torch.mean(torch.sum(terms, -1))


def usage_loss(is_from_capsule: Int[Tensor, "batch points"],
               presence: Float[Tensor, "batch points"] | None,
               pres_logit: Float[Tensor, "batch caps"]) -> Array:
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
    won = F.one_hot(is_from_capsule, pres_logit.shape[1]).to(pres_logit.dtype)
    if presence is not None:
        won = won * presence[..., None]
    wins = torch.sum(won, 1).detach()
    several = (wins > 1.0).to(pres_logit.dtype)
    error = F.binary_cross_entropy_with_logits(pres_logit, several, reduction="none")
    return torch.mean(torch.sum(error * (wins > 0.0).to(pres_logit.dtype), -1))
