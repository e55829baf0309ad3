"""Where a test run spends its time: processor and wall seconds by test file, printed at its end.

A test's processor seconds are those of the worker and of the processes that it started and waited for.
What is spent before the first test (both libraries, collecting) is a row of its own.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

START = "(start and collection)"
SHOWN = 14


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Timing:
    """A pytest plug-in; `groups` is file → [tests, processor seconds, wall seconds]."""

    def __init__(self, tier: str) -> None:
        self.tier = tier
        self.groups: dict[str, list[float]] = {}
        self.started = time.perf_counter()

    def add(self, group: str, tests: float, processor: float, wall: float) -> None:
        """Count something to a group."""
        entry = self.groups.setdefault(group, [0, 0.0, 0.0])
        for i, value in enumerate((tests, processor, wall)):
            entry[i] += value

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Time one test with its fixtures."""
        if not self.groups:
            self.add(START, 0, processor_seconds(), time.perf_counter() - self.started)
        processor, wall = processor_seconds(), time.perf_counter()
        try:
            return (yield)
        finally:
            self.add(item.path.name, 1, processor_seconds() - processor, time.perf_counter() - wall)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands its seconds over."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["timing"] = json.dumps(self.groups)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take in a worker's seconds."""
        for group, (tests, processor, wall) in json.loads(
                getattr(node, "workeroutput", {}).get("timing", "{}")).items():
            self.add(group, tests, processor, wall)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The files that took most processor time."""
        if sum(tests for tests, *_ in self.groups.values()) < 2:
            return
        terminalreporter.section("processor seconds by test file")
        for line in self.lines():
            terminalreporter.write_line(line)

    def lines(self) -> list[str]:
        """A row a file, dearest first; what is not shown is summed."""
        rows = sorted(self.groups.items(), key=lambda row: -row[1][1])
        rest = [0, 0.0, 0.0]
        for _, entry in rows[SHOWN:]:
            rest = [a + b for a, b in zip(rest, entry)]
        total = [sum(column) for column in zip(*self.groups.values())]
        left_out = [(f"({len(rows) - SHOWN} other files)", rest)] if len(rows) > SHOWN else []
        shown = [*rows[:SHOWN], *left_out, (f"all, tier {self.tier}", total)]
        return [f"{'file':34s} tests  processor  wall, all workers",
                *(f"{name:34s} {tests:5.0f} {processor:8.1f} s {wall:8.1f} s"
                  for name, (tests, processor, wall) in shown)]

    def write(self, path: Path) -> None:
        """The whole table as JSON."""
        path.write_text(json.dumps({"tier": self.tier, "files": {
            name: {"tests": int(tests), "processor_s": round(processor, 2), "wall_s": round(wall, 2)}
            for name, (tests, processor, wall) in sorted(self.groups.items())}}, indent=1) + "\n")
