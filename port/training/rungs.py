"""The ways in which a step can be made, fastest first, and how one that fails is given up.

A failed capture cannot be survived: a generator that was registered with the graph stays in capture mode,
and the next draw raises as well. So the step raises `RungFailed`, the process ends, and whoever started it
begins again a rung lower in a fresh one (`pipelines.support.descent`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:  # it looks here for the names
    from port.training.schedule import Settings

AUTO = "auto"
# The first torch whose compiler was found to be right on a CPU. That of 2.11 writes past the end of an array: in
# the backward pass of preset `mnist` a sum is made for 16 of the 40 parts at once, and of the last 8, too, it stores
# 16 results, 200 numbers too many, after which the process ends with "free(): corrupted unsorted chunks". The
# compiler of 2.15 does not; the versions between were not tried.
SOUND = (2, 15)


@dataclass(frozen=True)
class Rung:
    """A way to make a step.

    Attributes:
        name: as the setting `rung` takes it.
        compiled: the forward and backward pass come from torch.compile.
        captured: the whole update is replayed as a CUDA graph.
    """

    name: str
    compiled: bool
    captured: bool


RUNGS: Mapping[str, Rung] = {rung.name: rung for rung in (
    Rung("compiled_captured", True, True), Rung("captured", False, True),
    Rung("compiled", True, False), Rung("eager", False, False))}


class RungFailed(RuntimeError):
    """A step cannot be made as the rung says; the process must not go on.

    Attributes:
        rung: its name.
    """

    def __init__(self, rung: str, what: str, error: Exception) -> None:
        super().__init__(f"rung {rung}: {what} ({first_line(error)})")
        self.rung = rung


def first_line(error: Exception) -> str:
    """What an error says, short enough for a note."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def ladder(settings: Settings, device: str) -> list[Rung]:
    """The rungs to try in this order; a single one where the settings name it.

    Args:
        settings: `rung`; where that is `auto`, `compile` and `capture`. `compile: auto` counts as no here:
            it is decided when the run begins.
        device: its type, `cpu` or `cuda`.

    Raises:
        ValueError: a capture is asked for on a device that has none.
    """
    asked = RUNGS.get(settings.rung)
    if device != "cuda" and (settings.capture == "always" or (asked and asked.captured)):
        setting = f"rung: {asked.name}" if asked and asked.captured else "capture: always"
        raise ValueError(f"{setting} needs a GPU; set it to auto" + ("" if asked else " or never"))
    if asked is not None:
        return [asked]
    captures = settings.capture != "never" and device == "cuda"
    found = [rung for rung in RUNGS.values()
             if (settings.compile is True or not rung.compiled) and (captures or not rung.captured)]
    return found[:1] if settings.capture == "always" else found


def compiler_fault(device: str) -> str:
    """Why what this torch compiles is not to be trusted; empty where nothing is known against it.

    Args:
        device: its type, `cpu` or `cuda`.
    """
    if device != "cpu" or tuple(int(part) for part in torch.__version__.split(".")[:2]) >= SOUND:
        return ""
    least = ".".join(map(str, SOUND))
    return f"the compiler of torch {torch.__version__} may write past an array on a CPU; {least} is known to be right"


def name(compiled: bool, captured: bool) -> str:
    """The name of the rung that was in force."""
    return next(rung.name for rung in RUNGS.values()
                if (rung.compiled, rung.captured) == (compiled, captured))
