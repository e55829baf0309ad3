"""Layers of matrix capsules: convolution, primary, convolutional and class capsules.

Capsules of a grid are `[B, H, W, types, 16]` poses (4 × 4, row-major) and `[B, H, W, types]`
activations; images and features are channels first. Parameters have one layout for all programs;
`em.tf_names` maps the programs' variables. Read beside `reference/em/layers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.core import initializers
from port.core.constants import computed, constant, of_plain_values
from port.core.parameters import parameter
from port.em import fused
from port.em import routing as em_routing
from port.em.routing import POSE, Routed
from port.em.settings import Routing
from port.em.windows import windows

Array = Float[Tensor, "..."]

# Entries of a vote that get the two coordinates, by `em.settings.Network.coordinates`.
SLOTS = {"column": (3, 7), "row": (0, 1)}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after one axis so that ceil(size / stride) windows fit; the odd one after.

    Source: TensorFlow's padding SAME.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_children(children: Array, kernel: tuple[int, int], stride: int, padding: str) -> Array:
    """A grid `[B, H, W, …]` with SAME's zeros around it, or as it is for VALID.

    A child of zeros has activation 0: it weighs nothing in any parent.
    """
    if padding == "VALID":
        return children
    sides = [same_padding(size, k, stride) for size, k in zip(children.shape[1:3], kernel)]
    return F.pad(children, (0, 0) * (children.ndim - 3) + sides[1] + sides[0])


def batch_normalize(image: Array) -> Array:
    """(x - mean) / sqrt(variance + 0.001) per channel, over batch and pixels; no scale, no shift.

    Args:
        image: `[B, C, H, W]`.

    Source: IBM `em_caps.py`; the batch's own statistics, in training and evaluation alike.
    """
    mean = image.mean((0, 2, 3), keepdim=True)
    variance = (image - mean).square().mean((0, 2, 3), keepdim=True)
    return (image - mean) * torch.rsqrt(variance + 1e-3)


def pose_product(pose: Array, weight: Array) -> Array:
    """Votes V = P·W of children that each parent sees.

    Args:
        pose: `[B, P, Q, K, L, I, 16]`.
        weight: `[K, L, I, J, 4, 4]`.

    Returns:
        `[B, P, Q, K, L, I, J, 16]`.

    Source: paper section 4; V[r, a] = Σ_m P[r, m] W[m, a].
    """
    votes = torch.einsum("bpquvirm,uvijma->bpquvijra", pose.unflatten(-1, (4, 4)), weight)
    return votes.flatten(-2)


def grid_centres(height: int, width: int) -> np.ndarray:
    """Centres of a grid's cells in (0, 1): `[H, W, 2]`, (column + ½)/W and (row + ½)/H.

    Source: IBM `em_layers.py: coord_addition`; paper section 4.
    """
    rows, columns = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width,
                                indexing="ij")
    return np.stack([columns, rows], -1)


def carried_centres(height: int, width: int, layers: Sequence[tuple[int, int]]) -> np.ndarray:
    """Receptive-field centres as the official program carries them through its layers.

    Two channels start as (row, column), (index - size/2)/100; each layer averages them over its
    windows and swaps them.

    Args:
        height: of the image.
        width: of the image.
        layers: (kernel, stride) of each convolution without padding, 1 × 1 ones left out.

    Returns:
        `[h, w, 2]` over the last layer's grid.

    Source: official `em_model.py` and `em_layers.py` (position grid).
    """
    axes = [(np.arange(size) - size / 2.0) / 100.0 for size in (height, width)]
    for kernel, stride in layers:
        axes = [np.array([axis[start:start + kernel].mean()
                          for start in range(0, len(axis) - kernel + 1, stride)]) for axis in axes]
    channels = list(np.meshgrid(*axes, indexing="ij"))
    return np.stack(channels[::-1] if len(layers) % 2 else channels, -1)


def coordinate_addition(votes: Array, centres: Array, coordinates: str) -> Array:
    """Add each child's position to two entries of its votes.

    Args:
        votes: `[B, 1, 1, H, W, I, J, 16]`.
        centres: `[H, W, 2]`.
        coordinates: `column`, entries 3 and 7; `row`, entries 0 and 1.

    Source: paper section 4 (Coordinate Addition); official and IBM class layers.
    """
    added = computed(_entries, (), coordinates, dtype=votes.dtype, device=votes.device)
    return votes + (centres @ added)[:, :, None, None]


@of_plain_values
def _entries(coordinates: str) -> np.ndarray:
    """Which entry of a vote gets which coordinate: float64 `[2, 16]`."""
    return np.eye(POSE)[list(SLOTS[coordinates])]


@of_plain_values
def _grid_centres(_: str, height: float, width: float) -> np.ndarray:
    """`grid_centres`."""
    return grid_centres(int(height), int(width))


class Convolution(nn.Module):
    """Square convolution with bias and ReLU.

    Args:
        in_channels: C.
        out_channels: A.
        kernel: k.
        stride: s.
        padding: `VALID` or `SAME`.
        rng: draws the weights (truncated normal, 1/sqrt(k·k·C)) in the programs' HWIO order;
            `weight` is OIHW.

    Source: official `conv1`, IBM `relu_conv1`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: str,
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.weight = parameter(initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, out_channels),
            (kernel * kernel * in_channels) ** -0.5).transpose(3, 2, 0, 1))
        self.bias = parameter(np.zeros(out_channels, np.float32))

    def forward(self, image: Array) -> Array:
        if self.padding == "SAME":
            rows, columns = (same_padding(size, self.kernel, self.stride) for size in image.shape[2:])
            image = F.pad(image, (*columns, *rows))
        return F.relu(F.conv2d(image, self.weight, self.bias, self.stride))


