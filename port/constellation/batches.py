"""Constellations drawn on the device, and the endless stream of batches that training takes.

The distribution is that of `port.constellation.data`; the random numbers are a torch generator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from port.configuration import limits
from port.configuration.limits import limited
from port.constellation import data
from port.constellation.config import ConstellationConfig
from port.constellation.data import PATTERNS, SLOTS, SPAN

BLOCK = 100  # batches that are scaled together, as in the original (Q29)


@dataclass(frozen=True)
class PointSettings:
    """What is drawn; see `port.constellation.data.draw`.

    Attributes:
        slots: which pattern stands in each slot.
        drop_prob: probability that a pattern is absent.
        gaussian_noise: standard deviation added to each coordinate.
        max_translation: in units of 24.
        rotation_percent: share of a full turn that angles span.
        max_upscale: scales are uniform in [1, 1 + max_upscale).
    """

    slots: tuple[int, ...] = limited(SLOTS, at_least=0, at_most=len(PATTERNS) - 1)
    drop_prob: float = limited(0.5, at_least=0, below=1)
    gaussian_noise: float = limited(0.0, at_least=0)
    max_translation: float = limited(1.0, at_least=0)
    rotation_percent: float = limited(0.5, at_least=0, at_most=1)
    max_upscale: float = limited(3.0, at_least=0)

    def __post_init__(self) -> None:
        limits.check(self)
        if not self.slots:
            raise ValueError("slots: give at least one pattern")

    @property
    def n_points(self) -> int:
        """Points of an example, absent ones included."""
        return len(data.slot_of_point(self.slots))


class Batch(NamedTuple):
    """A batch of constellations on the device; fields as in `port.constellation.data`."""

    corners: Float[Tensor, "batch points 2"]
    presence: Float[Tensor, "batch points"]
    pattern_presence: Float[Tensor, "batch slots"]
    pattern_id: Int64[Tensor, "batch points"]


def draw(generator: torch.Generator, size: int, wanted: PointSettings) -> data.Draws:
    """Draw what is random about `size` examples, on the generator's device, in float64.

    Args:
        generator: the source of randomness.
        size: n.
        wanted: what is drawn.

    Returns:
        `Draws` of tensors.
    """
    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)

    n_slots, n_points = len(wanted.slots), wanted.n_points
    noise = None
    if wanted.gaussian_noise > 0:
        noise = wanted.gaussian_noise * torch.randn(
            (size, n_points, 2), generator=generator, device=generator.device, dtype=torch.float64)
    return data.Draws(
        (uniform(size, n_slots) - 0.5) * 2.0 * torch.pi * wanted.rotation_percent,
        1.0 + uniform(size, n_slots) * wanted.max_upscale,
        SPAN * wanted.max_translation * uniform(size, n_slots, 2),
        uniform(size, n_slots) > wanted.drop_prob,
        uniform(size, n_points).argsort(1), noise)


def assemble(draws: data.Draws, slots: Sequence[int] = SLOTS) -> Batch:
    """`port.constellation.data.assemble` on tensors: the same draws give the same points.

    Args:
        draws: of tensors, on any device.
        slots: see `PointSettings`.

    Returns:
        One block of constellations.
    """
    device = draws.scale.device
    slot = torch.from_numpy(data.slot_of_point(slots)).to(device)
    x, y = torch.tensor([corner for pattern in slots for corner in PATTERNS[pattern]],
                        dtype=torch.float64, device=device).T
    scale, cos, sin = draws.scale[:, slot], draws.angle.cos()[:, slot], draws.angle.sin()[:, slot]
    shift = draws.translation[:, slot] / scale[..., None]
    corners = torch.stack([scale * (x * cos - y * sin) + shift[..., 0],
                           scale * (x * sin + y * cos) + shift[..., 1]], -1).float()
    corners = corners.take_along_dim(draws.order[..., None], 1)
    if draws.noise is not None:
        corners = (corners + draws.noise).float()
    low, high = corners.min(), corners.max()
    corners = (2.0 * (corners - low) / (high - low + 1e-8) - 1.0).float()
    pattern_id = slot[draws.order]
    presence = draws.presence.float()
    return Batch(corners, presence.take_along_dim(pattern_id, 1), presence, pattern_id)


class Batches:
    """An endless stream of (corners, presence), drawn block by block on the device.

    It has the interface of `port.data.dataset.Batches`: `next_index` names rows of the block and moves on,
    `take` gathers them without a host waiting.

    Args:
        wanted: what is drawn.
        batch_size: B.
        seed: of everything that is drawn.
        device: where the batches are wanted.
    """

    def __init__(self, wanted: PointSettings, batch_size: int, seed: int,
                 device: torch.device | str = "cpu") -> None:
        self.wanted, self.batch_size = wanted, batch_size
        self.place_generator = torch.Generator(device).manual_seed(seed)
        self.position = 0
        self.block = self._draw_block()

    def _draw_block(self) -> Batch:
        self.block_start = self.place_generator.get_state()
        draws = draw(self.place_generator, BLOCK * self.batch_size, self.wanted)
        return assemble(draws, self.wanted.slots)

    def _next_block(self) -> None:
        # In place: a captured step keeps reading the same memory.
        for field, new in zip(self.block, self._draw_block()):
            field.copy_(new)

    def __iter__(self) -> Batches:
        return self

    def next_index(self) -> Int64[Tensor, " batch"]:
        """Which rows of the block the next batch holds; moves on, to a new block after the last."""
        if self.position == BLOCK:
            self._next_block()
            self.position = 0
        start = self.position * self.batch_size
        self.position += 1
        return torch.arange(start, start + self.batch_size, device=self.block.corners.device)

    def take(self, index: Int64[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Points and presences of these rows."""
        return self.block.corners[index], self.block.presence[index]

    def __next__(self) -> tuple[Tensor, Tensor]:
        return self.take(self.next_index())

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next batch depends on, as tensors on the CPU."""
        return {"block": self.block_start.clone(), "where": torch.tensor([self.position])}

    @property
    def limits(self) -> list[int]:
        """The highest value of each number of the state's `where`."""
        return [BLOCK]

    def generators(self) -> dict[str, torch.Generator]:
        """Those whose states the state holds, by name."""
        return {"block": self.place_generator}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where `state_dict` was taken."""
        self.place_generator.set_state(state["block"])
        self._next_block()
        self.position = int(state["where"])


@dataclass(frozen=True)
class Dataset:
    """Constellations to train on, drawn as they are needed, and fixed ones to evaluate on."""

    wanted: PointSettings
    test: Batch
    name: str = "constellation"

    def to(self, device: torch.device | str) -> Dataset:
        return replace(self, test=Batch(*(field.to(device) for field in self.test)))

    def batches(self, config: ConstellationConfig, settings: Any, seed: int) -> Batches:
        """The stream that training takes; shuffling and placing have no meaning here."""
        return Batches(self.wanted, settings.batch_size, seed, self.test.corners.device)
