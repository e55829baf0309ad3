"""The training loop: one RMSProp with TensorFlow's semantics, checkpoints, resume.

All randomness comes from three generators (order, places, noise) whose states lie in the checkpoint
beside weights and slots, so a run that was stopped continues with the same bits as one that was
not. Nothing is read from the device inside a step; the means of all scalars are read every
`log_every` steps, and a non-finite loss is noticed there, before anything is saved.
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
from torch import Tensor

import port
from port import data, evaluate, optim, resume

NOT_IDENTITY = ("steps", "log_every", "checkpoint_every", "threads", "compile")


class Interrupted(Exception):
    """SIGTERM or SIGINT came; the state was saved. `signum` says which."""

    def __init__(self, signum: int, step: int):
        super().__init__(f"stopped by signal {signum} at step {step}")
        self.signum, self.step = signum, step


@dataclass(frozen=True)
class Settings:
    """How to train; what the model is stands in its own configuration.

    Attributes:
        batch_size: images per step; also sets epsilon = 1e-2 / batch_size².
        lr: learning rate.
        steps: number of updates.
        seed: of weights, order, places and noise.
        lr_decay: factor per `lr_decay_steps`, applied continuously; 1 is the original, whose
            schedule never takes effect (Q07).
        lr_decay_steps: steps per factor.
        noise: draw the noise on the presence logits.
        shuffle: a new order each epoch; the original never shuffles (Q28).
        shift: where images lie on the canvas: `original` (Q08), `uniform` offsets, or `centred`.
        grad_value_clip: largest absolute gradient; 0 is none.
        grad_norm_clip: largest norm, times the root of the number of variables; 0 is none.
        log_every: steps between two reads of the scalars.
        held_out_every: steps between two looks at the test split; 0 is never.
        held_out_images: how many of its images are looked at.
        checkpoint_every: steps between two checkpoints.
        compile: use torch.compile; falls back to eager where it cannot work.
        threads: of the CPU; 0 leaves torch's choice.
        tf32: allow TF32 on a GPU.
    """

    batch_size: int = 128
    lr: float = 3e-5
    steps: int = 300_000
    seed: int = 0
    lr_decay: float = 1.0
    lr_decay_steps: int = 10_000
    noise: bool = True
    shuffle: bool = True
    shift: str = "original"
    grad_value_clip: float = 0.0
    grad_norm_clip: float = 0.0
    log_every: int = 100
    held_out_every: int = 0
    held_out_images: int = 1024
    checkpoint_every: int = 1000
    compile: bool = False
    threads: int = 0
    tf32: bool = False

    def __post_init__(self):
        for name in ("batch_size", "steps", "log_every", "checkpoint_every", "lr_decay_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.shift not in data.SHIFTS:
            raise ValueError(f"no shift {self.shift!r}; there are {', '.join(data.SHIFTS)}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")


@dataclass
class Trained:
    """What a run leaves in memory."""

    step: int
    resumed_at: int
    history: list[dict[str, float]]
    optimizer: optim.RMSProp
    seconds: float
    notes: list[str] = field(default_factory=list)


def train(model: torch.nn.Module, dataset: data.Dataset, settings: Settings,
          folder: Path | None = None, on_step: Callable[[int], None] | None = None,
          on_row: Callable[[dict[str, float]], None] | None = None) -> Trained:
    """Train a model in place, continuing from the newest checkpoint in `folder` if there is one.

    Args:
        model: an image autoencoder, on the device to train on.
        dataset: uint8 images, on the same device.
        settings: how to train.
        folder: where checkpoints go; None writes none.
        on_step: called with the number of updates done, after each.
        on_row: called with each new row of the history.

    Returns:
        The history and the optimizer; the model holds the trained weights.

    Raises:
        resume.NonFiniteLoss: a scalar is not finite.
        Interrupted: SIGTERM or SIGINT came; the state is saved.
    """
    device = next(model.parameters()).device
    order_seed, noise_seed = (int(s) for s in np.random.SeedSequence(settings.seed)
                              .generate_state(2))
    batches = data.Batches(dataset.train, settings.batch_size, model.config.canvas, order_seed,
                           settings.shuffle, settings.shift)
    noise_generator = torch.Generator(device).manual_seed(noise_seed)
    optimizer = optim.RMSProp(model.named_parameters(), lr=settings.lr,
                              epsilon=optim.rmsprop_epsilon(settings.batch_size))
    state = resume.State(model, optimizer, batches, noise_generator)
    if folder is not None:
        state.load(Path(folder), settings.steps)
    run = Trained(state.step, state.step, state.history, optimizer, state.seconds)
    forward = Forward(model, settings.compile, run.notes)
    model.train()
    started = time.perf_counter() - state.seconds

    with _catch_signals() as stop:
        while state.step < settings.steps:
            image, label = next(batches)
            noise = port.Noise.draw(noise_generator, model.config, len(image), device) \
                if settings.noise else None
            loss, scalars = forward(image, label, noise)
            optimizer.zero_grad()
            loss.backward()
            _clip(model, settings)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * settings.lr_decay ** (
                    state.step / settings.lr_decay_steps)
            optimizer.step()
            state.add(loss, scalars)
            state.step += 1

            if on_step:
                on_step(state.step)
            last = state.step == settings.steps
            state.seconds = time.perf_counter() - started
            if last or state.step % settings.log_every == 0:
                row = state.read_means()
                if settings.held_out_every and (
                        last or state.step % settings.held_out_every == 0):
                    row |= held_out(model, dataset.test, settings)
                if on_row:
                    on_row(row)
            if folder is not None and (
                    last or stop or state.step % settings.checkpoint_every == 0):
                state.check_finite()
                state.save(Path(folder))
            if stop and not last:
                raise Interrupted(stop[0], state.step)
    run.step, run.seconds = state.step, state.seconds
    model.eval()
    return run


def held_out(model: torch.nn.Module, test: data.Split, settings: Settings) -> dict[str, float]:
    """Reconstruction likelihood and probe accuracy on images that are not trained on, no noise."""
    n = settings.held_out_images
    part = data.Split(test.images[:n], test.labels[:n])
    model.eval()
    seen = evaluate.collect(model, part, model.config.canvas, settings.batch_size, seed=0,
                            noise=False, shift=settings.shift != "centred")
    model.train()
    row = {"held_out_rec_ll": seen.rec_ll, "held_out_log_prob": seen.log_prob}
    for name in ("posterior", "prior"):
        correct = getattr(seen, f"{name}_correct")
        if correct is not None:
            row[f"held_out_{name}_probe"] = float(correct.mean())
    return row


class Forward:
    """Loss and scalars of a batch, compiled if asked for and possible."""

    def __init__(self, model: torch.nn.Module, compiled: bool, notes: list[str]):
        self.model, self.notes = model, notes
        self.compiled = torch.compile(self.eager) if compiled else None
        self.worked = False

    def eager(self, image: Tensor, label: Tensor, noise) -> tuple[Tensor, dict[str, Tensor]]:
        result = self.model(image, label, noise)
        return result.loss, result.scalars

    def __call__(self, image: Tensor, label: Tensor, noise) -> tuple[Tensor, dict[str, Tensor]]:
        if self.compiled is not None:
            try:
                result = self.compiled(image, label, noise)
                self.worked = True
                return result
            except Exception as error:  # whatever a missing compiler raises; eager tells the rest
                if self.worked:
                    raise
                self.compiled = None
                reason = str(error).strip().splitlines()[0][:200]
                self.notes.append(f"torch.compile does not work here ({reason}); training eagerly")
                print(self.notes[-1], flush=True)
        return self.eager(image, label, noise)


def identity(*parts: dict) -> str:
    """Short hash of everything that decides a run, to name its checkpoint folder.

    How long it runs and how often it reports are left out, so that a stopped run can be given more
    steps.
    """
    kept = [{k: v for k, v in part.items() if k not in NOT_IDENTITY} for part in parts]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def _clip(model: torch.nn.Module, settings: Settings) -> None:
    """Clip the gradients in place, if asked for."""
    if not (settings.grad_value_clip or settings.grad_norm_clip):
        return
    with_gradient = [p for p in model.parameters() if p.grad is not None]
    clipped = optim.clip_gradients([p.grad for p in with_gradient], settings.grad_value_clip,
                                   settings.grad_norm_clip)
    for parameter, gradient in zip(with_gradient, clipped):
        parameter.grad = gradient


@contextlib.contextmanager
def _catch_signals() -> Iterator[list[int]]:
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
