"""How to train: the settings of a run, and the learning rate of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from port.configuration import limits
from port.configuration.limits import limited
from port.data import dataset
from port.training import optimizers, rungs

AUTO = rungs.AUTO
CHOICES = {"lr_schedule": ("constant", "exponential", "cosine_restarts"), "shift": dataset.SHIFTS,
           "amp": ("none", "bf16", "fp16"), "compile": (False, True, rungs.AUTO),
           "optimizer": tuple(optimizers.RULES), "capture": ("auto", "always", "never"),
           "rung": (rungs.AUTO, *rungs.RUNGS)}


@dataclass(frozen=True)
class Settings:
    """How to train; what the model is stands in its own configuration.

    Attributes:
        batch_size: images per step, of all ranks together; also sets epsilon = 1e-2 / batch_size².
        lr: learning rate.
        steps: number of updates.
        seed: of weights, order, places and noise.
        optimizer: the update rule (`port.training.optimizers`); `tf-rmsprop` is the original's, those without
            `tf-` are PyTorch's.
        momentum: of the rules that have one.
        weight_decay: of PyTorch's rules; the original's stands in its loss.
        lr_schedule: `constant` is the original, whose decay never takes effect (Q07);
            `exponential` really applies it, with the original's numbers by default;
            `cosine_restarts` goes from lr to 0 along half a cosine, again and again.
        lr_decay: factor per `lr_decay_steps`.
        lr_decay_steps: steps per factor.
        lr_floor: smallest rate of `exponential`.
        lr_restart_interval: steps of each half cosine.
        lr_factors: beginning of a parameter's name to factor on its rate, as `part_decoder.`; the
            longest that fits counts.
        lr_staircase: apply the factor at once every `lr_decay_steps`, not a little each step.
        noise: draw the noise on the presence logits.
        shuffle: a new order each epoch; the original never shuffles (Q28).
        shift: where images lie on the canvas: `original` (Q08), `uniform` offsets, or `centred`; images
            of the canvas's size `translate` by up to `max_shift` pixels, and of larger ones `crop` takes
            a part.
        max_shift: pixels that `translate` moves an image at most, in each direction.
        jitter: change brightness and contrast at random (`port.data.augment`).
        grad_value_clip: largest absolute gradient; 0 is none.
        grad_norm_clip: largest norm, times the root of the number of weights; 0 is none.
        log_every: steps between two reads of the scalars.
        held_out_every: steps between two looks at images that are not trained on; 0 is never.
        validation_images: how many training images are taken out for these looks (`port.data.validation`); with 0 the
            run trains on all, as the original does, and looks at the first test images.
        held_out_images: how many test images are looked at, where there are no validation images.
        checkpoint_every: steps between two checkpoints.
        checkpoint_seconds: least time between two of them, so that a fast run does not spend its time on
            its disk; 0 is none. Not looked at with several ranks, which would not agree on it.
        compile: use torch.compile; falls back to eager where it cannot work. `auto` does on a CPU where the
            run is long enough for it (`port.training.compiling`), and not on a GPU.
        capture: replay the step as a CUDA graph: `auto` on a GPU where it works, `always` or an
            error, `never`.
        rung: `auto` is the fastest way to make a step that `compile` and `capture` leave and that works;
            `compiled_captured`, `captured`, `compiled` or `eager` is that one or an error.
        threads: of the CPU; 0 leaves torch's choice.
        tf32: allow TF32 on a GPU.
        amp: `bf16` or `fp16` for the products of the layers (see `port.training.precision`).
        amp_loss_scale: factor on the loss under fp16, so that small gradients are not lost; a power
            of two, taken out of the gradients again.
        data_workers: threads that cut batches out of the data on a CPU; 0 does it in the step. The same
            images either way.
        debug: let autograd look for what is not finite and name the operation (slow).
        deterministic: only algorithms that give the same bits each time.
    """

    batch_size: int = limited(128, at_least=1, at_most=10**6)
    lr: float = limited(3e-5, above=0)
    steps: int = limited(300_000, at_least=1, at_most=limits.STEPS)
    seed: int = limits.seed()
    optimizer: str = "tf-rmsprop"
    momentum: float = limited(0.9, at_least=0, below=1)
    weight_decay: float = limited(0.0, at_least=0)
    lr_schedule: str = "constant"
    lr_decay: float = limited(0.96, above=0)
    lr_decay_steps: int = limited(10_000, at_least=1, at_most=limits.STEPS)
    lr_floor: float = limited(0.0, at_least=0)
    lr_restart_interval: int = limited(4000, at_least=1, at_most=limits.STEPS)
    lr_factors: dict | None = None
    lr_staircase: bool = False
    noise: bool = True
    shuffle: bool = True
    shift: str = "original"
    max_shift: int = limited(2, at_least=0)
    jitter: bool = False
    grad_value_clip: float = limited(0.0, at_least=0)
    grad_norm_clip: float = limited(0.0, at_least=0)
    log_every: int = limited(100, at_least=1)
    held_out_every: int = limited(0, at_least=0)
    validation_images: int = limited(0, at_least=0)
    held_out_images: int = limited(1024, at_least=1)
    checkpoint_every: int = limited(1000, at_least=1)
    checkpoint_seconds: float = limited(0.0, at_least=0)
    compile: bool | str = False
    capture: str = "auto"
    rung: str = rungs.AUTO
    threads: int = limited(0, at_least=0, at_most=limits.THREADS)
    tf32: bool = False
    amp: str = "none"
    amp_loss_scale: float = limited(1024.0, above=0)
    data_workers: int = limited(0, at_least=0, at_most=256)
    debug: bool = False
    deterministic: bool = False

    def __post_init__(self):
        limits.check(self)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, not "
                                 f"{getattr(self, name)!r}")
        if self.weight_decay and not optimizers.RULES[self.optimizer].decays:
            raise ValueError(f"weight_decay does not go with optimizer {self.optimizer}; 0 switches it off")
        for prefix, factor in (self.lr_factors or {}).items():
            number = isinstance(factor, int | float) and not isinstance(factor, bool)
            if not (number and 0 <= factor < math.inf):
                raise ValueError(f"lr_factors: {prefix} needs a factor of 0 or more, not {factor!r}")
        if math.frexp(self.amp_loss_scale)[0] != 0.5:
            raise ValueError(f"amp_loss_scale must be a power of two, not {self.amp_loss_scale}")


def learning_rate(settings: Settings, step: int) -> float:
    """Rate of the update after `step` updates: lr, max(lr · lr_decay^(step / lr_decay_steps), lr_floor), or cosines.

    Args:
        settings: `lr_staircase` takes the whole part of the exponent.
        step: updates done before, 0 for the first; TensorFlow's global step.

    Returns:
        The learning rate.

    Source: original `configs/model_config.py`: `tf.train.exponential_decay(lr, 1e4, .96)` with
    staircase off, built and then dropped (Q07).
    """
    if settings.lr_schedule == "constant":
        return settings.lr
    if settings.lr_schedule == "cosine_restarts":
        part = step % settings.lr_restart_interval / settings.lr_restart_interval
        return settings.lr * (1.0 + math.cos(math.pi * part)) / 2.0
    exponent = step / settings.lr_decay_steps
    if settings.lr_staircase:
        exponent = math.floor(exponent)
    return max(settings.lr * settings.lr_decay ** exponent, settings.lr_floor)
