"""Many runs beside each other in one process: rows of an ablation, soaks.

On a GPU each run is captured and replayed on its own stream (`port.training.ensemble`); on a CPU they take turns. A
run that fails costs itself alone and is named at the end. A time limit, SIGTERM or Ctrl-C ends those under way with
their states saved, and the same command goes on from there. After a failed capture the process has to end: the one
that started it begins again without that run (`in_fresh_processes`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.support import boundary, console, descent
from pipelines.support.output import write_json
from pipelines.support.values import CheckFailed, load_params
from port.training import ensemble, precision, resume, rungs
from port.training import loop as train

CHECKPOINTS = 120.0  # seconds between two of a run: a signal and the end of the time save, too
MOST = 20       # beside each other unless told otherwise: by then the kernels of one fill the gaps of the others
SAY_EVERY = 30.0  # seconds between two lines of progress
TIME_OVER = int(signal.SIGALRM)  # stands among the signals for the end of the time


@dataclass(frozen=True)
class Work:
    """One of the runs.

    Attributes:
        name: for messages.
        settings: its own, before anything is built.
        alone: held while the run is under way, and until `ended` or `broken` is done.
        begin: makes it.
        ended: called with what it leaves.
        broken: called with the number that is not finite, where that is a result; None where it is a failure.
    """

    name: str
    settings: train.Settings
    alone: Callable[[], contextlib.AbstractContextManager]
    begin: Callable[[], ensemble.Start]
    ended: Callable[[train.Trained], object]
    broken: Callable[[resume.NonFiniteLoss], object] | None = None


@dataclass
class Outcome:
    """What became of the runs, by name.

    Attributes:
        done: those that ended.
        failed: why each of the others did not.
        saved: those that go on from where they are.
        stopped: the signal that ended them, 0 for none.
        spent: this process can make no more steps.
    """

    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    saved: list[str] = field(default_factory=list)
    stopped: int = 0
    spent: bool = False


@dataclass(frozen=True)
class Options:
    """How many runs train beside each other, and until when.

    Attributes:
        together: at a time; None leaves it open.
        seconds: after which those under way save their states; None is no limit.
        processes: that do the rest meanwhile; None leaves it open.
        runs: folder of the checkpoints; None is the usual one.
        failed: file of `in_fresh_processes`; None where this process was not begun by it.
        words: of the command itself, as `pipelines.soak --preset mnist_small`.
    """

    together: int | None = None
    seconds: float | None = None
    processes: int | None = None
    runs: Path | None = None
    failed: Path | None = None
    words: Sequence[str] = ()

    def most(self, runs: int, device: str) -> int:
        """At a time: as asked; else on a GPU `MOST`, shared out so that no last few stay, on a CPU one."""
        if self.together:
            return self.together
        return -(-runs // max(1, -(-runs // MOST))) if device == "cuda" else 1

    def has_to_follow(self, device: str) -> bool:
        """Whether the runs belong into a process of their own, which a failed capture may end."""
        return device == "cuda" and self.failed is None and bool(self.words)

    def in_fresh_processes(self, results: str | os.PathLike, params: str | os.PathLike, device: str) -> None:
        """The command in a process of its own; see the function of this name."""
        given = {"--results": results, "--params": params, "--device": device, "--together": self.together,
                 "--processes": self.processes, "--runs": self.runs}
        words = [sys.executable, "-m", *self.words, *(word for name, value in given.items() if value is not None
                                                      for word in (name, str(value)))]
        in_fresh_processes(lambda left: words if left is None else [*words, "--seconds", f"{left:.0f}"], self.seconds)


def settings_of(wanted: train.Settings, device: str) -> train.Settings:
    """A run's settings beside others: on a GPU captured and not compiled, which every configuration would be anew."""
    if device != "cuda":
        return wanted
    return replace(wanted, compile=False, checkpoint_seconds=max(wanted.checkpoint_seconds, CHECKPOINTS))


def run(works: Sequence[Work], most: int, seconds: float | None = None,
        watch: Callable[[], object] = lambda: None) -> Outcome:
    """Train all of them, those of one precision beside each other.

    Args:
        works: in the order in which they begin.
        most: at a time.
        seconds: after which those under way save their states.
        watch: called between steps.
    """
    end = None if seconds is None else time.monotonic() + seconds
    groups: dict[tuple, list[Work]] = {}
    for work in works:
        groups.setdefault(tuple(precision.of(work.settings).values()), []).append(work)
    outcome = Outcome()
    with train.caught_signals() as stop:
        for group in groups.values():
            if not stop and not outcome.spent:
                Beside(group, most, end, watch, outcome).run(stop)
        outcome.stopped = stop[0] if stop else 0
    return outcome


