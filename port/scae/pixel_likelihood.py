"""The pixel likelihood of the template decoder as one operator, and which path computes it.

On a CPU the kernels are `pixel_forward` and `pixel_backward` (Numba), on a GPU `pixel_kernel_triton`; with
TRITON_INTERPRET=1, Triton's own variable, the latter runs on a CPU too, by Triton's interpreter, for checking it.
`reason_against` holds every condition in one place; `port.core.backends` has the switch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from port.core import backends, operators, warp
from port.core.backends import share


class Sizes(NamedTuple):
    """What a kernel for a GPU is compiled for: counts, pixels (rows, columns), element type."""

    parts: int
    channels: int
    template: tuple[int, int]
    canvas: tuple[int, int]
    per_example: bool | torch.SymBool
    dtype: torch.dtype


def reason_against(device: torch.device, alpha: bool, unit_scale: bool, sizes: Sizes | None = None,
                   inverted: bool = True, components: bool = False, target_gradient: bool = False) -> str:
    """Why no kernel can compute a pixel likelihood; empty where one can.

    Args:
        device: where the tensors are.
        alpha: the templates have an alpha channel.
        unit_scale: the components' scale is 1 and not learned.
        sizes: of the likelihood, for which a GPU's kernel is then compiled and tried once; None leaves that
            out.
        inverted: poses are from template to canvas, and their inverse is sampled.
        components: the loss needs the components themselves, as for a mean picture.
        target_gradient: a gradient is to reach the target.

    Raises:
        ValueError: the switch has another value.
    """
    gpu = backends.by_triton(device)
    reasons = ((backends.choice() == "off", f"{backends.SWITCH}=off"),
               (backends.exporting(), "a graph for other programs"),
               (device.type not in ("cpu", "cuda"), f"on {device.type}"),
               (not alpha, "templates without alpha"), (not unit_scale, "a learned scale"),
               (not inverted, "poses from canvas to template"), (components, "the loss needs the mean picture"),
               (target_gradient, "a target with a gradient"),
               (gpu and not backends.TRITON_INSTALLED, "Triton is not installed"),
               (not gpu and sizes is not None and sizes.dtype not in backends.DTYPES, f"in {sizes and sizes.dtype}"),
               (not gpu and not backends.INSTALLED, "Numba is not installed"))
    reason = next((reason for holds, reason in reasons if holds), "")
    return reason if reason or not gpu or sizes is None else _not_on_gpu(device, *sizes)


@no_type_check
def _not_on_gpu(device, *sizes) -> str:
    """`pixel_launch.trial`, which torch.compile runs while it traces; it takes no named tuples there."""
    from port.scae import pixel_launch

    return pixel_launch.trial(Sizes(*sizes), device)


# All that torch.compiler.assume_constant_result does, which would import the compiler and with it Triton:
# that does not share a process with TensorFlow.
_not_on_gpu._dynamo_marked_constant = True


def sizes_of(templates: Tensor, canvas: tuple[int, int], per_example: bool | torch.SymBool) -> Sizes:
    """Of `templates` `[_, K, C, h, w]` on a canvas (rows, columns), in the templates' dtype."""
    _, parts, channels, height, width = templates.shape
    return Sizes(parts, channels, (height, width), tuple(canvas), per_example, templates.dtype)


def needs_components(config: Any) -> bool:
    """Whether the loss of a model needs the mixture's components, which no kernel makes."""
    return config.autoencoder.mse_weight > 0


def describe(model: torch.nn.Module) -> str:
    """One line for a log: how a model computes the pixel likelihood in training; `none` where it has none.

    Raises:
        ValueError: the switch SCAE_KERNELS has another value than those there are.
    """
    decoder = getattr(model, "part_decoder", None)
    if decoder is None:
        return "none"
    device = decoder.templates.device
    reason = reason_against(device, decoder.templates_alpha is not None, decoder.scale is None,
                            sizes_of(decoder.templates, decoder.canvas, decoder.mlp is not None),
                            decoder.settings.inverse_space_transform, needs_components(model.config))
    if reason:
        return f"plain PyTorch ({reason})"
    if backends.by_triton(device):
        return "fused GPU kernel (Triton)" + ("" if device.type == "cuda" else ", by its interpreter")
    return "fused CPU kernel (Numba)"


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
    out = torch.ops.scae.pixel_likelihood(
        templates.contiguous(), alpha[0, :, 0].contiguous(), inverse.contiguous(),
        log_presence.contiguous(), background, background_logit, target.detach().contiguous())[0]
    return out


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


