"""Several processes that train one model, one share of each batch each.

Every rank draws the same global batch, places and noise and takes its slice, so what is computed does
not depend on their number. With L = (1/N) Σ_r L_r, the gradients are averaged over the ranks. A loss
with statistics over the batch is computed on every rank from the presences of all (`World.gather`),
whose backward pass returns to each rank what all losses ask of its share.

Processes are started by torchrun; without it there is one rank, `ALONE`, and nothing is communicated.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All ranks' rows, in the order of the ranks."""

    @staticmethod
    def forward(ctx, rows: Tensor, rank: int, size: int) -> Tensor:
        ctx.rank, ctx.rows = rank, len(rows)
        parts = [torch.empty_like(rows) for _ in range(size)]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        # Each rank's loss depends on every rank's rows: d(Σ_r L_r) / d(own rows).
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.rank * ctx.rows:(ctx.rank + 1) * ctx.rows], None, None


class World:
    """This process among its peers.

    Args:
        rank: which one, from 0; rank 0 writes.
        size: how many; 1 communicates nothing.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.main = rank == 0
        if size > 1:
            # A message between processes breaks a compiled graph. Only here, since this imports the compiler: a
            # second and 150 MB that a process without peers, and every command that only knows this class, can do
            # without.
            self._gather = torch.compiler.disable(self._gather)  # type: ignore[method-assign]

    def share(self, rows: Tensor) -> Tensor:
        """This rank's equal part of the first axis.

        Raises:
            ValueError: it cannot be split equally.
        """
        check_divisible(len(rows), self.size)
        return rows.chunk(self.size)[self.rank]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all ranks on every rank, with gradient; the inverse of `share`."""
        return rows if self.size == 1 else self._gather(rows)

    def _gather(self, rows: Tensor) -> Tensor:
        return _Gather.apply(rows, self.rank, self.size)

    @torch.no_grad()
    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Mean over the ranks, in place; one message for all tensors."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Rank 0's values on every rank, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def collect(self, value) -> list:
        """Plain values of all ranks, in order."""
        if self.size == 1:
            return [value]
        values = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


ALONE = World()


def launched() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"))


def launched_size() -> int:
    """Number of ranks that torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def first_here() -> bool:
    """Whether this is the first rank on this machine."""
    return not launched() or os.environ["LOCAL_RANK"] == "0"


def join(device: torch.device) -> tuple[World, torch.device]:
    """Join the processes that torchrun started: gloo on the CPU, NCCL with one GPU a process.

    Args:
        device: wanted; a GPU gets the number of the local rank.

    Returns:
        The world, and this rank's device.
    """
    if not launched():
        return ALONE, device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if launched_size() == 1:
        return ALONE, device
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo",
                            device_id=device if device.type == "cuda" else None)
    return World(dist.get_rank(), dist.get_world_size()), device


def leave(world: World) -> None:
    """Part from the others."""
    if world.size > 1:
        dist.destroy_process_group()


def check_divisible(batch_size: int, size: int) -> None:
    """Every rank must get the same number of examples, or means over ranks are no means.

    Raises:
        ValueError: they do not.
    """
    if batch_size % size:
        raise ValueError(f"a batch of {batch_size} cannot be split equally over {size} ranks; set "
                         f"train.batch_size to a multiple of {size}")
