"""A drawn array as a trainable parameter."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def parameter(value: np.ndarray) -> nn.Parameter:
    """An array as a parameter of its dtype and shape; it shares the array's memory where that is contiguous."""
    return nn.Parameter(torch.from_numpy(np.ascontiguousarray(value)))
