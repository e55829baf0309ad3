"""Constants that the host computes, kept on the device so that a step can be captured as a CUDA graph.

A copy from the host is not allowed while a graph is recorded. The updates before the capture make these
tensors, and the capture finds them here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_KEPT: dict[tuple, Tensor] = {}


def constant(array: np.ndarray, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An array as a tensor that nobody changes; on a GPU the same tensor each time.

    Args:
        array: of any shape.
        dtype: of the tensor.
        device: where it is wanted.
    """
    array = np.asarray(array)
    if device.type == "cpu":
        return torch.as_tensor(array, dtype=dtype)
    key = (array.shape, str(array.dtype), array.tobytes(), dtype, device)
    if key not in _KEPT:
        _KEPT[key] = torch.as_tensor(array, dtype=dtype, device=device)
    return _KEPT[key]


@torch.compiler.assume_constant_result
def computed(function: Callable[..., np.ndarray], *arguments, dtype: torch.dtype, device: torch.device
             ) -> Tensor:
    """`constant(function(*arguments))`, which a compiler takes as it is instead of tracing NumPy.

    Args:
        function: of the arguments alone.
        arguments: plain values.
        dtype: of the tensor.
        device: where it is wanted.
    """
    return constant(function(*arguments), dtype, device)
