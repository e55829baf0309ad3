"""Pieces of a step timed beside each other: the fastest of interleaved repeats, as lines and as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from pipelines.support.output import write_json

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(timed: dict[str, Callable[[], None]], repeats: int, clock: str) -> dict[str, float]:
    """Seconds of the fastest of some interleaved repeats, after one that does not count."""
    now, best = CLOCKS[clock], dict.fromkeys(timed, float("inf"))
    for call in timed.values():
        call()
    for _ in range(repeats):
        for name, call in timed.items():
            began = now()
            call()
            best[name] = min(best[name], now() - began)
    return best


def say(what: str, asked: Mapping[str, object], seconds: Mapping[str, float], found: Mapping[str, object],
        lines: Mapping[str, str], json_file: Path | None) -> None:
    """Print what was measured, and write it where a file is named.

    Args:
        what: was timed, as `CapsNet paper`.
        asked: the options: `batch`, `threads`, `clock` and what else there was.
        seconds: of each piece.
        found: further values for the file.
        lines: what is said of them, by what they are.
        json_file: gets all of it.
    """
    print(f"{what}, batch {asked['batch']}, {asked['threads']} threads, {asked['clock']} clock, "
          f"torch {torch.__version__}")
    width = max(map(len, (*seconds, *lines)))
    for name, value in seconds.items():
        print(f"  {name:{width}s} {value:8.4f} s")
    for name, text in lines.items():
        print(f"  {name:{width}s} {text:>8s}")
    if json_file:
        write_json(json_file, {**asked, "json": str(json_file), "torch": torch.__version__, "seconds": dict(seconds),
                               **found})
