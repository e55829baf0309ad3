"""Operators of ours, `torch.ops.scae.…`, as torch's compiler and autograd know them.

`torch.library.custom_op` does the same, but its operators import torch's compiler when they are first called: a
second and 150 MB for a run that compiles nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch


class Operator:
    """A function of tensors that returns new ones, registered under a name.

    Torch takes a name once in a process. A module that is imported anew, as a test does that plants a bug, finds its
    operators registered; what is called is always the one of the module that is imported now.

    Args:
        name: as `scae::pixel_likelihood`.
        function: with annotated arguments, from which torch reads the schema; changes none of them. The decorated
            name has to stay a global of its module.
        device_types: of the tensors it takes; None for all.
    """

    def __init__(self, name: str, function: Callable[..., Any], device_types: Sequence[str] | None) -> None:
        self.name, self.function = name, function
        self.fake: Callable[..., Any] | None = None
        self.gradient: tuple[Callable[..., Any], Callable[..., None]] | None = None
        # The operator in the module that is imported at the time of the call.
        self._now: Callable[[], Operator] = lambda: getattr(sys.modules[function.__module__], function.__name__)
        namespace, _, short = name.partition("::")
        self._first = not hasattr(getattr(torch.ops, namespace), short)
        if self._first:
            torch.library.define(name, torch.library.infer_schema(function, mutates_args=()),
                                 tags=(torch.Tag.pt2_compliant_tag,))
            torch.library.impl(name, "default" if device_types is None else device_types,
                               lambda *given: self._now().function(*given))

    def register_fake(self, function: Callable[..., Any]) -> None:
        """What the results look like, for a compiler that traces shapes; as a decorator."""
        self.fake = function
        if self._first:
            torch.library.register_fake(self.name, lambda *given: self._now().fake(*given))

    def register_autograd(self, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
        """The gradient; arguments as for `torch.library.register_autograd`."""
        self.gradient = backward, setup_context
        if self._first:
            torch.library.register_autograd(
                self.name, lambda ctx, *grads: self._now().gradient[0](ctx, *grads),
                setup_context=lambda ctx, inputs, output: self._now().gradient[1](ctx, inputs, output))


def operator(name: str, device_types: Sequence[str] | None = None) -> Callable[[Callable[..., Any]], Operator]:
    """`Operator` as a decorator of its function."""
    return lambda function: Operator(name, function, device_types)
