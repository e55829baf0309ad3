"""Which path computes the pixel likelihood, and the kernel of `decoder_kernel` as an operator.

One switch: the environment variable SCAE_KERNELS, `auto` by default (the kernel wherever it can run)
or `off` (plain PyTorch everywhere). `reason_against` holds every condition in one place.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from port import warp

Array = Float[Tensor, "..."]

SWITCH = "SCAE_KERNELS"
CHOICES = ("auto", "off")


INSTALLED = importlib.util.find_spec("numba") is not None


def reason_against(device: torch.device, alpha: bool, unit_scale: bool) -> str:
    """Why the kernel cannot compute a pixel likelihood; empty where it can.

    Args:
        device: where the tensors are.
        alpha: the templates have an alpha channel.
        unit_scale: the components' scale is 1 and not learned.

    Raises:
        ValueError: the switch has another value.
    """
    choice = os.environ.get(SWITCH, "auto")
    if choice not in CHOICES:
        raise ValueError(f"{SWITCH}={choice}: expected {' or '.join(CHOICES)}")
    reasons = ((choice == "off", f"{SWITCH}=off"), (device.type != "cpu", f"on {device.type}"),
               (not alpha, "templates without alpha"), (not unit_scale, "a learned scale"),
               (not INSTALLED, "Numba is not installed"))
    return next((reason for holds, reason in reasons if holds), "")


def describe(decoder: torch.nn.Module) -> str:
    """One line for a log: how a `part_decoder.PartDecoder` computes the pixel likelihood."""
    reason = reason_against(decoder.templates.device, decoder.templates_alpha is not None,
                            decoder.scale is None)
    return f"plain PyTorch ({reason})" if reason else "fused CPU kernel (Numba)"


def pixel_log_prob(target: Float[Tensor, "batch channels s1 s2"],
                   templates: Float[Tensor, "_ parts channels h w"],
                   alpha: Float[Tensor, "1 parts 1 h w"], pose: Float[Tensor, "batch parts 6"],
                   log_presence: Float[Tensor, "batch parts"], background: Float[Tensor, "1"],
                   background_logit: Float[Tensor, "1"]) -> Float[Tensor, "batch channels s1 s2"]:
    """log p of each pixel under the template mixture with unit scale: warp and mixture in one.

    Args:
        target: `[B, C, S, S]` in [0, 1]; a constant, no gradient reaches it.
        templates: `[B or 1, K, C, h, w]`, colours in [0, 1].
        alpha: `[1, K, 1, h, w]`, logits.
        pose: `[B, K, 6]`, template to canvas.
        log_presence: `[B, K]`.
        background: `[1]`, the background's value in [0, 1].
        background_logit: `[1]`.

    Returns:
        `[B, C, S, S]`, as `mixture.mixture_log_prob` of what `part_decoder.PartDecoder` draws.
    """
    inverse = warp.inverse_affine(pose)
    out, _, _ = torch.ops.scae.pixel_likelihood(
        templates.contiguous(), alpha[0, :, 0].contiguous(), inverse.contiguous(),
        log_presence.contiguous(), background, background_logit, target.detach().contiguous())
    return out


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def _share(n_examples: int, work: Callable[[int, int], None]) -> None:
    """Run `work(first, last)` over all examples on as many threads as torch uses.

    Python threads and not Numba's: the kernel holds no lock, `torch.set_num_threads` rules both,
    and no second OpenMP runtime comes into the process.
    """
    n_threads = min(torch.get_num_threads(), n_examples)
    if n_threads <= 1:
        return work(0, n_examples)
    key = os.getpid()  # threads do not survive a fork
    with _pools_lock:
        if key not in _pools:
            _pools.clear()
            _pools[key] = ThreadPoolExecutor(os.cpu_count(), "scae-kernel")
    # Two parts a thread, so that one that is held up by another process delays less.
    n_parts = min(2 * n_threads, n_examples)
    cuts = [i * n_examples // n_parts for i in range(n_parts + 1)]
    done = [_pools[key].submit(work, *cut) for cut in zip(cuts[1:-1], cuts[2:], strict=True)]
    work(cuts[0], cuts[1])
    for future in done:
        future.result()


def _arguments(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor,
               background: Tensor, background_logit: Tensor, target: Tensor) -> tuple:
    """Arrays and constants that forward and backward share, in the kernel's order."""
    dtype, shape = templates.dtype, target.shape
    axes = [torch.stack([warp.grid_axis(canvas, template).to(dtype) for template in
                         (templates.shape[4], templates.shape[3])]).numpy()
            for canvas in (shape[3], shape[2])]
    arrays = (tensor.detach().numpy() for tensor in (
        templates, alpha, inverse, log_presence, background, background_logit, target.flatten(2)))
    return (*arrays, *axes, torch.finfo(dtype).eps)


