"""How much of a model still answers to its images: dead hidden units, spread of the votes, objects in use.

    dead      share of a layer's units whose value before the ReLU is ≤ 0 for every image that was looked at
    spread    √(Σ_i (v_i - v̄)² / n) over n images, averaged over all numbers of all votes v
    objects   exp(-Σ_k p_k ln p_k) with p_k = mean presence of object k, divided by the sum over k

No gradient passes a dead unit. Where those of the capsule MLPs are all dead, votes are the same for every image
(spread 0), and the set transformer below them learns nothing. A unit is an output of a convolution's channel at one
position, or an entry of the first hidden layer of an object's MLP; the more images, the fewer units are dead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, nn

from port.core import layers
from port.scae import object_decoder as objects


def dead(before: Float[Tensor, "images *unit"]) -> Bool[Tensor, "*unit"]:
    """Which units are 0 after a ReLU for every image, from their values before it."""
    return (before <= 0).all(0)


def watched(model: nn.Module) -> dict[str, nn.Module]:
    """Name → layer that a ReLU follows: every convolution, and the first layer of both MLPs of the object capsules.

    Of two levels of objects those of the lower come first: `capsules0`, `capsules1`, then `capsules2`, `capsules3`.
    """
    found: dict[str, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, layers.ConvEncoder):
            active = module.conv if module.activate_final else module.conv[:-1]
            found |= {f"conv{len(found) + i}": conv for i, conv in enumerate(active)}
    mlps = [mlp for module in model.modules() if isinstance(module, objects.CapsuleLayer)
            for mlp in module.batch_mlp if isinstance(mlp, layers.BatchMLP)]
    hidden = [mlp.batch_linear[0] for mlp in mlps if len(mlp.batch_linear) > 1]
    return found | {f"capsules{i}": layer for i, layer in enumerate(hidden)}


class Watch:
    """What `watching` saw, batch by batch."""

    def __init__(self) -> None:
        self.dead: dict[str, Tensor] = {}
        self.n = 0
        self.first: Tensor | None = None  # sums of what differs from it lose no digits
        self.sums: tuple[Tensor, Tensor] | None = None

    def of_units(self, name: str, module: nn.Module, given: tuple, before: Tensor) -> None:
        """One batch through a layer."""
        now = dead(before.detach())
        self.dead[name] = now if name not in self.dead else self.dead[name] & now

    def of_votes(self, module: nn.Module, given: tuple,
                 found: tuple[objects.CapsuleVotes, Tensor, objects.Likelihood, Tensor]) -> None:
        """One batch of votes; the last row of each 3×3 matrix is constant, so it is left out."""
        vote = found[0].rows.detach()
        self.first = vote[:1] if self.first is None else self.first
        apart = (vote - self.first).double()
        now = apart.sum(0), apart.square().sum(0)
        self.sums = now if self.sums is None else (self.sums[0] + now[0], self.sums[1] + now[1])
        self.n += len(vote)

    def row(self) -> dict[str, float]:
        """Columns `dead_…` and `vote_spread`, where there was something to see."""
        found = {f"dead_{name}": float(units.float().mean()) for name, units in self.dead.items()}
        if self.sums is not None:
            total, squares = self.sums
            variance = (squares - total.square() / self.n).clamp(min=0) / self.n
            found["vote_spread"] = float(variance.sqrt().mean())
        return found


@contextlib.contextmanager
def watching(model: nn.Module) -> Iterator[Watch]:
    """Look at every forward pass inside; the lowest level's votes alone."""
    watch = Watch()
    hooks = [layer.register_forward_hook(partial(watch.of_units, name)) for name, layer in watched(model).items()]
    # Not its `CapsuleLayer`, which a level above asks for votes again, with its own poses in place of the objects'.
    lowest = next((module for module in model.modules() if isinstance(module, objects.ImageCapsule)), None)
    if lowest is not None:
        hooks.append(lowest.register_forward_hook(watch.of_votes))
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def effective_number(presence: Float[np.ndarray, "images objects"]) -> float:
    """exp of the entropy of the mean presence: 1 where one object explains everything, their number where all do alike.

    0 where no object is ever present.
    """
    mean = presence.mean(0, dtype=np.float64)
    if not mean.sum() > 0:
        return 0.0
    share = mean[mean > 0] / mean.sum()
    return float(np.exp(-np.sum(share * np.log(share))))
