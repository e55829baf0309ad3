"""Constants that the host computes, kept on the device so that a step can be captured as a CUDA graph.

A copy from the host is not allowed while a graph is recorded. The updates before the capture make these
tensors, and the capture finds them here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import no_type_check

import numpy as np
import torch
from torch import Tensor

from port.core import backends, operators

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


PlainFunction = Callable[..., np.ndarray]
_FUNCTIONS: dict[str, PlainFunction] = {}


def of_plain_values(function: PlainFunction) -> PlainFunction:
    """Make known to `computed` a function of a word and numbers that gives an array."""
    _FUNCTIONS[function.__name__] = function
    return function


def computed(function: PlainFunction, numbers: Sequence[float], word: str = "", *, dtype: torch.dtype,
             device: torch.device) -> Tensor:
    """`constant(function(word, *numbers))`; in a compiled graph an operator, as compilers trace no NumPy.

    Args:
        function: one that is known (`of_plain_values`); its numbers come as they are, or as floats.
        numbers: its arguments after the word.
        word: its first argument.
        dtype: of the tensor.
        device: where it is wanted.
    """
    if torch.compiler.is_compiling() and not backends.exporting():
        return torch.ops.scae.computed(function.__name__, [float(n) for n in numbers], word, dtype, device)
    return constant(function(word, *numbers), dtype, device)


@operators.operator("scae::computed")
@no_type_check
def _computed(name: str, numbers: Sequence[float], word: str, dtype: torch.dtype, device: torch.device
              ) -> Tensor:
    # An operator may not hand out a tensor that it keeps.
    return constant(_FUNCTIONS[name](word, *numbers), dtype, device).clone()


@_computed.register_fake
@no_type_check
def _(name, numbers, word, dtype, device):
    return torch.empty(_FUNCTIONS[name](word, *numbers).shape, dtype=dtype, device=device)
