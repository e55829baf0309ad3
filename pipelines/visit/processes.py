"""Phases of a visit: processes of their own with a limit, and a summary that is whole after each.

A phase that fails, hangs or spoils its GPU context costs its own limit and nothing else. At the limit it
is sent SIGTERM, at which training saves its state, and killed when it is still there some seconds later.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from pipelines.support import children
from pipelines.support.output import write_json

GRACE = 25.0     # seconds from SIGTERM to SIGKILL: a step, and 42 MB to the disk
POLL = 0.2       # seconds
LOG_LIMIT = 8 * 2**20  # bytes of log.txt that are kept: its beginning and its end


class Visit:
    """What is known so far, and how long there is.

    Args:
        out: folder that is brought home.
        seconds: of the whole visit, from `began` on.
        began: reading of the monotonic clock.
    """

    def __init__(self, out: Path, seconds: float, began: float | None = None) -> None:
        self.out, self.seconds = out, seconds
        self.began = time.monotonic() if began is None else began
        self.stopped = 0  # the signal that came
        self.summary: dict[str, Any] = {"seconds": seconds, "phases": []}
        out.mkdir(parents=True, exist_ok=True)

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds to the end."""
        return self.seconds - self.spent

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT end the phase under way, and then the visit."""
        def stop(number: int, frame: FrameType | None) -> None:
            self.stopped = number
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    def write(self, **more: Any) -> None:
        """Add to the summary and write it."""
        self.summary |= more
        self.summary["spent"] = round(self.spent, 1)
        write_json(self.out / "summary.json", self.summary)

    def say(self, line: str) -> None:
        """A line for whoever watches, and for the log."""
        line = f"[{self.spent:5.0f} s] {line}"
        print(line, flush=True)
        with open(self.out / "log.txt", "a", encoding="utf-8") as log:
            print(line, file=log)

    def phase(self, name: str, command: Sequence[str], limit: float, least: float = 1.0,
              environment: Mapping[str, str] | None = None, watch: Callable[[], None] = lambda: None
              ) -> int | None:
        """Run a process to its end or its limit.

        Args:
            name: for the summary.
            command: arguments of this Python.
            limit: seconds until SIGTERM.
            least: seconds below which it is not begun.
            environment: beside that of this process.
            watch: called again and again meanwhile; what it raises is said and costs nothing.

        Returns:
            The exit code, negative for a signal; None when there was no time for it.
        """
        if self.stopped or limit < least:
            why = "stopped" if self.stopped else f"{max(limit, 0.0):.0f} s are too few"
            self.say(f"{name}: not begun, {why}")
            self.summary["phases"].append({"name": name, "ended": f"not begun: {why}"})
            self.write()
            return None
        self.say(f"{name}: at most {limit:.0f} s")
        began, asked, ended = time.monotonic(), None, "done"
        with open(self.out / "log.txt", "a", encoding="utf-8") as log:
            process = children.start(
                [sys.executable, *command], stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})})
            while (code := process.poll()) is None:
                now = time.monotonic()
                if asked is None and (self.stopped or now - began > limit):
                    ended, asked = "stopped" if self.stopped else "limit", now
                    send(process, signal.SIGTERM)
                elif asked is not None and now - asked > GRACE:
                    ended = "killed"
                    send(process, signal.SIGKILL)
                    code = process.wait()
                    break
                if asked is None:
                    self.guarded(watch)
                time.sleep(POLL)
        send(process, signal.SIGKILL)  # what it may have left running in its group
        seconds = round(time.monotonic() - began, 1)
        self.summary["phases"].append({"name": name, "code": code, "seconds": seconds, "ended": ended})
        self.say(f"{name}: {ended} after {seconds:.0f} s with code {code}")
        self.trim_log()
        self.write()
        return code

    def guarded(self, work: Callable[[], Any]) -> Any:
        """What `work` gives; None, and a line, when it raises: nothing may end a visit before its time."""
        try:
            return work()
        except Exception as error:
            self.say(f"{getattr(work, '__name__', 'work')}: {type(error).__name__}: "
                     f"{' '.join(str(error).split())[:300]}")
            return None

    def trim_log(self) -> None:
        """Keep the log small enough to come home."""
        path = self.out / "log.txt"
        if path.stat().st_size > LOG_LIMIT:
            text = path.read_bytes()
            path.write_bytes(text[:LOG_LIMIT // 4] + b"\n[...]\n" + text[-LOG_LIMIT // 2:])


def send(process: subprocess.Popen, number: signal.Signals) -> None:
    """A signal to a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):  # ended meanwhile
        os.killpg(process.pid, number)
