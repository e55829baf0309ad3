"""EM routing of a convolutional capsule layer without its votes: the kernel of `em.kernel`.

The same result as `em.routing.route` of `em.layers.pose_product`, on a CPU. SCAE_KERNELS=off (see
`port.core.backends`) keeps plain PyTorch, as do other devices and an installation without Numba.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from port.core import backends, operators
from port.em import routing as em_routing
from port.em.routing import LOG_2PI, LOWEST, POSE, Routed
from port.em.settings import Routing
from port.em.windows import windows

Array = Float[Tensor, "..."]


def reason_against(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """Why the kernel cannot route poses of a dtype; empty where it can.

    Raises:
        ValueError: the switch has another value.
    """
    reasons = ((backends.choice() == "off", f"{backends.SWITCH}=off"), (device.type != "cpu", f"on {device.type}"),
               (backends.exporting(), "a graph for other programs"),
               (dtype not in backends.DTYPES, f"in {dtype}"),
               (not backends.INSTALLED, "Numba is not installed"))
    return next((reason for holds, reason in reasons if holds), "")


def route(pose: Float[Tensor, "batch height width types 16"],
          activation: Float[Tensor, "batch height width types"],
          weight: Float[Tensor, "high wide types parents 4 4"], beta_u: Array, beta_a: Array,
          stride: int, routing: Routing) -> Routed:
    """EM routing of a padded grid of children; see `em.routing.route`.

    Args:
        pose: `[B, H, W, I, 16]`.
        activation: `[B, H, W, I]`.
        weight: `[K, L, I, J, 4, 4]`.
        beta_u: `[J]`, as trained.
        beta_a: `[J]`, as trained.
        stride: s.
        routing: everything else.

    Source: paper procedure 1; the arithmetic of `em.routing.route` in another order.
    """
    kernel, types = tuple(weight.shape[:2]), weight.shape[3]
    cost, threshold = em_routing.paper_betas(beta_u, beta_a, routing.betas)
    seen = windows(activation, kernel, stride)
    parents, children = tuple(seen.shape[1:3]), seen[0, 0, 0].numel()
    matrices = weight.permute(3, 4, 5, 0, 1, 2).reshape(types, POSE, children).contiguous()
    pose, seen = pose.contiguous(), seen.flatten(3)[:, :, :, None]
    assignment = em_routing.First(parents, kernel, types, stride, routing).beside(pose)
    scale = 100.0 * types / children if routing.cost_scale == "children" else 1.0
    shape, found, mean = (len(pose), *parents, types), None, pose.new_zeros(())
    for iteration in range(routing.iterations):
        if found is not None:
            assignment = _assignment(pose, matrices, *found, stride, kernel, routing)
        share = _children_last(assignment.expand(*assignment.shape[:5], weight.shape[2], types)) * seen
        previous = mean.expand(*shape, POSE).contiguous()
        mass, mean, variance = torch.ops.scae.em_moments(
            pose, matrices, share.contiguous(), previous, stride, *kernel, routing.momentum,
            routing.mass_epsilon, routing.variance_floor)
        charged = mass + routing.mass_epsilon if routing.mass_epsilon_in_cost else mass
        charge = scale * charged * (POSE * cost + 0.5 * variance.log().sum(-1))
        found = mean, variance, em_routing.inverse_temperature(iteration, routing) * (threshold - charge)
    return Routed(mean, torch.sigmoid(found[2]), found[2], assignment)


def _children_last(assignment: Array) -> Array:
    """[B, P, Q, K, L, I, J] → [B, P, Q, J, K·L·I]."""
    return assignment.movedim(-1, 3).flatten(4)


def _assignment(pose: Array, matrices: Array, mean: Array, variance: Array, logit: Array, stride: int,
                kernel: tuple[int, int], routing: Routing) -> Array:
    """The E step: `em.routing.e_step` and `compete`."""
    distance = torch.ops.scae.em_distances(pose, matrices, mean, variance.rsqrt(), stride, *kernel)
    base = em_routing.log_activation(logit, routing) - 0.5 * (POSE * LOG_2PI + variance.log().sum(-1))
    joint = (base[..., None] - 0.5 * distance).clamp(min=LOWEST)
    joint = joint.unflatten(-1, (*kernel, -1)).movedim(3, -1)
    return em_routing.compete(joint, stride, routing.competition)


def _arrays(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def _constants(dtype: np.dtype, *values: float) -> list[np.floating]:
    """Numbers in the kernel's dtype, so that it computes in that alone."""
    return [dtype.type(value) for value in values]


