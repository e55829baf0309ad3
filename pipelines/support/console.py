"""How stages and the command line talk: exit codes, one-line errors, progress.

Exit codes: 0 done, 1 a check failed or a number is not finite, 2 bad usage or bad input (one line on
stderr, no traceback; `pipelines.support.boundary` says what else becomes one), 3 a step cannot be made as
`train.rung` says (`port.training.rungs`), 130 interrupted (143 by SIGTERM). Of several ranks of torchrun
the first one says what all would say.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

from pipelines.support import boundary
from pipelines.support.values import BadInput, CheckFailed

BAD_INPUT, RUNG_FAILED = 2, 3
# Every exit code with what it means, for people who call the commands from scripts.
EXIT_CODES = {
    0: "done; where the command proves something, proven (or, with `--no-verify`, said to be unverified)",
    1: "a check failed, or training met a number that is not finite; the line names the first place",
    BAD_INPUT: "bad usage or bad input; one line says what, where and what to do, and nothing was half-written",
    RUNG_FAILED: "training cannot make its step in the way that `train.rung` asks for",
    128 + signal.SIGINT: "interrupted (Ctrl-C); a training run has saved its state",
    boundary.CLOSED_PIPE: "the reader of the output went away, as with `| head`",
    128 + signal.SIGTERM: "ended by SIGTERM; a training run has saved its state",
}
# Where there is no terminal: lines of progress, more only while a line would be this far off.
PLAIN_LINES = 6
PLAIN_SECONDS = 600.0


class Ended(Exception):
    """A process that did the work ended with another code than 0, and has said why."""

    def __init__(self, code: int) -> None:
        super().__init__(f"ended with code {code}")
        self.code = code


def exit_code(work: Callable[[], None]) -> int:
    """Run `work`; turn what it raises into a line on stderr and an exit code."""
    with boundary.streams(), boundary.terminable():
        try:
            return _code(work)
        except BrokenPipeError:
            boundary.close_output()
            return boundary.CLOSED_PIPE
        except boundary.Terminated:
            boundary.to_stderr("terminated")
            return 128 + signal.SIGTERM
        except KeyboardInterrupt:
            boundary.to_stderr("interrupted")
            return 128 + signal.SIGINT
        except Exception as error:
            line = boundary.line_for(error)
            if line is None:
                raise
            if isinstance(error, OSError) and error.filename is None:
                boundary.close_output()  # perhaps the output itself, which is tried once more at the end
            say(f"error: {line}")
            return BAD_INPUT


def _code(work: Callable[[], None]) -> int:
    try:
        work()
        boundary.flush()
        return 0
    except BadInput as error:
        say(f"error: {error}")
        return BAD_INPUT
    except CheckFailed as error:
        say(f"failed: {error}")
        return 1
    except Ended as error:
        return error.code
    except Exception as error:
        known = _of_the_port(error)
        if known is None:
            raise
        code, line = known
        say(line, every_rank=code == BAD_INPUT)  # of one machine among several, perhaps
        return code


def code_of(error: BaseException) -> int | None:
    """The exit code that an error ends with; None for a mistake of this program, which keeps its traceback."""
    if isinstance(error, Ended):
        return error.code
    if isinstance(error, CheckFailed):
        return 1
    if isinstance(error, BadInput):
        return BAD_INPUT
    if isinstance(error, BrokenPipeError):
        return boundary.CLOSED_PIPE
    known = _of_the_port(error)
    return known[0] if known else None if boundary.line_for(error) is None else BAD_INPUT


def _of_the_port(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line of one of the port's own errors; None for another error.

    They are looked up here, so that a command line that never gets as far as the port need not wait for it.
    """
    if "port" not in sys.modules:
        return None
    from port.data import dataset
    from port.training import loop, resume
    from port.training.rungs import RungFailed

    if isinstance(error, dataset.DataError):
        return BAD_INPUT, f"error: {error}"
    if isinstance(error, resume.NonFiniteLoss):
        return 1, f"failed: {error}; the last good state is kept; try a lower train.lr"
    if isinstance(error, RungFailed):
        return RUNG_FAILED, f"failed: {error}"
    if isinstance(error, loop.Interrupted):
        signum = error.signum if error.signum == signal.SIGTERM else signal.SIGINT
        return 128 + signum, f"{error}; state saved, the same command continues"
    return None


def say(line: str, every_rank: bool = False) -> None:
    """A line on stderr, from the first rank alone, after all that was printed before it: in a log the two
    streams are one. Names of files in it may hold line ends and escape codes, which are spelled out."""
    sys.stdout.flush()
    if every_rank or os.environ.get("RANK", "0") == "0":
        boundary.to_stderr(boundary.printable(line))


class Progress:
    """A bar with steps/s and time left on a terminal, elsewhere a few plain lines, one at least in ten
    minutes."""

    def __init__(self, total: int, what: str = "train"):
        self.total, self.what = total, what
        self.started, self.first, self.done = 0.0, None, 0
        self.every = max(1, total // PLAIN_LINES)
        self.printed, self.printed_at = 0, 0.0
        self.text = ""
        self.bar = None

    def _begin(self, done: int) -> None:
        """At the first step, which may have compiled: only what follows counts for the pace."""
        self.started, self.first, self.printed = time.perf_counter(), done, done
        self.printed_at = self.started
        if done > 1:
            print(f"{self.what}: continuing from step {done - 1}", flush=True)
        self.bar = self._rich_bar() if boundary.is_terminal(sys.stderr) else None

    def _rich_bar(self):
        try:
            from rich import progress
            from rich.console import Console
        except ImportError:
            return None
        bar = progress.Progress(
            progress.TextColumn("{task.description}"), progress.BarColumn(),
            progress.MofNCompleteColumn(), progress.TextColumn("{task.fields[rate]}"),
            progress.TimeRemainingColumn(), progress.TextColumn("{task.fields[text]}"),
            console=Console(stderr=True))
        self.task = bar.add_task(self.what, total=self.total, completed=self.done, rate="", text="")
        bar.start()
        return bar

    @property
    def rate(self) -> float:
        """Steps per second since the first step was done."""
        return (self.done - self.first) / max(time.perf_counter() - self.started, 1e-9)

    def step(self, done: int) -> None:
        """Called after each step; never waits for the device."""
        self.done = done
        if self.first is None:
            self._begin(done)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=f"{self.rate:.1f} steps/s",
                            text=self.text)

    def row(self, row: dict[str, float]) -> None:
        """Called with each new row of the history."""
        self.text = f"loss {row['loss']:.2f}"
        if "held_out_rec_ll" in row:
            self.text += f"  held-out rec_ll {row['held_out_rec_ll']:.2f}"
        if self.bar is not None:
            self.bar.update(self.task, text=self.text)
        elif (self.done - self.printed >= self.every or self.done == self.total
              or time.perf_counter() - self.printed_at >= PLAIN_SECONDS):
            self.printed, self.printed_at = self.done, time.perf_counter()
            pace = f"{self.rate:.1f} steps/s  {clock((self.total - self.done) / self.rate)} left  " \
                if self.rate else ""
            print(f"{self.what} {self.done}/{self.total}  {pace}{self.text}", flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


@contextlib.contextmanager
def progress(total: int, what: str = "train") -> Iterator[Progress]:
    """A `Progress` that is closed whatever happens."""
    bar = Progress(total, what)
    try:
        yield bar
    finally:
        bar.close()


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
