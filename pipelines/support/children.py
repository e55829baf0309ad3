"""Processes that end with the one that started them, however that one ends.

A process that is killed cannot stop its children. So each child holds the reading end of a pipe whose other
end only its parent has: when the parent is gone, the pipe ends, and the child sends itself SIGTERM. A
training run saves its state at that, as at any other SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

VARIABLE = "SCAE_PARENT_PIPE"
PATIENCE = 60.0  # seconds to save a state, then the child ends at once


def start(command: Sequence[str], **options: Any) -> subprocess.Popen:
    """`subprocess.Popen` of a command that calls `follow_parent`."""
    handed_on = options.pop("pass_fds", ())
    reading, writing = os.pipe()
    try:
        told = f"{reading}:{os.fstat(reading).st_ino}"
        environment = dict(options.pop("env", None) or os.environ) | {VARIABLE: told}
        process = subprocess.Popen(command, pass_fds=(reading, *handed_on), env=environment, **options)
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    weakref.finalize(process, os.close, writing)
    return process


def follow_parent() -> None:
    """End when the process that started this one with `start` has ended; without one nothing happens."""
    told = os.environ.pop(VARIABLE, None)
    if told is None:
        return
    with contextlib.suppress(OSError, ValueError):
        reading, inode = (int(number) for number in told.split(":"))
        # A process in between may have handed the variable on, and not the pipe.
        if os.fstat(reading).st_ino == inode:
            os.set_inheritable(reading, False)
            threading.Thread(target=_wait, args=(reading,), name="parent", daemon=True).start()


def _wait(reading: int) -> None:
    os.read(reading, 1)
    with open(os.devnull, "wb") as nowhere:  # nobody reads what this process says any more
        for descriptor in (1, 2):
            with contextlib.suppress(OSError):
                os.dup2(nowhere.fileno(), descriptor)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(128 + signal.SIGTERM)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Processes of one thread each, so many at a time; the others wait for one to end.

    Attributes:
        codes: exit code of each that ended, by name.
    """

    def __init__(self, most: int) -> None:
        self.most, self.codes = most, dict[str, int]()
        self.waiting: deque[tuple[str, Sequence[str]]] = deque()
        self.running: dict[str, subprocess.Popen] = {}

    def add(self, name: str, command: Sequence[str]) -> None:
        """Begin a command, arguments of this Python, as soon as there is room; it sees no GPU."""
        self.waiting.append((name, command))
        self.look()

    def look(self) -> None:
        """Note which have ended, and begin others."""
        for name, process in list(self.running.items()):
            if (code := process.poll()) is not None:
                self.codes[name] = code
                del self.running[name]
        while self.waiting and len(self.running) < self.most:
            name, command = self.waiting.popleft()
            self.running[name] = start([sys.executable, *command], env={
                **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

    def finish(self) -> None:
        """Wait until all have ended."""
        while self.waiting or self.running:
            self.look()
            time.sleep(0.1)

    def close(self) -> None:
        """End those that still run, and forget those that wait."""
        self.waiting.clear()
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()
