"""EM routing of matrix capsules: M step, E step, and the competition of parents for each child.

Layout: children `[B, H, W, I, …]`; what a parent sees of them `[B, P, Q, K, L, I, …]`, with parent
position (p, q), place (u, v) in its K × L window and child type i; child (p·s + u, q·s + v).
Read beside `reference/em/routing.py`: same names, same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from port.core import backends
from port.core.constants import computed, of_plain_values
from port.em.settings import Routing
from port.em.windows import covered, fold, parent_counts, windows

Array = Float[Tensor, "..."]

LOG_2PI = math.log(2.0 * math.pi)
POSE = 16
FILLER = -100.0
OFFICIAL_EPSILON = 1e-7
# The official logit is λ'·(N·(…) - 5000·activation bias), and the paper's λ is twice its λ'.
OFFICIAL_BETA_A = -5000.0 / 2.0
# A log joint that overflowed stays a number; exp of it is 0 unless every parent's overflowed.
LOWEST = -1e30
# Votes of this many bytes are large: to make an iteration again is then cheaper than to keep it.
LARGE = 2 ** 26


class Moments(NamedTuple):
    """What the M step gives for each parent: mean and variance [B, P, Q, J, 16], logit [B, P, Q, J]."""

    mean: Array
    variance: Array
    logit: Array


class Routed(NamedTuple):
    """Parents: pose [B, P, Q, J, 16], activation and logit [B, P, Q, J], and the last assignment used.

    assignment [B or 1, P, Q, K, L, I or 1, J]: the first one is the same for examples and child types.
    """

    pose: Array
    activation: Array
    logit: Array
    assignment: Array


class First(NamedTuple):
    """What the first assignment depends on: the arguments of `initial_assignment`."""

    parents: Sequence[int]
    kernel: Sequence[int]
    types: int
    stride: int
    routing: Routing

    def beside(self, tensor: Array) -> Array:
        """The assignment in the dtype and on the device of another tensor, also in a compiled graph."""
        numbers = *self.parents, *self.kernel, self.types, self.stride, self.routing.initial_epsilon
        return computed(_initial_assignment, numbers, self.routing.initial, dtype=tensor.dtype, device=tensor.device)


def inverse_temperature(iteration: int, routing: Routing) -> float:
    """λ of one iteration, counted from 0.

    `geometric` final·(1 - 0.95^(t+1)), `linear` final·(t+1)/T, `constant` final.

    Source: the authors on OpenReview; official `em_layers.py: em_routing`.
    """
    if routing.schedule == "geometric":
        return routing.final_lambda * (1.0 - 0.95 ** (iteration + 1))
    if routing.schedule == "linear":
        return routing.final_lambda * (iteration + 1) / routing.iterations
    return routing.final_lambda


def paper_betas(beta_u: Array, beta_a: Array, betas: str) -> tuple[Array, Array]:
    """β_u and β_a of the paper's cost from what a layer trains.

    `paper`: as they are. `official`: β_u = ½·(1 + ln 2π)·sigma bias, β_a = -2500·activation bias.

    Args:
        beta_u: `[J]`, the official sigma bias.
        beta_a: `[J]`, the official activation bias.
        betas: `paper` or `official`.

    Source: paper section 4; official `em_layers.py: em_routing`.
    """
    if betas == "official":
        return 0.5 * (1.0 + LOG_2PI) * beta_u, OFFICIAL_BETA_A * beta_a
    return beta_u, beta_a


def safe_divide(numerator: Array, denominator: Array) -> Array:
    """x / y whose value and slopes can always be represented.

    0 where |y| < sqrt(smallest normal number), below which the slope's 1/y² overflows; cut to the
    largest finite number where x / y overflows. Where a value was replaced the gradient is 0; where
    only the slope x/y² overflows, y is a constant.

    Args:
        numerator: x, finite, any shape.
        denominator: y, finite, of a shape that broadcasts with x.

    Returns:
        The shape that both broadcast to.

    Source: ours; the programs add an epsilon to y or divide as it is.
    """
    largest, smallest = torch.finfo(denominator.dtype).max, torch.finfo(denominator.dtype).tiny
    x, y = numerator.detach(), denominator.detach()
    dead = y.abs() < math.sqrt(smallest)
    y = torch.where(dead, 1.0, y)
    overflow = x.abs() > largest * y.abs().clamp(max=1.0)
    q = torch.where(overflow, 0.0, x) / y
    steep = q.abs() > largest * y.abs().clamp(max=1.0)
    kept = torch.where(dead | overflow, 0.0, numerator)
    divisor = torch.where(dead | overflow | steep, y, denominator)
    saturated = x.sign() * y.sign() * largest
    return torch.where(overflow & ~dead, saturated, kept / divisor)


def initial_assignment(parents: tuple[int, int], kernel: tuple[int, int], parent_types: int,
                       stride: int, routing: Routing) -> np.ndarray:
    """The first assignment, 1 / (spatial parents of the child · types), as `routing.initial` says.

    Args:
        parents: P, Q.
        kernel: K, L.
        parent_types: J.
        stride: s.
        routing: `initial` and `initial_epsilon`.

    Returns:
        float64 `[1, P, Q, K, L, 1, J]`.

    Source: paper procedure 1, line 2; official and IBM programs for the other forms.
    """
    counts = parent_counts(parents, kernel, stride)
    # Gaps between windows, where the stride is larger than the kernel, hold no child of anyone.
    counts = np.ones_like(counts) if routing.initial == "types" else np.maximum(counts, 1.0)
    shares = 1.0 / (counts * parent_types + routing.initial_epsilon)
    rows, columns = (stride * np.arange(n)[:, None] + np.arange(k) for n, k in zip(parents, kernel))
    seen = shares[rows[:, None, :, None], columns[None, :, None, :]]
    return np.broadcast_to(seen[None, ..., None, None], (1, *seen.shape, 1, parent_types)).copy()


def m_step(votes: Array, weights: Array, beta_u: Array, beta_a: Array, temperature: float,
           previous_mean: Array | None = None, routing: Routing = Routing()) -> Moments:  # noqa: B008
    """Parents from weighted votes.

    N = Σ w; μ = (1 - m)·Σ wV / N + m·μ_previous; σ² = Σ w(V - μ)² / N + floor;
    logit = λ(β_a - κ·N·Σ_h(β_u + ½ ln σ²_h)); sums over the window and the child types.

    Args:
        votes: V `[B, P, Q, K, L, I, J, 16]`.
        weights: w = assignment · child activation `[B, P, Q, K, L, I, J]`.
        beta_u: `[J]`, in the paper's meaning.
        beta_a: `[J]`.
        temperature: λ.
        previous_mean: `[B, P, Q, J, 16]`; None is 0.
        routing: epsilons, floor, momentum, cost scale.

    Returns:
        `Moments`. A parent without mass has mean 0 and the floor as variance.

    Source: paper procedure 1, M-step; official and IBM `em_routing`.
    """
    mass = weights.sum((3, 4, 5))
    divisor = mass + routing.mass_epsilon
    # Products, then their sum, as the programs do: a matrix product rounds identical votes otherwise.
    mean = safe_divide((weights[..., None] * votes).sum((3, 4, 5)), divisor[..., None])
    if routing.momentum:
        mean = (1.0 - routing.momentum) * mean
        if previous_mean is not None:
            mean = mean + routing.momentum * previous_mean
    distance = (votes - mean[:, :, :, None, None, None]).square()
    variance = safe_divide((weights[..., None] * distance).sum((3, 4, 5)),
                           divisor[..., None]) + routing.variance_floor
    scale = 1.0
    if routing.cost_scale == "children":
        scale = 100.0 * votes.shape[6] / math.prod(votes.shape[3:6])
    charged = divisor if routing.mass_epsilon_in_cost else mass
    cost = scale * charged * (POSE * beta_u + 0.5 * variance.log().sum(-1))
    return Moments(mean, variance, temperature * (beta_a - cost))


def log_activation(logit: Array, routing: Routing) -> Array:
    """ln a from the logit: the log-sigmoid, or ln(sigmoid + epsilon)."""
    if routing.log_epsilon:
        return torch.log(torch.sigmoid(logit) + routing.log_epsilon)
    return F.logsigmoid(logit)


def e_step(votes: Array, mean: Array, variance: Array, log_active: Array) -> Array:
    """ln a + ln p of each vote under each parent: ln a - Σ_h[(V - μ)²/(2σ²) + ½ ln 2πσ²].

    Args:
        votes: `[B, P, Q, K, L, I, J, 16]`.
        mean: `[B, P, Q, J, 16]`.
        variance: `[B, P, Q, J, 16]`, positive.
        log_active: ln a `[B, P, Q, J]`.

    Returns:
        `[B, P, Q, K, L, I, J]`, at least -1e30.

    Source: paper procedure 1, E-step; left in log space.
    """
    # Scaled before it is squared: every factor of the gradient stays representable.
    root = variance.rsqrt()
    distance = (votes - mean[:, :, :, None, None, None]) * root[:, :, :, None, None, None]
    base = log_active - 0.5 * (POSE * LOG_2PI + variance.log().sum(-1))
    return (base[:, :, :, None, None, None] - 0.5 * distance.square().sum(-1)).clamp(min=LOWEST)


def compete(joint: Array, stride: int, competition: str = "parents") -> Array:
    """Assignments: each child's share of every parent that sees it.

    `parents`: exp(z) / Σ over all parent types and positions whose window holds the child, so the
    shares of a child sum to 1. `filled`: the other positions count too, each with J entries of
    f = min(min z, -100), the minimum over the batch. `stride_1_per_type`: e = exp(z - max) with the
    maximum over positions and places, for each child and parent type; e / (Σ e + 1e-7) over entries
    of the same types with equal (p + u, q + v), whatever the stride.

    Args:
        joint: z `[B, P, Q, K, L, I, J]`.
        stride: s.
        competition: which.

    Returns:
        The same shape.

    Source: paper procedure 1, line 4 of the E-step; official and IBM programs.
    """
    parents, kernel = tuple(joint.shape[1:3]), tuple(joint.shape[3:5])
    if competition == "stride_1_per_type":
        share = torch.exp(joint - joint.amax((1, 2, 3, 4), keepdim=True))
        return share / (windows(fold(share, 1), kernel, 1) + OFFICIAL_EPSILON)
    largest = _fold_max(joint.detach().amax(-1), stride)
    filler = None
    if competition == "filled":
        filler = joint.amin().clamp(max=FILLER)
        largest = torch.maximum(largest, filler.detach())
    share = torch.exp(joint - windows(largest, kernel, stride)[..., None])
    total = fold(share.sum(-1), stride)
    if filler is not None:
        others = joint.shape[-1] * computed(_other_counts, (*parents, *kernel, stride), dtype=joint.dtype,
                                            device=joint.device)
        total = total + others[None, ..., None] * torch.exp(filler - largest)
    return share / windows(total, kernel, stride)[..., None]


def route(votes: Array, activation: Array, beta_u: Array, beta_a: Array, stride: int,
          routing: Routing = Routing()) -> Routed:  # noqa: B008
    """EM routing: T M steps with E steps between them; gradients through all of them.

    Args:
        votes: `[B, P, Q, K, L, I, J, 16]`, each child's vote for each parent that sees it.
        activation: of the children as seen by each parent `[B, P, Q, K, L, I]`.
        beta_u: `[J]`, as trained (`routing.betas` says what it means).
        beta_a: `[J]`.
        stride: s.
        routing: everything else.

    Source: paper procedure 1; official `em_layers.py: em_routing`; IBM `em_routing.py`.
    """
    beta_u, beta_a = paper_betas(beta_u, beta_a, routing.betas)
    assignment = First(votes.shape[1:3], votes.shape[3:5], votes.shape[6], stride, routing).beside(votes)
    # Not `nbytes`, which a compiler that does not know the batch size yet cannot compute.
    n_bytes = votes.numel() * votes.element_size()
    saving = (torch.is_grad_enabled() and not backends.exporting() and votes.requires_grad
              and n_bytes >= LARGE)

    def iterate(iteration: int, assignment: Array, moments: Moments | None) -> tuple[Array, Moments]:
        if moments is not None:
            joint = e_step(votes, moments.mean, moments.variance, log_activation(moments.logit, routing))
            assignment = compete(joint, stride, routing.competition)
        return assignment, m_step(votes, assignment * activation[..., None], beta_u, beta_a,
                                  inverse_temperature(iteration, routing),
                                  None if moments is None else moments.mean, routing)

    moments = None
    for iteration in range(routing.iterations):
        # What an iteration makes of large votes is made again in the backward pass, not kept until then.
        if saving:
            assignment, moments = checkpoint(iterate, iteration, assignment, moments, use_reentrant=False,
                                             preserve_rng_state=False)
        else:
            assignment, moments = iterate(iteration, assignment, moments)
    return Routed(moments.mean, torch.sigmoid(moments.logit), moments.logit, assignment)


@of_plain_values
def _initial_assignment(initial: str, *numbers: float) -> np.ndarray:
    """`initial_assignment` of P, Q, K, L, J, s and the epsilon."""
    *sizes, types, stride = map(int, numbers[:6])
    return initial_assignment(tuple(sizes[:2]), tuple(sizes[2:]), types, stride,
                              Routing(initial=initial, initial_epsilon=numbers[6]))


@of_plain_values
def _other_counts(_: str, *numbers: float) -> np.ndarray:
    """How many of the P·Q parent positions do not see each child: of P, Q, K, L and s."""
    *sizes, stride = map(int, numbers)
    return sizes[0] * sizes[1] - parent_counts(tuple(sizes[:2]), tuple(sizes[2:]), stride)


def _fold_max(entries: Array, stride: int) -> Array:
    """The largest entry of each child over the parents that see it, `[B, H, W, …]`; for a shift only."""
    parents, kernel = tuple(entries.shape[1:3]), tuple(entries.shape[3:5])
    height, width = covered(parents, kernel, stride)
    found = entries.new_full((entries.shape[0], height, width, *entries.shape[5:]), -math.inf)
    for u in range(kernel[0]):
        for v in range(kernel[1]):
            place = found[:, u:u + (parents[0] - 1) * stride + 1:stride,
                          v:v + (parents[1] - 1) * stride + 1:stride]
            place.copy_(torch.maximum(place, entries[:, :, :, u, v]))
    return found
