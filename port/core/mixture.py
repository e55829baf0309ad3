"""The pixel mixture of the original's `capsules/prob.py: MixtureDistribution`, Normal components.

Read beside `reference/core/mixture.py`: same functions, same order. The component axis is 1; images are
channels first here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from port.core import ops

Array = Float[Tensor, "..."]

_HALF_LOG_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_HALF_LOG_PI = 0.5 * math.log(math.pi)


def normal_log_prob(x: Array, mean: Array, scale: Array) -> Array:
    """log N(x; mean, scale) = -½((x - mean)/scale)² - log scale - ½ log 2π.

    Args:
        x: broadcasts against `mean`.
        mean: any shape.
        scale: broadcasts against `mean`, positive.

    Returns:
        The broadcast shape.

    Source: `tfd.Normal.log_prob`.
    """
    standardised = (x - mean) / scale
    return -0.5 * torch.square(standardised) - torch.log(scale) - _HALF_LOG_TWO_PI


def student_log_prob(x: Array, df: Array, loc: Array, scale: Array) -> Array:
    """Student's t: log Γ((ν+1)/2) - log Γ(ν/2) - ½ log(πν) - log scale - (ν+1)/2 log(1 + y²/ν).

    y = (x - loc) / scale.

    Args:
        x: broadcasts against `loc`.
        df: ν, degrees of freedom, a positive scalar.
        loc: any shape.
        scale: broadcasts against `loc`, positive.

    Returns:
        The broadcast shape.

    Source: `tfd.StudentT.log_prob`.
    """
    standardised = (x - loc) / scale
    normaliser = (torch.log(scale) + 0.5 * torch.log(df) + _HALF_LOG_PI
                  + torch.lgamma(0.5 * df) - torch.lgamma(0.5 * (df + 1.0)))
    return -0.5 * (df + 1.0) * torch.log1p(torch.square(standardised) / df) - normaliser


def mixing_log_prob(mixing_logits: Array) -> Array:
    """logits - lse(logits) over the components.

    Args:
        mixing_logits: `[B, K, ...]`.

    Returns:
        The same shape.

    Source: original `prob.MixtureDistribution.mixing_log_prob`. Not `log_softmax`: with every
    component absent (all at -1e8) that differs by 1.4 in float32.
    """
    return mixing_logits - ops.log_sum_exp(mixing_logits, 1, keepdims=True)


def mixture_log_prob(x: Float[Tensor, "batch channels h w"],
                     mixing_logits: Float[Tensor, "batch parts #channels h w"],
                     mean: Float[Tensor, "batch parts channels h w"], scale: Array
                     ) -> Float[Tensor, "batch channels h w"]:
    """Σ over components inside the logarithm: lse_k(log N(x; mean_k, scale) + log π_k).

    Args:
        x: `[B, C, H, W]`.
        mixing_logits: `[B, K, 1 or C, H, W]`.
        mean: `[B, K, C, H, W]`.
        scale: broadcasts against `mean`.

    Returns:
        `[B, C, H, W]`: every channel is its own mixture.

    Source: original `prob.MixtureDistribution.log_prob`; paper equation (4).
    """
    component = normal_log_prob(x.unsqueeze(1), mean, scale)
    return ops.log_sum_exp(component + mixing_log_prob(mixing_logits), 1)


def mixture_mean(mixing_logits: Float[Tensor, "batch parts #channels h w"],
                 mean: Float[Tensor, "batch parts channels h w"]
                 ) -> Float[Tensor, "batch channels h w"]:
    """Σ_k softmax(logits)_k · mean_k.

    Args:
        mixing_logits: `[B, K, 1 or C, H, W]`.
        mean: `[B, K, C, H, W]`.

    Returns:
        `[B, C, H, W]`.

    Source: original `prob.MixtureDistribution.mean`.
    """
    return torch.sum(torch.softmax(mixing_logits, 1) * mean, 1)


def mixture_mode(mixing_logits: Array, mean: Array, scale: Array | float = 1.0,
                 presence: Array | None = None, straight_through_gradient: bool = False,
                 maximum: bool = False) -> Array:
    """Mean of the component with the largest mixing probability, not the mode of the density (Q13).

    Args:
        mixing_logits: `[B, K, 1 or C, H, W]`.
        mean: `[B, K, C, H, W]`.
        scale: of the components; used by `maximum`.
        presence: `[B, K]`; used by `maximum`, 1 if None.
        straight_through_gradient: pass the gradient of the softmax of the score.
        maximum: add presence · (-log scale - ½ log 2π), each component's density at its own mode.

    Returns:
        `[B, C, H, W]`; ties take the lowest component.

    Source: original `prob.MixtureDistribution.mode`.
    """
    score = mixing_log_prob(mixing_logits)
    if maximum:
        scale = torch.as_tensor(scale, dtype=mean.dtype, device=mean.device)
        peak = normal_log_prob(mean, mean, scale)
        if presence is not None:
            peak = peak * ops.make_broadcastable(presence, peak)
        score = score + peak
    mask = F.one_hot(torch.argmax(score, 1), score.shape[1]).movedim(-1, 1).to(mean.dtype)
    if straight_through_gradient:
        soft = torch.softmax(score, 1)
        mask = mask - soft.detach() + soft
    return torch.sum(mask * mean, 1)
