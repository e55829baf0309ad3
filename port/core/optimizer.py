"""What our own update rules are made of: `torch.optim.Optimizer`, without loading the compiler.

Torch keeps its compiler from tracing some methods of an optimizer, by a wrapper that imports the compiler at the
first call: a second and 150 MB for a run that compiles nothing. Nobody compiles our optimizers, so their methods
need no such wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def unwrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a wrapper made with `functools.wraps` stands around; a plain method as it is."""
    return getattr(method, "__wrapped__", method)


class Optimizer(torch.optim.Optimizer):
    """`torch.optim.Optimizer`, whose state is there from the start; arguments as there."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group and make its slots; torch calls this for the first groups, too."""
        unwrapped(torch.optim.Optimizer.add_param_group)(self, param_group)
        self.make_slots(self.param_groups[-1]["params"])

    def make_slots(self, parameters: list[Tensor]) -> None:
        """Give each parameter of a new group its state."""
        raise NotImplementedError

    zero_grad = unwrapped(torch.optim.Optimizer.zero_grad)
