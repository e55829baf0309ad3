"""Spread loss of matrix capsules, and its margin schedules.

Read beside `reference/em/losses.py`: same names, same order.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from port.core import inputs

Array = Float[Tensor, "..."]

MARGINS = ("sigmoid", "linear", "constant")


def spread_margin(step: int, schedule: str = "sigmoid", ramp: int = 10_000) -> float:
    """Margin m of the spread loss.

    `sigmoid` 0.2 + 0.79·sigmoid(min(10, step/50,000 - 4)); `linear` from 0.2 to 0.9 over `ramp` steps,
    as the paper's text says; `constant` 0.9.

    Args:
        step: updates done, from 0.
        schedule: which.
        ramp: steps of `linear`.

    Raises:
        ValueError: no such schedule.

    Source: official `em_model.py`, the same in IBM `em_caps.py`; paper section 5.
    """
    if schedule not in MARGINS:
        raise ValueError(f"no margin schedule {schedule!r}; there are {', '.join(MARGINS)}")
    if schedule == "sigmoid":
        return 0.2 + 0.79 / (1.0 + math.exp(-min(10.0, step / 50_000.0 - 4.0)))
    if schedule == "linear":
        return 0.2 + 0.7 * min(1.0, step / ramp)
    return 0.9


def spread_loss(activation: Float[Tensor, "batch classes"], label: Int[Tensor, " batch"],
                margin: float | Array, reduction: str = "sum") -> Array:
    """Σ over wrong classes i of max(0, m - (a_t - a_i))², mean over the batch.

    Args:
        activation: a `[B, classes]`.
        label: t `[B]`.
        margin: m, a number or a scalar.
        reduction: `sum` over the classes, or `mean` over all of them, the right one counted as 0.

    Returns:
        A scalar.

    Raises:
        ValueError: labels that are no integers `[B]`.

    Source: paper equation (3), IBM; `mean`: official `em_model.py`.
    """
    label = inputs.check_labels(label, activation.shape[0], look=False)
    right = F.one_hot(label, activation.shape[1]).to(activation.dtype)
    target = (right * activation).sum(-1, keepdim=True)
    loss = F.relu(margin - (target - activation)).square() * (1.0 - right)
    per_example = loss.sum(-1) if reduction == "sum" else loss.mean(-1)
    return per_example.mean()
