"""Sparsity losses and the total of the original's `capsule.py` and `scae.py`, in PyTorch.

Read beside `reference/core/losses.py`: same functions, same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from port.core import ops

Array = Float[Tensor, "..."]


def _entropy(p: Float[Tensor, "*batch caps"]) -> Float[Tensor, "*batch"]:
    return -torch.sum(p * ops.safe_log(p), -1)


def capsule_entropy(p: Float[Tensor, "batch caps"]) -> tuple[Array, Array]:
    """Entropy over the capsules, per example and of the batch's sum.

    within = mean_B H(p / (Σ_O p + 1e-8)); between = H(Σ_B p, normalised); H by safe_log.

    Args:
        p: `[B, O]`, non-negative.

    Returns:
        within and between, scalars; the loss adds the first and subtracts the second.

    Source: original `capsule.py: _capsule_entropy`; paper equation (7).
    """
    within = torch.mean(_entropy(ops.normalize(p, 1)))
    between = _entropy(ops.normalize(torch.sum(p, 0), 0))
    return within, between


def neg_capsule_kl(p: Float[Tensor, "batch caps"]) -> tuple[Array, Array]:
    """-Σ p log(n p): entropy relative to the uniform distribution over n capsules.

    Args:
        p: `[B, O]`, non-negative; normalised exactly as for the entropy, n = O.

    Returns:
        within (mean over the batch) and between, scalars.

    Source: original `capsule.py: _neg_capsule_kl`.
    """
    n = float(p.shape[-1])

    def divergence(q: Array) -> Array:
        return -torch.sum(q * ops.safe_log(q * n), -1)

    within = torch.mean(divergence(ops.normalize(p, 1)))
    between = divergence(ops.normalize(torch.sum(p, 0), 0))
    return within, between


def capsule_presence_l2(p: Float[Tensor, "batch caps"], num_classes: float,
                        within_example_constant: float = 0.0) -> tuple[Array, Array]:
    """Squared distance of the presences' sums to their targets.

    within = Σ_B (Σ_O p - c)² / B, c = O / num_classes unless a constant is given (Q09);
    between = -Σ_O (Σ_B p - B / num_classes)² / O.

    Args:
        p: `[B, O]` presence probabilities.
        num_classes: number of classes assumed.
        within_example_constant: replaces c when not zero.

    Returns:
        within and between, scalars; between is returned negated, so that subtracting it penalises.

    Source: original `capsule.py: _caps_pres_l2`; paper equation (6).
    """
    batch, n_caps = p.shape
    target = within_example_constant or n_caps / num_classes
    within = torch.sum(torch.square(torch.sum(p, 1) - target)) / batch
    between = torch.sum(torch.square(torch.sum(p, 0) - batch / num_classes)) / n_caps
    return within, -between


def sparsity_loss(loss_type: str, p: Float[Tensor, "batch caps"], num_classes: float | None = None,
                  within_example_constant: float = 0.0) -> tuple[Array, Array]:
    """Sparsity of the given type: (within, between).

    Args:
        loss_type: `entropy`, `kl` or `l2`.
        p: `[B, O]`.
        num_classes: for `l2`.
        within_example_constant: for `l2`.

    Returns:
        within and between, scalars.

    Raises:
        ValueError: another type.

    Source: original `capsule.py: sparsity_loss`.
    """
    if loss_type == "entropy":
        return capsule_entropy(p)
    if loss_type == "kl":
        return neg_capsule_kl(p)
    if loss_type == "l2":
        return capsule_presence_l2(p, num_classes, within_example_constant)
    raise ValueError(f"sparsity loss {loss_type!r}: give 'entropy', 'kl' or 'l2'")


def l2_loss(x: Array) -> Array:
    """Σ x² / 2.

    Args:
        x: any shape.

    Returns:
        A scalar.

    Source: `tf.nn.l2_loss`.
    """
    return torch.sum(torch.square(x)) / 2.0


def weight_decay_loss(weights: Sequence[Array]) -> Array:
    """Σ over the weights of Σ w² / 2, unweighted.

    Args:
        weights: the variables that the original names `w` or `weights`: linear, convolution and
            per-capsule weights, the probes' and the colour MLP's included (Q15).

    Returns:
        A scalar.

    Source: original `scae.py: ImageAutoencoder._build`.
    """
    return torch.stack([l2_loss(weight) for weight in weights]).sum()


def template_l1(templates: Array) -> Array:
    """Mean of the positive part of the template variable, before its nonlinearity.

    Args:
        templates: any shape.

    Returns:
        A scalar.

    Source: mlberkeley/scae-pytorch `models/pcae.py` (its `temp_l1`).
    """
    return torch.mean(torch.relu(templates))


def total_loss(terms: Mapping[str, Array], weights: Any) -> Array:
    """The optimised scalar.

    -rec_ll - w·log_prob + w·dynamic_weights_l2 + w·primary_caps_l1 + Σ over posterior and prior of
    (w·within - w·between) + weight decay + the probes' cross-entropies where there are labels. The
    weights of rec_ll, of the templates' L1 and of the squared error are ours: 1, 0 and 0.

    Args:
        terms: scalars by the names of the original's result.
        weights: the configuration section `autoencoder`.

    Returns:
        A scalar.

    Source: original `scae.py: ImageAutoencoder._loss`.
    """
    loss = -weights.rec_ll_weight * terms["rec_ll"] - weights.caps_ll_weight * terms["log_prob"]
    loss = loss + weights.dynamic_l2_weight * terms["dynamic_weights_l2"]
    loss = loss + weights.primary_caps_sparsity_weight * terms["primary_caps_l1"]
    for kind in ("posterior", "prior"):
        loss = loss + (getattr(weights, f"{kind}_within_example_sparsity_weight")
                       * terms[f"{kind}_within_sparsity_loss"])
        loss = loss - (getattr(weights, f"{kind}_between_example_sparsity_weight")
                       * terms[f"{kind}_between_sparsity_loss"])
    if weights.template_l1_weight > 0:
        loss = loss + weights.template_l1_weight * terms["template_l1"]
    if weights.mse_weight > 0:
        loss = loss + weights.mse_weight * terms["rec_mse"]
    if "weight_decay_loss" in terms:
        loss = loss + weights.weight_decay * terms["weight_decay_loss"]
    for kind in ("posterior", "prior"):
        if f"{kind}_cls_xe" in terms:
            loss = loss + terms[f"{kind}_cls_xe"]
    return loss
