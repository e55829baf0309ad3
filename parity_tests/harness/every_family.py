"""One tiny model of every family, and what it takes, for tests that hold for all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import port
from parity_tests.device.repeat import CAPSNET, EM
from parity_tests.harness import runs
from port import families

_PARTS = {name: value for name, value in runs.TINY.items() if name in port.config.FLATS["pcae"]}
CONSTELLATION = {"model": "constellation", "n_dims": 8, "n_heads": 1, "n_output_dims": 12,
                 "n_obj_caps": 3, "n_obj_caps_params": 6}
# Kind → flat configuration keys; `complete` fails where a new family has none.
SMALL: dict[str, dict[str, Any]] = {
    "scae": runs.TINY, "pcae": {"model": "pcae"} | _PARTS, "ocae": {"model": "ocae"} | runs.TINY,
    "hierarchy": {"model": "hierarchy", "n_upper_caps": 3} | runs.TINY, "constellation": CONSTELLATION,
    "capsnet": CAPSNET, "em": EM}
KINDS = tuple(families.FAMILIES)


def model(kind: str, **changed: Any) -> families.Model:
    """A model of a few thousand weights, in evaluation mode."""
    return port.build(port.config.from_flat(SMALL[kind] | changed), seed=1).eval()


def examples(made: families.Model, batch: int, seed: int = 0) -> Tensor:
    """What the model takes: images `[B, C, S, S]` in [0, 1], or points `[B, M, 2]` in [-1, 1]."""
    config, generator = made.config, torch.Generator().manual_seed(seed)
    if config.kind == "constellation":
        return 2 * torch.rand(batch, config.n_points, 2, generator=generator) - 1
    return torch.rand(batch, config.channels, config.canvas, config.canvas, generator=generator)


def answer(made: families.Model, given: Tensor) -> Tensor:
    """Everything of a forward pass that is a number, in one row."""
    with torch.no_grad():
        found = made(given)
    return torch.cat([part.flatten().to(torch.float64) for part in found if isinstance(part, Tensor)])
