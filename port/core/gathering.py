"""How a model sees the rows of the whole batch, for the losses with statistics over it.

A model keeps a function that gathers rows; training on several devices puts its own in place
(`port.training.distributed`). It is a function of a module, so that a model can be pickled.
"""

from __future__ import annotations

from torch import Tensor


def alone(rows: Tensor) -> Tensor:
    """`[batch, ...]`, as given: one process has the whole batch."""
    return rows