@operators.operator("scae::pixel_likelihood", ("cpu", "cuda"))
@no_type_check
def _pixel_likelihood(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor,
                      background: Tensor, background_logit: Tensor, target: Tensor
                      ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log_prob `[B, C, H, W]`; for the backward, at each pixel: what the logits were reduced by `[B, H·W]`,
    Σ exp(logit - that) `[B, H·W]`, and the same times the densities `[B, C, H·W]`."""
    given = (templates, alpha, inverse, log_presence, background, background_logit, target)
    if backends.by_triton(target.device):
        from port.scae import pixel_launch
        return pixel_launch.forward(*given)
    from port.scae import pixel_forward
    outputs = outputs_like(target)
    arguments = _arguments(*given)
    arrays = outputs[0].flatten(2).numpy(), *(output.numpy() for output in outputs[1:])
    share(len(target), lambda first, last: pixel_forward.forward_examples(
        first, last, *arguments, *arrays))
    return outputs


@no_type_check
def outputs_like(target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory for what `scae::pixel_likelihood` returns."""
    batch, channels, height, width = target.shape
    return (torch.empty_like(target), target.new_empty(batch, height * width),
            target.new_empty(batch, height * width), target.new_empty(batch, channels, height * width))


@_pixel_likelihood.register_fake
@no_type_check
def _(templates, alpha, inverse, log_presence, background, background_logit, target):
    return outputs_like(target)


@operators.operator("scae::pixel_likelihood_backward", ("cpu", "cuda"))
@no_type_check
def _pixel_likelihood_backward(templates: Tensor, alpha: Tensor, inverse: Tensor, log_presence: Tensor,
                               background: Tensor, background_logit: Tensor, target: Tensor,
                               shift: Tensor, mixing_sum: Tensor, joint_sum: Tensor, gradient: Tensor
                               ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, (n_parts, channels, height, width) = target.shape[0], templates.shape[1:]
    given = (templates, alpha, inverse, log_presence, background, background_logit, target)
    gradient = gradient.contiguous()
    grads = [target.new_empty(batch, *shape) for shape in (
        (n_parts, channels, height, width), (n_parts, height, width), (n_parts, 6), (n_parts,), (), ())]
    if backends.by_triton(target.device):
        from port.scae import pixel_launch
        pixel_launch.backward(*given, shift, mixing_sum, joint_sum, gradient, *grads)
    else:
        from port.scae import pixel_backward
        arguments = _arguments(*given)
        arrays = [t.detach().numpy() for t in (shift, mixing_sum, joint_sum, gradient.flatten(2), *grads)]
        share(batch, lambda first, last: pixel_backward.backward_examples(
            first, last, *arguments, *arrays))
    # Sums over the examples: the weights serve the whole batch.
    if templates.shape[0] == 1:
        grads[0] = grads[0].sum(0, keepdim=True)
    return (grads[0], grads[1].sum(0), grads[2], grads[3], grads[4].sum().reshape(1),
            grads[5].sum().reshape(1))


@_pixel_likelihood_backward.register_fake
@no_type_check
def _(templates, alpha, inverse, log_presence, background, background_logit, target, shift, mixing_sum,
      joint_sum, gradient):
    return tuple(torch.empty_like(t) for t in (templates, alpha, inverse, log_presence, background,
                                               background_logit))


@no_type_check
def _keep(ctx, inputs, output):
    ctx.save_for_backward(*inputs, *output[1:])
    ctx.set_materialize_grads(False)


@no_type_check
def _differentiate(ctx, gradient, *_):
    if gradient is None:
        return (None,) * 7
    return *torch.ops.scae.pixel_likelihood_backward(*ctx.saved_tensors, gradient), None


_pixel_likelihood.register_autograd(_differentiate, setup_context=_keep)
