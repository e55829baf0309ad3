"""The training loop: one update rule (TensorFlow's RMSProp by default), checkpoints, resume.

All randomness comes from three generators (order, places, noise) whose states lie in the checkpoint
beside weights and slots, so a run that was stopped continues with the same bits as one that was
not. Nothing is read from the device inside a step (`port.training.step`); the means of all scalars are read
every `log_every` steps, and what is not finite is noticed there, before anything is saved.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from port.data import dataset as data
from port.data import standard_sets, validation
from port.data.streams import Examples
from port.families import family_of
from port.scae import pixel_likelihood
from port.training import compiling, diagnose, optimizers, precision, resume, rungs, schedule
from port.training.distributed import ALONE, World, check_divisible
from port.training.schedule import Settings
from port.training.step import Step

# What may change when a run continues: how long it is, how often it reports, and what only changes
# the order of rounding (see `port.training.resume`).
NOT_IDENTITY = ("steps", "log_every", "checkpoint_every", "checkpoint_seconds", "threads", "compile",
                "capture", "rung", "deterministic", "data_workers", "debug")
# Settings that came later, with the value that says what was done before: there they name no other run.
SINCE = {"validation_images": 0}


class Interrupted(Exception):
    """SIGTERM or SIGINT came; the state was saved. `signum` says which."""

    def __init__(self, signum: int, step: int | None = None):
        super().__init__(f"stopped by signal {signum}" + ("" if step is None else f" at step {step}"))
        self.signum, self.step = signum, step


@dataclass
class Trained:
    """What a run leaves in memory."""

    step: int
    resumed_at: int
    history: list[dict[str, float]]
    optimizer: torch.optim.Optimizer
    seconds: float
    notes: list[str] = field(default_factory=list)
    precision: dict = field(default_factory=dict)
    rung: str = "eager"


def train(model: torch.nn.Module, dataset: Examples, settings: Settings,
          folder: Path | None = None, on_step: Callable[[int], None] | None = None,
          on_row: Callable[[dict[str, float]], None] | None = None,
          world: World = ALONE) -> Trained:
    """Train a model in place, continuing from the newest checkpoint in `folder` if there is one.

    Args:
        model: an autoencoder or a classifier, on the device to train on.
        dataset: uint8 images, or constellations, on the same device.
        settings: how to train.
        folder: where checkpoints go; None writes none.
        on_step: called with the number of updates done, after each.
        on_row: called with each new row of the history.
        world: the ranks that train together.

    Returns:
        The history and the optimizer; the model holds the trained weights.

    Raises:
        resume.NonFiniteLoss: a scalar, gradient or weight is not finite.
        Interrupted: SIGTERM or SIGINT came, on any rank; the state is saved.
        rungs.RungFailed: the step cannot be made as the settings ask; the process must end.
        ValueError: the batch cannot be shared out equally, or there is nothing to capture on.
    """
    with precision.mode(settings, next(model.parameters()).device) as in_force, \
            precision.mixed(model, settings), caught_signals() as stop:
        run = Run(model, dataset, settings, folder, on_step, on_row, world)
        while not run.done:
            run.advance(stop)
        return run.finish(in_force)


class Run:
    """A model being trained, one step at a time; arguments as for `train`."""

    def __init__(self, model: torch.nn.Module, dataset: Examples, settings: Settings,
                 folder: Path | None = None, on_step: Callable[[int], None] | None = None,
                 on_row: Callable[[dict[str, float]], None] | None = None, world: World = ALONE):
        check_divisible(settings.batch_size, world.size)
        self.model, self.dataset, self.settings, self.world = model, dataset, settings, world
        self.folder = None if folder is None else Path(folder)
        self.on_step, self.on_row = on_step, on_row
        self.state = begin(model, dataset, settings, saved=folder is not None)
        self.notes: list[str] = []
        before = self._continue() if folder is not None else None
        if settings.compile == rungs.AUTO:
            self.step = compiling.make(self.state, settings, self.notes, world, (before or {}).get("compile"))
        else:
            self.step = Step(self.state, settings, self.notes, world)
        self.good = resume.Snapshot(self.state)
        self.resumed_at = self.state.step
        self.saved = time.perf_counter()
        self.started = self.saved - self.state.seconds
        model.train()

    @property
    def done(self) -> bool:
        return self.state.step >= self.settings.steps

    def advance(self, stop: list[int]) -> None:
        """One step and what is due after it; `stop` holds the signals that came."""
        state, settings = self.state, self.settings
        self.step(state.batches.next_index(), schedule.learning_rate(settings, state.step))
        state.step += 1
        if self.on_step:
            self.on_step(state.step)

        state.seconds = time.perf_counter() - self.started
        look = self.done or state.step % settings.log_every == 0
        signum = self._agreed(stop, look)
        save = self.folder is not None and (self.done or signum or self._checkpoint_due())
        if look or save:
            self._check()
        if look:
            row = state.read_means()
            if settings.held_out_every and (
                    self.done or state.step % settings.held_out_every == 0):
                row |= family_of(self.model.config).held_out(self.model, self.dataset, settings)
            if self.on_row:
                self.on_row(row)
        if look or save:
            self.good = resume.Snapshot(state)
        if save and self.world.main:
            state.save(self.folder, self._made_with())
            self.saved = time.perf_counter()
        if signum and not self.done:
            self.world.barrier()  # nobody leaves before the state is on the disk
            raise Interrupted(signum, state.step)

    def _checkpoint_due(self) -> bool:
        """Whether so many steps are done, and so much time has passed since the last checkpoint."""
        if self.state.step % self.settings.checkpoint_every:
            return False
        return (self.world.size > 1
                or time.perf_counter() - self.saved >= self.settings.checkpoint_seconds)

    def keep(self) -> None:
        """Save the state as it is between two steps, where the run saves any."""
        if self.folder is not None and self.world.main and self.state.step:
            self._check()
            self.state.save(self.folder, self._made_with())

    def finish(self, in_force: dict) -> Trained:
        """The result of a run that is done."""
        self.model.eval()
        return Trained(self.state.step, self.resumed_at, self.state.history, self.state.optimizer,
                       self.state.seconds, self.notes, in_force, self.step.in_force)

    def _agreed(self, stop: list[int], look: bool) -> int:
        """The signal to stop at, 0 for none; the same on every rank.

        Ranks on GPUs ask each other only where the host waits anyway.
        """
        if self.world.size == 1:
            return stop[0] if stop else 0
        if self.state.sums.is_cuda and not look:
            return 0
        return max(self.world.collect(stop[0] if stop else 0))

    def _check(self) -> None:
        """Notice what is not finite, say where it began, keep the last good state."""
        try:
            self.state.check_finite(self.world)
        except resume.NonFiniteLoss as error:
            cause = diagnose.first_cause(self.step, self.good, self.state.step)
            self.good.restore()
            bad = resume.non_finite(self.state.tensors())
            if self.folder is not None and self.world.main and self.state.step and not bad:
                self.state.save(self.folder, self._made_with())
            raise resume.NonFiniteLoss(f"{error}; {cause}") from None

    def _continue(self) -> dict | None:
        """Load the newest checkpoint; say what it was made with that is different now.

        Returns:
            What it was made with; None without one.
        """
        before = self.state.load(self.folder, self.settings.steps, self.world)
        for path, why in self.state.damaged.items():
            self.notes.append(f"{path.name} is damaged and was not used: {why}")
            if self.world.main:
                print(f"train: {path}: damaged, not used: {why}; going on from step "
                      f"{self.state.step} instead", flush=True)
        now = self._made_with()
        changed = [f"{name} {before[name]}, now {now[name]}" for name in now
                   if before and before.get(name, now[name]) != now[name]]
        if changed:
            self.notes.append(f"continued from step {self.state.step} with another "
                              f"{'; '.join(changed)}: the same run, not the same bits")
            if self.world.main:
                print(self.notes[-1], flush=True)
        return before

    def _made_with(self) -> dict:
        found = made_with(self.model, self.settings, self.world)
        return found | {"compile": self.step.rung.compiled} if hasattr(self, "step") else found


def begin(model: torch.nn.Module, dataset: Examples, settings: Settings, saved: bool = True) -> resume.State:
    """All that the first step of a run depends on.

    Args:
        model: with its initial weights.
        dataset: that it trains on.
        settings: of the run.
        saved: whether there will be checkpoints, which name the data.
    """
    order_seed, noise_seed = (int(s) for s in np.random.SeedSequence(settings.seed).generate_state(2))
    batches = validation.trained_on(dataset, settings).batches(model.config, settings, order_seed)
    optimizer = optimizers.make(model.named_parameters(), settings.optimizer, settings.batch_size,
                                settings.momentum, settings.weight_decay, settings.lr_factors)
    device = next(model.parameters()).device
    state = resume.State(model, optimizer, batches, torch.Generator(device).manual_seed(noise_seed))
    if saved and isinstance(dataset, data.Dataset):
        state.data = standard_sets.digest_of(dataset)
    return state


def made_with(model: torch.nn.Module, settings: Settings, world: World = ALONE) -> dict:
    """What decides the order of rounding but not what is computed.

    Without `compile` where that is yet to be decided; what a run then begins with is kept to.
    """
    found = {"ranks": world.size, "threads": torch.get_num_threads(),
             "kernel": pixel_likelihood.describe(model),
             "deterministic": settings.deterministic, "torch": torch.__version__}
    if settings.compile == rungs.AUTO:
        return found
    return found | {"compile": rungs.ladder(settings, next(model.parameters()).device.type)[0].compiled}


def identity(*parts: dict) -> str:
    """Short hash of everything that decides a run, to name its checkpoint folder.

    How long it runs, how often it reports and what only changes the order of rounding are left out,
    so that a stopped run can be given more steps or another number of processes. Device type, `amp`
    and `tf32` are in: generators of another device draw other numbers, and precision is part of what
    is computed, so a run with another of these is another run. A setting that a later version added is
    left out at the value that stands for what was done before, so that an older run keeps its name.
    """
    kept = [{k: v for k, v in part.items() if k not in NOT_IDENTITY and (k not in SINCE or v != SINCE[k])}
            for part in parts]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect the first SIGTERM or SIGINT in a list, so that the step under way can finish.

    A second Ctrl-C interrupts at once. Outside the main thread nothing is caught.
    """
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handler(number, frame):
        caught.append(number)
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in before:
        signal.signal(number, handler)
    try:
        yield caught
    finally:
        for number, old in before.items():
            signal.signal(number, old)
