"""CapsNet: capsules with dynamic routing, margin loss and a reconstruction decoder, in PyTorch.

Read beside `reference/capsnet/network.py`: same names, same order; images are channels first here. Capsules are
`[batch, capsule, atom]` on both sides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.capsnet.kernel import route_children
from port.capsnet.routing import Routing, capsule_lengths, capsule_votes, dynamic_routing, squash
from port.capsnet.settings import Settings
from port.core import initializers
from port.core.layers import _parameter

Array = Float[Tensor, "..."]


class Result(NamedTuple):
    """A forward pass: the optimised scalar, its terms, class capsules, lengths, reconstruction."""

    loss: Array
    scalars: dict[str, Array]
    capsules: Array
    lengths: Array
    reconstruction: Array | None


def margin_terms(lengths: Array, labels: Array, upper: float = 0.9, lower: float = 0.1,
                 down_weight: float = 0.5) -> Array:
    """T max(0, m⁺ - |v|)² + λ (1 - T) max(0, |v| - m⁻)² of every example and class.

    Args:
        lengths: |v|, `[batch, class]`.
        labels: T, one-hot of the same shape and dtype.
        upper: m⁺.
        lower: m⁻.
        down_weight: λ.

    Returns:
        `[batch, class]`.

    Source: CapsNet paper, equation 4.
    """
    present = labels * torch.square(F.relu(upper - lengths))
    absent = (1.0 - labels) * torch.square(F.relu(lengths - lower))
    return present + down_weight * absent


def margin_loss(lengths: Array, labels: Array, reduction: str = "sum") -> Array:
    """The margin loss in either published scale.

    Args:
        lengths: |v|, `[batch, class]`.
        labels: one-hot, same shape and dtype.
        reduction: `sum`: over classes, mean over the batch (paper); `mean`: half the mean over batch
            and classes (official), the paper's divided by 2·classes.

    Returns:
        A scalar.

    Source: CapsNet paper, section 3; official `layers.py: _margin_loss` and `evaluate`.
    """
    terms = margin_terms(lengths, labels)
    if reduction == "sum":
        return torch.mean(torch.sum(terms, 1))
    return 0.5 * torch.mean(terms)


def reconstruction_loss(image: Array, reconstruction: Array, weight: float = 0.0005) -> Array:
    """weight · Σ (x - r)², summed over an image's numbers, mean over the batch.

    Args:
        image: x, `[batch, …]`.
        reconstruction: r, of the same shape.
        weight: of the sum.

    Returns:
        A scalar.

    Source: CapsNet paper, section 4.1 (its 0.0005 is on the sum: 0.392 on the mean of 784).
    """
    square = torch.square(reconstruction - image)
    return weight * torch.mean(torch.sum(square.flatten(1), 1))


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
        self.weight = _parameter(initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, out_channels), deviation).transpose(3, 2, 0, 1))
        self.bias = _parameter(np.full(
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
        self.weight = _parameter(initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, types * atoms), deviation).transpose(3, 2, 0, 1))
        self.bias = _parameter(np.full((types, atoms, 1, 1), 0.1 if official else 0.0, np.float32))

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
        self.weight = _parameter(initializers.truncated_normal(
            rng, shape, 0.1) if official else (0.01 * rng.standard_normal(shape)).astype(np.float32))
        self.bias = _parameter(np.full(
            (parents, atoms_out), 0.1 if official else 0.0, np.float32)
        ) if settings.routing_bias else None

    def forward(self, capsules: Array) -> Array:
        """Parents `[batch, parent, atom_out]` of children `[batch, child, atom_in]`."""
        settings = self.settings
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
            layer.weight, layer.bias = _parameter(weights.T), _parameter(biases)
            self.linear.append(layer)

    def forward(self, masked: Array) -> Array:
        x = masked
        for layer in self.linear[:-1]:
            x = F.relu(layer(x))
        return torch.sigmoid(self.linear[-1](x))


class CapsNet(nn.Module):
    """The whole network: convolution, primary capsules, class capsules, decoder, losses.

    Args:
        settings: the configuration.
        seed: draws the initial weights, bit-equal to the reference's from the same seed.

    Source: CapsNet paper, section 4; official `capsule_model.py: CapsuleModel`.
    """

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        super().__init__()
        self.settings = self.config = settings
        rng = np.random.default_rng(seed)
        self.conv1 = Convolution(settings.channels, settings.conv1_channels, settings.kernel,
                                 settings.conv1_stride, settings.initial, rng)
        self.primary = PrimaryCapsules(settings.conv1_channels, settings, rng)
        self.classes = RoutingCapsules(settings.children, settings.primary_atoms,
                                       settings.classes, settings.class_atoms, settings, rng)
        self.decoder = CapsuleDecoder(
            settings.classes * settings.class_atoms, settings.decoder, settings.pixels,
            settings.initial, rng) if settings.decoder else None

    def encode(self, image: Array) -> Array:
        """Class capsules `[batch, class, atom]` of images `[batch, C, S, S]` in [0, 1]."""
        features = F.relu(self.conv1(image))
        return self.classes(flatten_grid(self.primary(features)))

    def decode(self, capsules: Array, keep: Tensor) -> Array:
        """Images `[batch, C, S, S]` from the one capsule `keep` of each example.

        The decoder's numbers are in the official program's order, channel by channel.
        """
        side, channels = self.settings.canvas, self.settings.channels
        return self.decoder(mask_capsules(capsules, keep)).unflatten(1, (channels, side, side))

    def forward(self, image: Array, label: Tensor | None = None, noise: None = None,
                mask: str = "label") -> Result:
        """One forward pass.

        Args:
            image: `[batch, C, S, S]` in [0, 1].
            label: integers `[batch]`; without them the margin loss is absent.
            noise: there is none; the training loop hands it to every model.
            mask: which capsule is decoded: that of the `label` (training), or the longest by `length`,
                which is also taken without labels.
        """
        settings = self.settings
        capsules = self.encode(image)
        lengths = capsule_lengths(capsules)
        longest = torch.argmax(lengths, 1)
        loss, scalars, reconstruction = lengths.new_zeros(()), {}, None
        if label is not None:
            labels = F.one_hot(label, settings.classes).to(lengths.dtype)
            scalars["margin_loss"] = margin_loss(lengths, labels, settings.margin)
            scalars["accuracy"] = torch.mean((longest == label).to(lengths.dtype))
            if settings.reconstruction == "joint":
                loss = loss + scalars["margin_loss"]
        if self.decoder is not None:
            frozen = settings.reconstruction == "frozen"
            keep = longest if label is None or mask == "length" else label
            reconstruction = self.decode(capsules.detach() if frozen else capsules, keep)
            scalars["reconstruction_loss"] = reconstruction_loss(
                image, reconstruction, settings.reconstruction_weight)
            loss = loss + scalars["reconstruction_loss"]
        return Result(loss, scalars, capsules, lengths, reconstruction)