@torch.library.custom_op("scae::pixel_likelihood", mutates_args=(), device_types="cpu")
@no_type_check
def _pixel_likelihood(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor,
                      background: Tensor, background_logit: Tensor,
                      target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    from port import decoder_kernel

    batch, channels, height, width = target.shape
    arguments = _arguments(templates, alpha, inverse, log_presence, background, background_logit, target)
    outputs = (torch.empty_like(target), target.new_empty(batch, height * width),
               target.new_empty(batch, channels, height * width))
    arrays = outputs[0].flatten(2).numpy(), outputs[1].numpy(), outputs[2].numpy()
    _share(batch, lambda first, last: decoder_kernel.forward_examples(
        first, last, *arguments, *arrays))
    return outputs


@_pixel_likelihood.register_fake
@no_type_check
def _(templates, alpha, inverse, log_presence, background, background_logit, target):
    batch, channels, height, width = target.shape
    return (torch.empty_like(target), target.new_empty(batch, height * width),
            target.new_empty(batch, channels, height * width))


@torch.library.custom_op("scae::pixel_likelihood_backward", mutates_args=(), device_types="cpu")
@no_type_check
def _pixel_likelihood_backward(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor,
                               background: Tensor, background_logit: Tensor, target: Tensor,
                               mixing_sum: Tensor, joint_sum: Tensor, gradient: Tensor
                               ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from port import decoder_kernel

    batch, (n_parts, channels, height, width) = target.shape[0], templates.shape[1:]
    arguments = _arguments(templates, alpha, inverse, log_presence, background, background_logit, target)
    gradient = gradient.contiguous().flatten(2)
    grads = [target.new_empty(batch, *shape) for shape in (
        (n_parts, channels, height, width), (n_parts, height, width), (n_parts, 6), (n_parts,), (), ())]
    arrays = [t.detach().numpy() for t in (mixing_sum, joint_sum, gradient, *grads)]
    _share(batch, lambda first, last: decoder_kernel.backward_examples(
        first, last, *arguments, *arrays))
    # Sums over the examples: the weights serve the whole batch.
    if templates.shape[0] == 1:
        grads[0] = grads[0].sum(0, keepdim=True)
    return (grads[0], grads[1].sum(0), grads[2], grads[3], grads[4].sum().reshape(1),
            grads[5].sum().reshape(1))


@_pixel_likelihood_backward.register_fake
@no_type_check
def _(templates, alpha, inverse, log_presence, background, background_logit, target, mixing_sum,
      joint_sum, gradient):
    return tuple(torch.empty_like(t) for t in (templates, alpha, inverse, log_presence, background,
                                               background_logit))


@no_type_check
def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, output[1], output[2])
    ctx.set_materialize_grads(False)


@no_type_check
def _differentiate(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 7
    return *torch.ops.scae.pixel_likelihood_backward(*ctx.saved_tensors, gradient), None


_pixel_likelihood.register_autograd(_differentiate, setup_context=_keep)
