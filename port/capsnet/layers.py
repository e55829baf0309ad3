"""Layers of CapsNet in PyTorch: convolution, primary and routed capsules, the reconstruction decoder.

Read beside `reference/capsnet/layers.py`: same names, same order; images are channels first here. Capsules are
`[batch, capsule, atom]` on both sides.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.capsnet.kernel import route_children
from port.capsnet.routing import Routing, capsule_votes, dynamic_routing, squash
from port.capsnet.settings import Settings
from port.core import backends, initializers
from port.core.parameters import parameter

Array = Float[Tensor, "..."]


def mask_capsules(capsules: Array, keep: Tensor) -> Array:
    """Zeros in all capsules but one of each example, flattened capsule by capsule.

    Args:
        capsules: `[batch, class, atom]`.
        keep: index of the capsule that stays, integers `[batch]`.

    Returns:
        `[batch, class·atom]`.

    Source: CapsNet paper, section 4.1.
    """
    mask = F.one_hot(keep, capsules.shape[1]).to(capsules.dtype)
    return (capsules * mask[..., None]).flatten(1)


def flatten_grid(grid: Array) -> Array:
    """Capsules of a grid as one list: index = type·H·W + row·W + column.

    Args:
        grid: `[batch, type, atom, row, col]`.

    Returns:
        `[batch, type·row·col, atom]`.

    Source: official `capsule_model.py: _build_capsule`.
    """
    return grid.permute(0, 1, 3, 4, 2).flatten(1, 3)


class Convolution(nn.Module):
    """Square convolution without padding, with bias.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        kernel: k.
        stride: in pixels.
        initial: see `Settings`.
        rng: draws the weights.

    Source: official `capsule_model.py: _add_convs`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, initial: str,
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.stride = stride
        deviation = 0.05 if initial == "official" else (kernel * kernel * in_channels) ** -0.5
        self.weight = parameter(initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, out_channels), deviation).transpose(3, 2, 0, 1))
        self.bias = parameter(np.full(
            out_channels, 0.1 if initial == "official" else 0.0, np.float32))

    def forward(self, image: Array) -> Array:
        return F.conv2d(image, self.weight, self.bias, self.stride)


class PrimaryCapsules(nn.Module):
    """A convolution whose channels are capsules: channel = type·atoms + atom; then squash.

    Args:
        in_channels: channels of the feature map.
        settings: sizes, `primary_coupling`, `leaky`, `squash_epsilon`, `initial`.
        rng: draws the weights.

    Source: CapsNet paper, section 4; official `layers.py: conv_slim_capsule`, which routes the votes of
    its one child once, so that they are divided by the number of types.
    """

    def __init__(self, in_channels: int, settings: Settings, rng: np.random.Generator) -> None:
        super().__init__()
        self.settings = settings
        types, atoms, kernel = settings.primary_types, settings.primary_atoms, settings.kernel
        official = settings.initial == "official"
        deviation = 0.1 if official else (kernel * kernel * in_channels) ** -0.5
        self.weight = parameter(initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, types * atoms), deviation).transpose(3, 2, 0, 1))
        self.bias = parameter(np.full((types, atoms, 1, 1), 0.1 if official else 0.0, np.float32))

    def forward(self, features: Array) -> Array:
        """Capsules on a grid, `[batch, type, atom, row, col]`."""
        settings = self.settings
        y = F.conv2d(features, self.weight, stride=settings.primary_stride)
        y = y.unflatten(1, (settings.primary_types, settings.primary_atoms))
        if settings.primary_coupling:
            y = y * (1.0 / (settings.primary_types + settings.leaky))
        return squash(y + self.bias, 2, settings.squash_epsilon)


class RoutingCapsules(nn.Module):
    """A layer of capsules, each with its own matrix for every child, joined by dynamic routing.

    Args:
        children: number of capsules below.
        atoms_in: their numbers.
        parents: number of capsules.
        atoms_out: their numbers.
        settings: `iterations`, `leaky`, `routing_gradient`, `routing_bias`, `squash_epsilon`, `initial`.
        rng: draws the weights, `[child, atom_in, parent·atom_out]` as in the official program.

    Source: CapsNet paper, section 4; official `layers.py: capsule`.
    """

    def __init__(self, children: int, atoms_in: int, parents: int, atoms_out: int, settings: Settings,
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.settings, self.parents = settings, parents
        official = settings.initial == "official"
        shape = (children, atoms_in, parents * atoms_out)
        self.weight = parameter(initializers.truncated_normal(
            rng, shape, 0.1) if official else (0.01 * rng.standard_normal(shape)).astype(np.float32))
        self.bias = parameter(np.full(
            (parents, atoms_out), 0.1 if official else 0.0, np.float32)
        ) if settings.routing_bias else None

    def forward(self, capsules: Array) -> Array:
        """Parents `[batch, parent, atom_out]` of children `[batch, child, atom_in]`."""
        settings = self.settings
        if backends.exporting():  # blocks of children would depend on the batch size
            return self.route(capsules).capsules
        return route_children(capsules, self.weight, self.parents, self.bias, settings.iterations,
                              settings.leaky, settings.routing_gradient, settings.squash_epsilon)

    def route(self, capsules: Array) -> Routing:
        """The same by way of the votes, with logits and coupling of the last iteration."""
        settings = self.settings
        votes = capsule_votes(capsules, self.weight, self.parents)
        return dynamic_routing(votes, self.bias, settings.iterations, settings.leaky,
                               settings.routing_gradient, settings.squash_epsilon)


class CapsuleDecoder(nn.Module):
    """An image from masked capsules: dense layers with ReLU, the last with a sigmoid.

    Args:
        in_features: numbers of all class capsules.
        hidden: widths of the hidden layers.
        pixels: numbers of an image.
        initial: see `Settings`.
        rng: draws the weights.

    Source: CapsNet paper, section 4.1; official `layers.py: reconstruction`.
    """

    def __init__(self, in_features: int, hidden: tuple[int, ...], pixels: int, initial: str,
                 rng: np.random.Generator) -> None:
        super().__init__()
        sizes = [in_features, *hidden, pixels]
        self.linear = nn.ModuleList()
        for before, after in zip(sizes, sizes[1:]):
            official = initial == "official"
            weights = initializers.truncated_normal(
                rng, (before, after), 0.1 if official else before ** -0.5)
            biases = np.full(after, 0.1 if official else 0.0, np.float32)
            layer = nn.Linear(before, after)
            layer.weight, layer.bias = parameter(weights.T), parameter(biases)
            self.linear.append(layer)

    def forward(self, masked: Array) -> Array:
        x = masked
        for layer in self.linear[:-1]:
            x = F.relu(layer(x))
        return torch.sigmoid(self.linear[-1](x))
