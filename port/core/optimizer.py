"""What our own update rules are made of: `torch.optim.Optimizer`, without loading the compiler.

Torch keeps its compiler from tracing some methods of an optimizer, by a wrapper that imports the compiler at the
first call: a second and 150 MB for a run that compiles nothing. Nobody compiles our optimizers, so their methods
need no such wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def unwrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a wrapper made with `functools.wraps` stands around; a plain method as it is."""
    return getattr(method, "__wrapped__", method)


class Optimizer(torch.optim.Optimizer):
    """`torch.optim.Optimizer`; arguments as there."""

    add_param_group = unwrapped(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrapped(torch.optim.Optimizer.zero_grad)
