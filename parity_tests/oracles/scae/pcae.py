"""Oracles of the losses of the other modes: part capsules alone, and the third level."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parity_tests.oracles.scalars import as64


def template_l1(templates) -> np.float64:
    """Mean of max(t, 0) over every number of the template variable.

    Source: mlberkeley/scae-pytorch, models/pcae.py.
    """
    total, count = 0.0, 0
    for value in as64(templates).flatten().tolist():
        total += value if value > 0.0 else 0.0
        count += 1
    return np.float64(total / count)


def total_loss(terms: Mapping[str, float], weights: Mapping[str, float]) -> np.float64:
    """-w rec_ll + w template_l1 + w rec_mse + w primary_caps_l1 + w weight_decay_loss.

    Source: mlberkeley/scae-pytorch, models/pcae.py.
    """
    total = -weights["rec_ll_weight"] * float(terms["rec_ll"])
    for name, weight in (("template_l1", "template_l1_weight"), ("rec_mse", "mse_weight"),
                         ("primary_caps_l1", "primary_caps_sparsity_weight"),
                         ("weight_decay_loss", "weight_decay")):
        if name in terms:
            total += weights[weight] * float(terms[name])
    return np.float64(total)


def upper_loss(terms: Mapping[str, float], weights: Mapping[str, float]) -> np.float64:
    """-w upper_log_prob - w parent_log_prob + w l2 + the two pairs of w within - w between.

    Source: ours.
    """
    total = (-weights["caps_ll_weight"] * float(terms["upper_log_prob"])
             - weights["parent_ll_weight"] * float(terms["parent_log_prob"])
             + weights["dynamic_l2_weight"] * float(terms["upper_dynamic_weights_l2"]))
    for kind in ("posterior", "prior"):
        for place, sign in (("within", 1.0), ("between", -1.0)):
            total += (sign * weights[f"{kind}_{place}_example_sparsity_weight"]
                      * float(terms[f"upper_{kind}_{place}_sparsity_loss"]))
    return np.float64(total)
