"""How a run computes: TF32, mixed precision, repeatable algorithms, and what its process does with freed memory.

Mixed precision (`amp`) has a narrow scope. The products of the layers (linear, convolution,
per-capsule) take their factors in bf16 or fp16 and hand their result on in float32. Everything else
stays float32: attention scores and softmaxes, layer norms, poses, the warp, presences, likelihoods,
losses, weights, gradients of the weights and the optimizer. Pixel coordinates and log-likelihoods need
more than the 8 bits of bf16, and the attention's mask of 1e32 (Q01) is infinite in fp16.

fp16 loses gradients below 6e-8, so the loss is multiplied by a fixed power of two, and the gradients
divided by it. A moving factor would be a state of its own and a decision in every step.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from port.core import allocator, layers
from port.training.schedule import Settings

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRODUCTS = (layers.Linear, layers.Conv2D, layers.BatchLinear)


@contextlib.contextmanager
def mode(settings: Settings, device: torch.device | str) -> Iterator[dict]:
    """Set TF32 and determinism, and on a CPU keep freed memory, for the length of a run; yields what is in force.

    With `deterministic`, operations that have no repeatable algorithm raise an error, and those that
    have both (the warp of the templates) take the repeatable one: they ask
    `torch.are_deterministic_algorithms_enabled()`.
    """
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32,
              torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = settings.tf32
    if settings.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first call
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True)
    try:
        with allocator.kept(device):
            yield {"tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32,
                            "convolution": torch.backends.cudnn.allow_tf32},
                   "amp": settings.amp,
                   "deterministic": torch.are_deterministic_algorithms_enabled()}
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.backends.cudnn.benchmark = before[2]
        if torch.are_deterministic_algorithms_enabled() != before[3]:  # torch's setter imports the compiler
            torch.use_deterministic_algorithms(before[3])


def of(settings: Settings) -> dict[str, bool]:
    """What of a run's settings `mode` sets for the whole process."""
    return {"tf32": settings.tf32, "deterministic": settings.deterministic}


@contextlib.contextmanager
def mixed(model: nn.Module, settings: Settings) -> Iterator[None]:
    """Let the products of the model's layers run in the settings' `amp` dtype."""
    if settings.amp == "none":
        yield
        return
    wrapped = [module for module in model.modules() if isinstance(module, PRODUCTS)]
    for module in wrapped:
        module.forward = _in_low_precision(module, DTYPES[settings.amp])
    try:
        yield
    finally:
        for module in wrapped:
            del module.forward  # the class's own is found again


def _in_low_precision(module: nn.Module, dtype: torch.dtype):
    forward = module.forward

    def product(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype):
            result = forward(x)
        return result.to(x.dtype)
    return product


def loss_scale(settings: Settings) -> float:
    """Factor on the loss before the backward pass; 1 except under fp16."""
    return settings.amp_loss_scale if settings.amp == "fp16" else 1.0
