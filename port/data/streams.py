"""What training takes from any data: a data set that gives an endless stream of batches.

Images have theirs in `port.data.dataset`, constellations, which are drawn and never stored, in
`port.constellation.batches`.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Stream(Protocol):
    """An endless stream of batches whose place can be kept and found again.

    Attributes:
        place_generator: on the device of the data; `take` draws from it, and a captured step registers it.
    """

    place_generator: torch.Generator

    @property
    def limits(self) -> list[int]:
        """The highest value of each number that `state_dict` has under `where`; a checkpoint above them is refused."""

    def generators(self) -> dict[str, torch.Generator]:
        """Those whose states `state_dict` holds, by its names; a checkpoint's are looked at before they are set."""

    def next_index(self) -> Tensor:
        """`[batch]`: what names the next batch, in memory that a captured step keeps reading."""

    def take(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The batch of an index: what the model sees, and its labels or presences."""

    def state_dict(self) -> dict[str, Tensor]:
        """The place in the stream."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from a place that `state_dict` gave."""


@runtime_checkable
class Examples(Protocol):
    """A data set."""

    def to(self, device: torch.device | str) -> Examples:
        """The same on another device."""

    def batches(self, config: Any, settings: Any, seed: int) -> Stream:
        """The stream that a configuration and the settings of training (`port.training.schedule`) ask for."""
