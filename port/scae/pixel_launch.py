"""Launches of the template decoder's kernels for a GPU (`pixel_kernel_triton`), and what they cover.

Nothing is tuned at run time, nothing waits for the device and memory comes from PyTorch, so the launches
can stand in a CUDA graph once a first step has compiled them. Contraction into fused multiply-adds is off
(it would save 2 to 8 % of the instructions): coordinates round as `warp.affine_grid` rounds them, and the
interpreter (TRITON_INTERPRET=1), by which the kernels are checked on a CPU, rounds as the chip does but for
exp, log, division and the products on tensor cores.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from port.scae import pixel_kernel_triton as programs
from port.scae import pixel_likelihood
from port.scae.pixel_likelihood import Sizes

# Largest template side and number of channels: up to there the accumulators stay in registers.
LARGEST_SIDE, MOST_CHANNELS = 16, 3
# Pixels of a tile (rows, columns) and warps of a program. A warp of its own needs no barriers, and its 32
# pixels keep the products' operands in registers (docs/gpu.md has what the compiler makes of it).
TILE, WARPS = (4, 8), 1


def options(sizes: Sizes, backward: bool) -> dict[str, int | bool]:
    """Constants and launch options of a kernel."""
    height, width = sizes.template
    found = {"PER_EXAMPLE": int(sizes.per_example), "PARTS": sizes.parts, "CHANNELS": sizes.channels,
             "HEIGHT": height, "WIDTH": width, "ROWS": sizes.canvas[0], "COLUMNS": sizes.canvas[1],
             "TILE_Y": TILE[0], "TILE_X": TILE[1]}
    if backward:
        found |= {"TALL": max(16, _power_of_two(height)), "WIDE": max(16, _power_of_two(width))}
    return found | {"num_warps": WARPS, "enable_fp_fusion": False}


def _power_of_two(n: int) -> int:
    """The next one, or n itself."""
    return 1 << (n - 1).bit_length()


def _sizes(templates: Tensor, target: Tensor) -> Sizes:
    return pixel_likelihood.sizes_of(templates, tuple(target.shape[2:]), templates.shape[0] > 1)


def _on(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device, which may be another one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


def forward(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor, background: Tensor,
            background_logit: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixel log-likelihoods, in one launch; every array contiguous.

    Args:
        templates: `[B or 1, K, C, h, w]`, colours in [0, 1].
        alpha: `[K, h, w]` logits.
        inverse: `[B, K, 6]`, canvas to template.
        log_presence: `[B, K]`.
        background, background_logit: `[1]`.
        target: `[B, C, H, W]` in [0, 1].

    Returns:
        log_prob `[B, C, H, W]`; for the backward the largest logit `[B, H·W]` and the sums over the
        components of exp(logit - largest) without and with density, `[B, H·W]` and `[B, C, H·W]`.
    """
    outputs = pixel_likelihood.outputs_like(target)
    n_tiles = math.prod(-(-size // tile) for size, tile in zip(target.shape[2:], TILE, strict=True))
    with _on(target):
        programs.forward_kernel[(len(target) * n_tiles,)](
            templates, alpha, inverse, log_presence, background, background_logit, target, *outputs,
            **options(_sizes(templates, target), backward=False))
    return outputs


def backward(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor, background: Tensor,
             background_logit: Tensor, target: Tensor, shift: Tensor, mixing_sum: Tensor, joint_sum: Tensor,
             gradient: Tensor, d_templates: Tensor, d_alpha: Tensor, d_inverse: Tensor,
             d_log_presence: Tensor, d_background: Tensor, d_background_logit: Tensor) -> None:
    """Gradients of Σ gradient · log_prob, example by example, in one launch; every array contiguous.

    Args:
        templates, …, joint_sum: as for and from `forward`.
        gradient: `[B, C, H, W]`.
        d_templates: `[B, K, C, h, w]`, written; so are the others.
        d_alpha: `[B, K, h, w]`.
        d_inverse: `[B, K, 6]`.
        d_log_presence: `[B, K]`.
        d_background, d_background_logit: `[B]`.
    """
    with _on(target):
        programs.backward_kernel[(len(target) * (templates.shape[1] + 1),)](
            templates, alpha, inverse, log_presence, background, background_logit, target, shift,
            mixing_sum, joint_sum, gradient, d_templates, d_alpha, d_inverse, d_log_presence, d_background,
            d_background_logit, **options(_sizes(templates, target), backward=True))


tried: dict[tuple[Sizes, torch.device], str] = {}


def trial(sizes: Sizes, device: torch.device) -> str:
    """Why the kernels do not run at these sizes; empty where they do. Once they are compiled and launched.

    Args:
        sizes: what is to be compiled.
        device: a GPU, or the CPU with Triton's interpreter.

    Raises:
        OutOfMemoryError: torch's; the plain path would need more, and later there may be room.
    """
    key = (sizes, device)
    if key not in tried and device.type == "cuda" and torch.cuda.is_available() \
            and torch.cuda.is_current_stream_capturing():
        return "not compiled before the capture of a CUDA graph"
    if key not in tried:
        on_gpu = device.type == "cuda"
        tried[key] = _not_covered(sizes) or (_launch_failure(sizes, device) if on_gpu else "")
    return tried[key]


def _not_covered(sizes: Sizes) -> str:
    if max(sizes.template) > LARGEST_SIDE:
        return f"templates of more than {LARGEST_SIDE} pixels a side"
    if sizes.channels > MOST_CHANNELS:
        return f"more than {MOST_CHANNELS} channels"
    if sizes.dtype not in (torch.float32, torch.float64):
        return f"in {str(sizes.dtype).removeprefix('torch.')}"
    return ""


def _launch_failure(sizes: Sizes, device: torch.device) -> str:
    """Two black examples, there and back."""
    (height, width), channels, parts = sizes.template, sizes.channels, sizes.parts
    try:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=sizes.dtype, device=device)

        given = (zeros(2 if sizes.per_example else 1, parts, channels, height, width),
                 zeros(parts, height, width), zeros(2, parts, 6), zeros(2, parts), zeros(1), zeros(1),
                 zeros(2, channels, *sizes.canvas))
        log_prob, *sums = forward(*given)
        backward(*given, *sums, torch.ones_like(log_prob), zeros(2, parts, channels, height, width),
                 zeros(2, parts, height, width), zeros(2, parts, 6), zeros(2, parts), zeros(2), zeros(2))
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver raises; the plain path tells the rest
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"Triton fails: {lines[0][:200]}"
    return ""