class Beside:
    """The runs of one precision, and what is said of them meanwhile."""

    def __init__(self, works: Sequence[Work], most: int, end: float | None, watch: Callable[[], object],
                 outcome: Outcome) -> None:
        self.works, self.most, self.end, self.outcome = {work.name: work for work in works}, most, end, outcome
        self.outer, self.held = watch, contextlib.ExitStack()
        self.alone: dict[str, contextlib.ExitStack] = {}
        self.steps, self.said, self.said_steps = 0, time.monotonic(), 0
        self.begun = 0

    def run(self, stop: list[int]) -> None:
        """All of them, until they are done or a signal or the end of the time comes."""
        waiting = [(name, lambda work=work: self.begin(work)) for name, work in self.works.items()]
        with self.held:
            try:
                for name, left in ensemble.in_turns(waiting, self.most, stop, lambda n: self.round(n, stop)):
                    with self.alone.pop(name, contextlib.ExitStack()):
                        self.take(self.works[name], left)
            except ensemble.Spent as spent:
                self.outcome.spent = True
                self.failed(str(spent.name), spent.__cause__)

    def begin(self, work: Work) -> ensemble.Start:
        """Make a run, alone in its folders from now on."""
        self.begun += 1
        self.alone[work.name] = self.held.enter_context(contextlib.ExitStack())
        self.alone[work.name].enter_context(work.alone())
        start = work.begin()
        told = start.more.get("on_step")

        def on_step(step: int) -> None:
            self.steps += 1
            if told:
                told(step)
        return start._replace(more=start.more | {"on_step": on_step})

    def take(self, work: Work, left: train.Trained | Exception) -> None:
        """Note what became of a run."""
        if isinstance(left, train.Interrupted):
            self.outcome.saved.append(work.name)
            return
        try:
            if isinstance(left, train.Trained):
                work.ended(left)
            elif isinstance(left, resume.NonFiniteLoss) and work.broken:
                work.broken(left)
            else:
                raise left
        except Exception as error:
            self.failed(work.name, error)
            return
        self.outcome.done.append(work.name)
        print(f"{work.name}: done" + (f", {left.step:,} steps in {console.clock(left.seconds)}"
                                      if isinstance(left, train.Trained) else ""), flush=True)

    def failed(self, name: str, error: Exception) -> None:
        """Say and keep why a run failed."""
        told = isinstance(error, resume.NonFiniteLoss | rungs.RungFailed)
        self.outcome.failed[name] = boundary.line_for(error) or (
            str(error) if told else f"{type(error).__name__}: {rungs.first_line(error)}")
        print(f"{name}: failed: {self.outcome.failed[name]}", flush=True)

    def round(self, under_way: int, stop: list[int]) -> None:
        """Between two rounds: the clock, a line now and then, and whoever else wants to look."""
        now = time.monotonic()
        if self.end is not None and now > self.end and not stop:
            stop.append(TIME_OVER)
        if now - self.said > SAY_EVERY:
            pace = (self.steps - self.said_steps) / (now - self.said)
            print(f"{under_way} under way, {len(self.outcome.done)} done, {len(self.works) - self.begun} wait; "
                  f"{pace:.0f} steps/s together", flush=True)
            self.said, self.said_steps = now, self.steps
        self.outer()


def conclude(outcome: Outcome, left: Sequence[str], file: Path | None = None) -> None:
    """Say what is left to do, and end as the runs did.

    Args:
        outcome: of `run`, with those added to `failed` that an earlier process named in `file`.
        left: names of all that are neither done nor failed.
        file: of `in_fresh_processes`; gets the names of those that failed.

    Raises:
        Ended: this process can make no more steps; a fresh one goes on.
        Interrupted: a signal came; the states are saved.
        CheckFailed: some failed.
    """
    if file is not None:
        write_json(file, outcome.failed)
    if outcome.spent and file is not None:
        raise console.Ended(console.RUNG_FAILED)
    if outcome.stopped not in (0, TIME_OVER):
        raise train.Interrupted(outcome.stopped)
    if left:
        print(f"{len(outcome.saved)} saved under way, {len(left) - len(outcome.saved)} not begun or not measured; the "
              "same command goes on", flush=True)
    if outcome.failed:
        raise CheckFailed("; ".join(f"{name}: {why}" for name, why in outcome.failed.items()))


def failed_before(file: Path | None) -> dict[str, str]:
    """Those that an earlier process of `in_fresh_processes` named, with the reason."""
    return load_params(file) if file is not None and file.is_file() else {}


def in_fresh_processes(command: Callable[[float | None], Sequence[str]], seconds: float | None) -> None:
    """Run a command that trains, and again without the run whose step failed, as long as there is one.

    Args:
        command: of the seconds that are left; gets `--failed FILE` too.
        seconds: of all of them together.

    Raises:
        Ended: the last one did not end with 0; it has said why.
    """
    began, known = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="beside-") as folder:
        file = Path(folder) / "failed.json"
        while True:
            left = None if seconds is None else max(1.0, seconds - (time.monotonic() - began))
            code = descent.followed([*command(left), "--failed", str(file)])
            found = failed_before(file)
            if code != console.RUNG_FAILED or found == known:
                break
            known = found
            print("beginning again in a fresh process, without what failed", flush=True)
    if code:
        raise console.Ended(code)
