"""The ways to train that a visit times: rungs of the step, with the kernels and without."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from port.core import backends
from port.training import rungs


@dataclass(frozen=True)
class Way:
    """How training is run.

    Attributes:
        rung: of `port.training.rungs`.
        kernels: the switch SCAE_KERNELS.
        limit: seconds that timing it may take; compilers take most.
    """

    rung: str
    kernels: str = "auto"
    limit: float = 60.0

    @property
    def name(self) -> str:
        """`captured`, or `captured without kernels`."""
        return self.rung + (" without kernels" if self.kernels == "off" else "")

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to go this way."""
        return {backends.SWITCH: self.kernels}


# In the order they are timed: first what is sure to work, then what is likely to be fastest.
WAYS = (Way("eager"), Way("captured"), Way("compiled_captured", limit=120.0),
        Way("compiled_captured", "off", 120.0), Way("captured", "off"), Way("compiled", limit=120.0))
NAMES = {way.name: way for way in WAYS}
PLAIN = "plain PyTorch"


def possible(device: str) -> list[Way]:
    """Those that a device has."""
    return [way for way in WAYS if device == "cuda" or not rungs.RUNGS[way.rung].captured]


def worth_timing(way: Way, times: Mapping[str, Mapping[str, Any]]) -> bool:
    """Not without kernels where there are none: it would be the same again."""
    with_kernels = times.get(way.rung)
    return way.kernels == "auto" or bool(
        with_kernels and not with_kernels["likelihood"].startswith((PLAIN, "none")))


def in_order(times: Mapping[str, Mapping[str, Any]], tier: Mapping[str, Any] | None) -> list[Way]:
    """Fastest first, of those whose step was made and gave a finite loss; eager without kernels last.

    Args:
        times: by name of a way, as `step_time` measured.
        tier: outcomes of the device tier; where a faster path failed there, no way with kernels is taken.
    """
    found = [NAMES[name] for name, facts in sorted(times.items(), key=lambda item: item[1]["step_s"])
             if facts["finite"] and facts["rung"] == NAMES[name].rung]
    if wrong_kernels(tier):
        found = [Way(way.rung, "off", way.limit) for way in found]
    last = Way("eager", "off")
    return list(dict.fromkeys([*found, last]))


def wrong_kernels(tier: Mapping[str, Any] | None) -> list[str]:
    """Checks of the faster paths that did not hold."""
    return [check["check"] for check in (tier or {}).get("checks", ())
            if check["verdict"] in ("fail", "error") and check["check"].startswith("fast/")]


def read(folder: Path, names: Sequence[str] = tuple(NAMES)) -> dict[str, dict]:
    """The times that were measured, by name of the way."""
    return {name: json.loads(path.read_text(encoding="utf-8")) for name in names
            if (path := folder / f"step {name}.json").is_file()}
