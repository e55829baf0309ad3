"""Layers of matrix capsules: convolution, primary, convolutional and class capsules.

Capsules of a grid are `[B, H, W, types, 16]` poses (4 × 4, row-major) and `[B, H, W, types]`
activations. Variables have the official program's names and layouts where `routing.betas` (or the
form of the primary capsules) is the official one, else IBM's. Read beside `port/em/layers.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import initializers
from reference.core.module import NamedModule
from reference.em import routing as em_routing
from reference.em.routing import POSE, Routed
from reference.em.settings import Routing
from reference.em.windows import windows

Array = Float[tf.Tensor, "..."]

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
    return tf.pad(children, [(0, 0), *sides, *[(0, 0)] * (len(children.shape) - 3)])


def batch_normalize(image: Array) -> Array:
    """(x - mean) / sqrt(variance + 0.001) per channel, over batch and pixels; no scale, no shift.

    Args:
        image: `[B, H, W, C]`.

    Source: IBM `em_caps.py`; the batch's own statistics, in training and evaluation alike.
    """
    mean = tf.reduce_mean(image, [0, 1, 2], keepdims=True)
    variance = tf.reduce_mean(tf.square(image - mean), [0, 1, 2], keepdims=True)
    return (image - mean) * tf.math.rsqrt(variance + 1e-3)


def pose_product(pose: Array, weight: Array) -> Array:
    """Votes V = P·W of children that each parent sees.

    Args:
        pose: `[B, P, Q, K, L, I, 16]`.
        weight: `[K, L, I, J, 4, 4]`.

    Returns:
        `[B, P, Q, K, L, I, J, 16]`.

    Source: paper section 4; V[r, a] = Σ_m P[r, m] W[m, a].
    """
    pose = tf.reshape(pose, [*pose.shape[:-1], 4, 4])
    votes = tf.einsum("bpquvirm,uvijma->bpquvijra", pose, weight)
    return tf.reshape(votes, [*votes.shape[:-2], POSE])


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
    added = tf.one_hot(SLOTS[coordinates], POSE, dtype=votes.dtype)
    return votes + tf.einsum("xyc,ch->xyh", centres, added)[
        None, None, None, :, :, None, None]


class Convolution(NamedModule):
    """Square convolution with bias and ReLU.

    Args:
        scope: variables `weights` [k, k, C, A] and `biases` [A].
        in_channels: C.
        out_channels: A.
        kernel: k.
        stride: s.
        padding: `VALID` or `SAME`.
        rng: draws the weights (truncated normal, 1/sqrt(k·k·C)).
        dtype: of the variables.

    Source: official `conv1`, IBM `relu_conv1`.
    """

    def __init__(self, scope: str, in_channels: int, out_channels: int, kernel: int, stride: int,
                 padding: str, rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.stride, self.padding = stride, padding
        self.weights = self.add_variable("weights", initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, out_channels), (kernel * kernel * in_channels) ** -0.5))
        self.biases = self.add_variable("biases", np.zeros(out_channels, np.float32))

    def __call__(self, image: Array) -> Array:
        return tf.nn.relu(tf.nn.conv2d(image, self.weights, self.stride, self.padding) + self.biases)


class PrimaryCapsules(NamedModule):
    """Poses and activations from each position's features by 1 × 1 convolutions.

    `separate`: pose linear, activation sigmoid, both with bias. `joint`: one convolution without
    bias, its kernel the pose kernel [A, 16·types] and the activation kernel [A, types] side by side;
    17 consecutive channels are one type: 16 of pose, then the activation sigmoid(y - 1).

    Args:
        scope: holds the variables.
        channels: A.
        types: B.
        primary: `separate` or `joint`.
        stddev: of the pose kernel and of the activation kernel (truncated normal).
        rng: draws them.
        dtype: of the variables.

    Source: paper section 4 (PrimaryCaps); IBM `primary_caps`; official `conv_capsule1`.
    """

    def __init__(self, scope: str, channels: int, types: int, primary: str, stddev: tuple[float, float],
                 rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.types, self.primary = types, primary
        pose = initializers.truncated_normal(rng, (1, 1, channels, types * POSE), stddev[0])
        activation = initializers.truncated_normal(rng, (1, 1, channels, types), stddev[1])
        if primary == "joint":
            self.pose_weights = self.add_variable("weights", pose)
            self.activation_weights = self.add_variable("conv_capsule1_act/weights", activation)
        else:
            self.pose_weights = self.add_variable("pose/weights", pose)
            self.pose_biases = self.add_variable("pose/biases", np.zeros(types * POSE, np.float32))
            self.activation_weights = self.add_variable("activation/weights", activation)
            self.activation_biases = self.add_variable("activation/biases", np.zeros(types, np.float32))

    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Pose `[B, H, W, types, 16]` and activation `[B, H, W, types]` of features `[B, H, W, A]`."""
        grid = features.shape[:3]
        if self.primary == "joint":
            kernel = tf.concat([self.pose_weights, self.activation_weights], -1)
            both = tf.reshape(tf.matmul(features, kernel[0, 0]), [*grid, self.types, POSE + 1])
            return both[..., :POSE], tf.sigmoid(both[..., POSE] - 1.0)
        pose = tf.matmul(features, self.pose_weights[0, 0]) + self.pose_biases
        activation = tf.matmul(features, self.activation_weights[0, 0]) + self.activation_biases
        return tf.reshape(pose, [*grid, self.types, POSE]), tf.sigmoid(activation)


