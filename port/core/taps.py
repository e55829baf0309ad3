"""Taps: every intermediate of a forward pass under its golden name, channels last when asked for.

The fast path hands `SILENT` around, which records nothing; with `taps=True` the model records the
graph's own tensors, so that a gradient with respect to a tap can be taken too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

CHANNELS_LAST = (0, 2, 3, 1)
PARTS_CHANNELS_LAST = (0, 1, 3, 4, 2)


class _Silent:
    """A recorder that records nothing; falsy, so that `if taps:` skips work done for taps alone."""

    def record(self, name: str, tensor: Tensor, order: Sequence[int] | None = None) -> None:
        pass

    def watch(self, tensor: Tensor) -> Tensor:
        return tensor

    def __bool__(self) -> bool:
        return False


SILENT = _Silent()


class Taps(Mapping[str, Tensor]):
    """Name → tensor in the layout of the recordings; the tensors are permuted on access only."""

    def __init__(self) -> None:
        self._tensors: dict[str, tuple[Tensor, tuple[int, ...] | None]] = {}

    def record(self, name: str, tensor: Tensor, order: Sequence[int] | None = None) -> None:
        """Keep `tensor`; `order` is the permutation that brings it to the recordings' layout."""
        self._tensors[name] = (tensor, None if order is None else tuple(order))

    def watch(self, tensor: Tensor) -> Tensor:
        """Let a gradient be taken at a tensor that no weight reaches (a constant, cut tokens, an input).

        The tensor itself stays as it is, since it may be the caller's; what is returned shares its memory.
        """
        constant = torch.is_grad_enabled() and not tensor.requires_grad
        return tensor.detach().requires_grad_() if constant else tensor

    def __getitem__(self, name: str) -> Tensor:
        tensor, order = self._tensors[name]
        return tensor if order is None else tensor.permute(order)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __bool__(self) -> bool:
        return True

    def as_computed(self) -> dict[str, Tensor]:
        """The tensors as the model made them, not in the recordings' layout."""
        return {name: tensor for name, (tensor, _) in self._tensors.items()}

    def gradients(self, loss: Tensor, names: Sequence[str]) -> dict[str, Tensor | None]:
        """d loss / d tap for each name, in the tap's layout; None where the loss does not see it.

        Args:
            loss: a scalar of the same forward pass; its graph is kept.
            names: taps.

        Raises:
            KeyError: a name was not recorded.
        """
        recorded = {name: self._tensors[name] for name in names}
        seen = [name for name, (tensor, _) in recorded.items() if tensor.requires_grad]
        grads = torch.autograd.grad(loss, [recorded[name][0] for name in seen], retain_graph=True,
                                    allow_unused=True) if seen else ()
        result: dict[str, Tensor | None] = dict.fromkeys(names)
        for name, grad in zip(seen, grads, strict=True):
            order = recorded[name][1]
            result[name] = grad if grad is None or order is None else grad.permute(order)
        return result


Recorder = Taps | _Silent