@operators.operator("scae::em_moments", ("cpu",))
@no_type_check
def _moments(pose: Tensor, weight: Tensor, share: Tensor, previous: Tensor, stride: int, high: int,
             wide: int, momentum: float, epsilon: float, floor: float
             ) -> tuple[Tensor, Tensor, Tensor]:
    from port.em import kernel as em_kernel

    outputs = torch.empty_like(previous[..., 0]), torch.empty_like(previous), torch.empty_like(previous)
    arrays = _arrays(pose, weight, share, previous)
    constants = _constants(arrays[0].dtype, momentum, epsilon, floor,
                           em_kernel.smallest_mass(arrays[0].dtype))
    results = [tensor.numpy() for tensor in outputs]
    backends.share(len(pose), lambda first, last: em_kernel.moments_forward(
        first, last, *arrays, stride, high, wide, *constants, *results))
    return outputs


@_moments.register_fake
@no_type_check
def _(pose, weight, share, previous, stride, high, wide, momentum, epsilon, floor):
    return torch.empty_like(previous[..., 0]), torch.empty_like(previous), torch.empty_like(previous)


@operators.operator("scae::em_moments_backward", ("cpu",))
@no_type_check
def _moments_backward(pose: Tensor, weight: Tensor, share: Tensor, mass: Tensor, mean: Tensor,
                      variance: Tensor, grad_mass: Tensor, grad_mean: Tensor, grad_variance: Tensor,
                      stride: int, high: int, wide: int, momentum: float, epsilon: float,
                      floor: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from port.em import kernel as em_kernel

    arrays = _arrays(pose, weight, share)
    saved = _arrays(mass, mean, variance, grad_mass, grad_mean, grad_variance)
    constants = _constants(arrays[0].dtype, momentum, epsilon, floor,
                           em_kernel.smallest_mass(arrays[0].dtype))
    grads = (torch.zeros_like(pose), weight.new_zeros(len(pose), *weight.shape),
             torch.empty_like(share), torch.empty_like(mean))
    results = [tensor.numpy() for tensor in grads]
    backends.share(len(pose), lambda first, last: em_kernel.moments_backward(
        first, last, *arrays, stride, high, wide, *constants, *saved, *results))
    return grads[0], grads[1].sum(0), grads[2], grads[3]


@_moments_backward.register_fake
@no_type_check
def _(pose, weight, share, mass, mean, *_):
    return tuple(torch.empty_like(tensor) for tensor in (pose, weight, share, mean))


@no_type_check
def _keep_moments(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3], *output)  # the gradients do not depend on the previous mean
    ctx.constants = inputs[4:]


@no_type_check
def _moments_gradient(ctx, *grads):
    found = torch.ops.scae.em_moments_backward(*ctx.saved_tensors, *grads, *ctx.constants)
    return *found, *(None,) * 6


_moments.register_autograd(_moments_gradient, setup_context=_keep_moments)


@operators.operator("scae::em_distances", ("cpu",))
@no_type_check
def _distances(pose: Tensor, weight: Tensor, mean: Tensor, root: Tensor, stride: int, high: int,
               wide: int) -> Tensor:
    from port.em import kernel as em_kernel

    out = mean.new_empty(*mean.shape[:-1], weight.shape[2])
    arrays, result = _arrays(pose, weight, mean, root), out.numpy()
    backends.share(len(pose), lambda first, last: em_kernel.distances_forward(
        first, last, *arrays, stride, high, wide, result))
    return out


@_distances.register_fake
@no_type_check
def _(pose, weight, mean, root, stride, high, wide):
    return mean.new_empty(*mean.shape[:-1], weight.shape[2])


@operators.operator("scae::em_distances_backward", ("cpu",))
@no_type_check
def _distances_backward(pose: Tensor, weight: Tensor, mean: Tensor, root: Tensor, grad: Tensor,
                        stride: int, high: int, wide: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from port.em import kernel as em_kernel

    grads = (torch.zeros_like(pose), weight.new_zeros(len(pose), *weight.shape),
             torch.empty_like(mean), torch.empty_like(root))
    arrays, results = _arrays(pose, weight, mean, root), [tensor.numpy() for tensor in grads]
    given = grad.detach().contiguous().numpy()
    backends.share(len(pose), lambda first, last: em_kernel.distances_backward(
        first, last, *arrays, stride, high, wide, given, *results))
    return grads[0], grads[1].sum(0), grads[2], grads[3]


@_distances_backward.register_fake
@no_type_check
def _(pose, weight, mean, root, *_):
    return tuple(torch.empty_like(tensor) for tensor in (pose, weight, mean, root))


@no_type_check
def _keep_distances(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.constants = inputs[4:]


@no_type_check
def _distances_gradient(ctx, grad):
    return *torch.ops.scae.em_distances_backward(*ctx.saved_tensors, grad, *ctx.constants), *(None,) * 3


_distances.register_autograd(_distances_gradient, setup_context=_keep_distances)