class PrimaryCapsules(nn.Module):
    """Poses and activations from each position's features by 1 × 1 convolutions.

    `separate`: pose linear, activation sigmoid, both with bias. `joint`: one convolution without
    bias, its kernel the pose kernel [A, 16·types] and the activation kernel [A, types] side by side;
    17 consecutive channels are one type: 16 of pose, then the activation sigmoid(y - 1).

    Args:
        channels: A.
        types: B.
        primary: `separate` or `joint`.
        stddev: of the pose kernel and of the activation kernel (truncated normal).
        rng: draws them; `pose_weight` and `activation_weight` are OIHW.

    Source: paper section 4 (PrimaryCaps); IBM `primary_caps`; official `conv_capsule1`.
    """

    def __init__(self, channels: int, types: int, primary: str, stddev: tuple[float, float],
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.types, self.primary = types, primary
        pose = initializers.truncated_normal(rng, (1, 1, channels, types * POSE), stddev[0])
        activation = initializers.truncated_normal(rng, (1, 1, channels, types), stddev[1])
        self.pose_weight = parameter(pose.transpose(3, 2, 0, 1))
        self.activation_weight = parameter(activation.transpose(3, 2, 0, 1))
        if primary == "separate":
            self.pose_bias = parameter(np.zeros(types * POSE, np.float32))
            self.activation_bias = parameter(np.zeros(types, np.float32))

    def forward(self, features: Array) -> tuple[Array, Array]:
        """Pose `[B, H, W, types, 16]` and activation `[B, H, W, types]` of features `[B, A, H, W]`."""
        features = features.permute(0, 2, 3, 1)
        if self.primary == "joint":
            kernel = torch.cat([self.pose_weight, self.activation_weight])
            both = (features @ kernel[:, :, 0, 0].T).unflatten(-1, (self.types, POSE + 1))
            return both[..., :POSE], torch.sigmoid(both[..., POSE] - 1.0)
        pose = F.linear(features, self.pose_weight[:, :, 0, 0], self.pose_bias)
        activation = F.linear(features, self.activation_weight[:, :, 0, 0], self.activation_bias)
        return pose.unflatten(-1, (self.types, POSE)), torch.sigmoid(activation)


class ConvCapsules(nn.Module):
    """Convolutional capsules: every window of children votes for one parent of each type.

    Args:
        types_in: I.
        types_out: J.
        kernel: K, or (K, L).
        stride: s.
        padding: `VALID` or `SAME`.
        routing: how to route.
        stddev: of the vote matrices (truncated normal); `weight` is [K, L, I, J, 4, 4].
        identity: add the identity to them.
        betas: initial β_u and β_a, one number per parent type each; `beta_u` and `beta_a` are [J].
        rng: draws the weights.

    Source: paper section 4 (ConvCaps); official and IBM convolutional capsule layers.
    """

    def __init__(self, types_in: int, types_out: int, kernel: int | tuple[int, int], stride: int,
                 padding: str, routing: Routing, stddev: float, identity: bool,
                 betas: tuple[float, float], rng: np.random.Generator) -> None:
        super().__init__()
        self.kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        self.types_in, self.types_out = types_in, types_out
        self.stride, self.padding, self.routing = stride, padding, routing
        self.weight = parameter(_vote_matrices(rng, (*self.kernel, types_in, types_out), stddev,
                                                identity))
        self.beta_u, self.beta_a = (parameter(np.full(types_out, value, np.float32))
                                    for value in betas)

    def forward(self, pose: Array, activation: Array) -> Routed:
        """Parents of poses `[B, H, W, I, 16]` and activations `[B, H, W, I]`."""
        pose, activation = (pad_children(x, self.kernel, self.stride, self.padding)
                            for x in (pose, activation))
        if not fused.reason_against(pose.device, pose.dtype):
            return fused.route(pose, activation, self.weight, self.beta_u, self.beta_a, self.stride,
                                  self.routing)
        pose, activation = (windows(x, self.kernel, self.stride) for x in (pose, activation))
        return em_routing.route(pose_product(pose, self.weight), activation, self.beta_u, self.beta_a,
                                self.stride, self.routing)


class ClassCapsules(nn.Module):
    """Class capsules: every child of the grid votes for each class by a matrix of its type.

    Args:
        types_in: I.
        classes: J.
        routing: how to route; all children see all classes, so they compete under `parents`.
        coordinates: which vote entries get the position.
        stddev: of the vote matrices (truncated normal); `weight` is [I, J, 4, 4].
        identity: add the identity to them.
        betas: initial β_u and β_a.
        rng: draws the weights.

    Source: paper section 4 (Class Capsules, Coordinate Addition); official and IBM class layers.
    """

    def __init__(self, types_in: int, classes: int, routing: Routing, coordinates: str, stddev: float,
                 identity: bool, betas: tuple[float, float], rng: np.random.Generator) -> None:
        super().__init__()
        self.types_in, self.classes = types_in, classes
        self.routing, self.coordinates = routing, coordinates
        self.weight = parameter(_vote_matrices(rng, (types_in, classes), stddev, identity))
        self.beta_u, self.beta_a = (parameter(np.full(classes, value, np.float32)) for value in betas)

    def forward(self, pose: Array, activation: Array, centres: np.ndarray | Array | None = None) -> Routed:
        """Classes of poses `[B, H, W, I, 16]` and activations `[B, H, W, I]`; P = Q = 1.

        Args:
            pose: the children's poses.
            activation: their activations.
            centres: `[H, W, 2]` for coordinates `row` (see `carried_centres`); default the grid's own.
        """
        height, width = pose.shape[1:3]
        if centres is None:
            centres = computed(_grid_centres, (height, width), dtype=pose.dtype, device=pose.device)
        elif not isinstance(centres, Tensor):
            centres = constant(centres, pose.dtype, pose.device)
        weight = self.weight.expand(height, width, *self.weight.shape)
        votes = coordinate_addition(
            pose_product(pose[:, None, None], weight), centres, self.coordinates)
        return em_routing.route(votes, activation[:, None, None], self.beta_u, self.beta_a, 1,
                                self.routing)


def _vote_matrices(rng: np.random.Generator, shape: tuple[int, ...], stddev: float, identity: bool
                   ) -> np.ndarray:
    """Initial 4 × 4 vote matrices, `[*shape, 4, 4]`."""
    drawn = initializers.truncated_normal(rng, (*shape, 4, 4), stddev)
    return drawn + np.eye(4, dtype=np.float32) if identity else drawn