class ConvCapsules(NamedModule):
    """Convolutional capsules: every window of children votes for one parent of each type.

    Args:
        scope: holds the variables.
        types_in: I.
        types_out: J.
        kernel: K, or (K, L).
        stride: s.
        padding: `VALID` or `SAME`.
        routing: how to route.
        stddev: of the vote matrices (truncated normal).
        identity: add the identity to them.
        betas: initial β_u and β_a, one number per parent type each.
        rng: draws the weights.
        dtype: of the variables.

    Source: paper section 4 (ConvCaps); official and IBM convolutional capsule layers.
    """

    def __init__(self, scope: str, types_in: int, types_out: int, kernel: int | tuple[int, int],
                 stride: int, padding: str, routing: Routing, stddev: float, identity: bool,
                 betas: tuple[float, float], rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.kernel = (kernel, kernel) if isinstance(kernel, int) else tuple(kernel)
        self.types_in, self.types_out = types_in, types_out
        self.stride, self.padding, self.routing = stride, padding, routing
        drawn = _vote_matrices(rng, (*self.kernel, types_in, types_out), stddev, identity)
        beta_u, beta_a = (np.full(types_out, value, np.float32) for value in betas)
        if routing.betas == "official":
            self.weights = self.add_variable("weights", drawn.transpose(2, 0, 1, 4, 5, 3).reshape(
                types_in, *self.kernel, 4, 4 * types_out))
            shape = (1, 1, types_out, 1, 1, 1, 1, 1)
            self.beta_a = self.add_variable("activation_biases", beta_a.reshape(shape))
            self.beta_u = self.add_variable("sigma_biases", beta_u.reshape(shape))
        else:
            self.weights = self.add_variable("votes/w", drawn.reshape(1, -1, types_out, 4, 4))
            shape = (1, 1, 1, 1, types_out, 1)
            self.beta_a = self.add_variable("routing/beta_a", beta_a.reshape(shape))
            self.beta_u = self.add_variable("routing/beta_v", beta_u.reshape(shape))

    def __call__(self, pose: Array, activation: Array) -> Routed:
        """Parents of poses `[B, H, W, I, 16]` and activations `[B, H, W, I]`."""
        pose, activation = (windows(pad_children(
            x, self.kernel, self.stride, self.padding), self.kernel, self.stride)
            for x in (pose, activation))
        if self.routing.betas == "official":
            weight = tf.transpose(tf.reshape(self.weights, [
                self.types_in, *self.kernel, 4, 4, self.types_out]), [1, 2, 0, 5, 3, 4])
        else:
            weight = tf.reshape(self.weights, [*self.kernel, self.types_in, self.types_out, 4, 4])
        return em_routing.route(pose_product(pose, weight), activation, tf.reshape(self.beta_u, [-1]),
                                tf.reshape(self.beta_a, [-1]), self.stride, self.routing)


class ClassCapsules(NamedModule):
    """Class capsules: every child of the grid votes for each class by a matrix of its type.

    Args:
        scope: holds the variables.
        types_in: I.
        classes: J.
        routing: how to route; all children see all classes, so they compete under `parents`.
        coordinates: which vote entries get the position.
        stddev: of the vote matrices (truncated normal).
        identity: add the identity to them.
        betas: initial β_u and β_a.
        rng: draws the weights.
        dtype: of the variables.

    Source: paper section 4 (Class Capsules, Coordinate Addition); official and IBM class layers.
    """

    def __init__(self, scope: str, types_in: int, classes: int, routing: Routing, coordinates: str,
                 stddev: float, identity: bool, betas: tuple[float, float], rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.types_in, self.classes = types_in, classes
        self.routing, self.coordinates = routing, coordinates
        drawn = _vote_matrices(rng, (types_in, classes), stddev, identity)
        beta_u, beta_a = (np.full(classes, value, np.float32) for value in betas)
        if routing.betas == "official":
            self.weights = self.add_variable("weights", drawn.transpose(0, 2, 3, 1).reshape(
                types_in, 4, 4 * classes))
            shape = (1, 1, classes, 1, 1, 1)
            self.beta_a = self.add_variable("activation_biases", beta_a.reshape(shape))
            self.beta_u = self.add_variable("sigma_biases", beta_u.reshape(shape))
        else:
            self.weights = self.add_variable("v/w", drawn[None])
            shape = (1, 1, 1, 1, classes, 1)
            self.beta_a = self.add_variable("routing/beta_a", beta_a.reshape(shape))
            self.beta_u = self.add_variable("routing/beta_v", beta_u.reshape(shape))

    def __call__(self, pose: Array, activation: Array, centres: np.ndarray | None = None) -> Routed:
        """Classes of poses `[B, H, W, I, 16]` and activations `[B, H, W, I]`; P = Q = 1.

        Args:
            pose: the children's poses.
            activation: their activations.
            centres: `[H, W, 2]` for coordinates `row` (see `carried_centres`); default the grid's own.
        """
        if self.routing.betas == "official":
            weight = tf.transpose(tf.reshape(self.weights, [self.types_in, 4, 4, self.classes]),
                                  [0, 3, 1, 2])
        else:
            weight = self.weights[0]
        height, width = pose.shape[1:3]
        centres = grid_centres(height, width) if centres is None else centres
        weight = tf.broadcast_to(weight, [height, width, *weight.shape])
        votes = coordinate_addition(pose_product(pose[:, None, None], weight),
                                    tf.constant(centres, pose.dtype), self.coordinates)
        return em_routing.route(votes, activation[:, None, None], tf.reshape(self.beta_u, [-1]),
                                tf.reshape(self.beta_a, [-1]), 1, self.routing)


def _vote_matrices(rng: np.random.Generator, shape: tuple[int, ...], stddev: float, identity: bool
                   ) -> np.ndarray:
    """Initial 4 × 4 vote matrices, `[*shape, 4, 4]`."""
    drawn = initializers.truncated_normal(rng, (*shape, 4, 4), stddev)
    return drawn + np.eye(4, dtype=np.float32) if identity else drawn
