"""Whether torch.compile pays for a run on a CPU: `train.compile: auto`.

Compiling costs a start-up and saves a little in every step, so it pays for long runs alone. Both are measured:
the eager step at the beginning of the run, start-up and compiled step by the first run that compiles, which
leaves them in the compiler's own cache, beside the kernels that the next run then loads. Every trial is taken
back, so the run begins with the state, and draws the numbers, that it would have had without.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from port.core import compiler_cache
from port.core.files import write_text
from port.training import rungs
from port.training.distributed import ALONE, World
from port.training.resume import Snapshot, State
from port.training.schedule import AUTO, Settings
from port.training.step import Step

TRIALS = 3  # updates; the fastest counts
FILE = "scae-compile-times.json"


class Times(NamedTuple):
    """Seconds of compiling until the first update is done, and the part of an eager step that is saved."""

    start_up: float
    saved: float


# Where nothing has been measured yet: presets digits and mnist_small on two busy cores, with an empty cache.
EXPECTED = Times(60.0, 0.1)


def make(state: State, settings: Settings, notes: list[str], world: World = ALONE, before: bool | None = None
         ) -> Step:
    """The step of a run whose settings leave compiling open; what was decided is printed and noted.

    Args:
        state: of the run, where it begins or goes on.
        settings: with `compile: auto`.
        notes: receives the decision.
        world: with several ranks nothing is compiled.
        before: how the checkpoint that the run goes on from was made, which is kept to; None without one.
    """
    eager = Step(state, replace(settings, compile=False), notes, world)
    if state.device.type != "cpu" or world.size > 1 or settings.rung != AUTO:
        return _decided(eager, notes, "no: it is measured on a CPU with one rank alone" if settings.rung == AUTO
                        else f"as rung {settings.rung} says")
    fault = rungs.compiler_fault(state.device.type)
    if fault:  # such a trial could end the process
        return _decided(eager, notes, f"no: {fault}")
    left = settings.steps - state.step
    if before is not None:
        step = Step(state, replace(settings, compile=before), notes, world)
        return _decided(step, notes, f"{'yes' if before else 'no'}, as the run began")
    _, seconds = timed(eager)
    known = remembered(state, settings)
    expected = known or EXPECTED
    gain = left * seconds * expected.saved
    said = (f"{left:,} steps of {seconds * 1e3:.1f} ms, of which it saves {expected.saved:.0%}, against "
            f"{expected.start_up:.0f} s of start-up ({'measured before' if known else 'expected'})")
    if gain <= expected.start_up:
        return _decided(eager, notes, f"no: {said}")
    compiled = Step(state, replace(settings, compile=True), notes, world)
    first, steady = timed(compiled)
    if compiled.in_force != "compiled":
        return _decided(eager, notes, "no: it does not work here")
    found = Times(max(first - steady, 0.0), 1.0 - steady / seconds)
    remember(state, settings, found)
    if found.saved <= 0.0:
        return _decided(eager, notes, f"no: a compiled step takes {steady * 1e3:.1f} ms, an eager one "
                        f"{seconds * 1e3:.1f} ms")
    return _decided(compiled, notes, f"yes: {said}; found {found.saved:.0%} and {found.start_up:.0f} s")


def _decided(step: Step, notes: list[str], why: str) -> Step:
    notes.append(f"torch.compile: {why}")
    print(f"train: compile: auto: {why}", flush=True)
    return step


def timed(step: Step) -> tuple[float, float]:
    """Seconds of the first update, and of the fastest of some more; nothing of them stays."""
    before, seconds = Snapshot(step.state), []
    step.lr.fill(0.0)
    step.at_step()
    for _ in range(1 + TRIALS):
        start = time.perf_counter()
        step.update()
        seconds.append(time.perf_counter() - start)
    before.restore()
    return seconds[0], min(seconds[1:])


def key(state: State, settings: Settings) -> str:
    """What start-up and gain depend on: the model, the batch, threads, precision, torch and this package."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    facts = [state.model.config.to_arguments(), settings.batch_size, torch.get_num_threads(), settings.amp,
             settings.noise, torch.__version__, code.hexdigest()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def remembered(state: State, settings: Settings) -> Times | None:
    """What the last run like this one measured; None without one."""
    try:
        found = json.loads((compiler_cache.folder() / FILE).read_text(encoding="utf-8"))[key(state, settings)]
        return Times(float(found["start_up"]), float(found["saved"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(state: State, settings: Settings, found: Times) -> None:
    """Keep what was measured for the next run; where that fails, the next one measures anew."""
    path = compiler_cache.folder() / FILE
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        write_text(path, json.dumps(known | {key(state, settings): found._asdict()}, indent=1))
