"""Layers of CapsNet in TensorFlow: convolution, primary and routed capsules, the reconstruction decoder.

Read beside `port/capsnet/layers.py`: same names, same order; images are channels last here. Capsules are
`[batch, capsule, atom]` on both sides.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.capsnet.routing import Routing, capsule_votes, dynamic_routing, squash
from reference.capsnet.settings import Settings
from reference.core import initializers
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]


def mask_capsules(capsules: Array, keep: Array) -> Array:
    """Zeros in all capsules but one of each example, flattened capsule by capsule.

    Args:
        capsules: `[batch, class, atom]`.
        keep: index of the capsule that stays, integers `[batch]`.

    Returns:
        `[batch, class·atom]`.

    Source: CapsNet paper, section 4.1.
    """
    mask = tf.one_hot(keep, capsules.shape[1], dtype=capsules.dtype)
    return tf.reshape(capsules * mask[..., None], [capsules.shape[0], -1])


def flatten_grid(grid: Array) -> Array:
    """Capsules of a grid as one list: index = type·H·W + row·W + column.

    Args:
        grid: `[batch, type, atom, row, col]`.

    Returns:
        `[batch, type·row·col, atom]`.

    Source: official `capsule_model.py: _build_capsule`.
    """
    batch, _, atoms, _, _ = grid.shape
    return tf.reshape(tf.transpose(grid, [0, 1, 3, 4, 2]), [batch, -1, atoms])


class Convolution(NamedModule):
    """Square convolution without padding, with bias.

    Args:
        scope: holds `weights` [k, k, in, out] and `biases` [out].
        in_channels: channels of the image.
        out_channels: channels of the result.
        kernel: k.
        stride: in pixels.
        initial: see `Settings`.
        rng: draws the weights.
        dtype: of the variables.

    Source: official `capsule_model.py: _add_convs`.
    """

    def __init__(self, scope: str, in_channels: int, out_channels: int, kernel: int, stride: int,
                 initial: str, rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.stride = stride
        deviation = 0.05 if initial == "official" else (kernel * kernel * in_channels) ** -0.5
        self.weights = self.add_variable("weights", initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, out_channels), deviation))
        self.biases = self.add_variable("biases", np.full(
            out_channels, 0.1 if initial == "official" else 0.0, np.float32))

    def __call__(self, image: Array) -> Array:
        return tf.nn.conv2d(image, self.weights, self.stride, "VALID") + self.biases


class PrimaryCapsules(NamedModule):
    """A convolution whose channels are capsules: channel = type·atoms + atom; then squash.

    Args:
        scope: holds `weights` [k, k, in, types·atoms] and `biases` [types, atoms, 1, 1].
        in_channels: channels of the feature map.
        settings: sizes, `primary_coupling`, `leaky`, `squash_epsilon`, `initial`.
        rng: draws the weights.
        dtype: of the variables.

    Source: CapsNet paper, section 4; official `layers.py: conv_slim_capsule`, which routes the votes of
    its one child once, so that they are divided by the number of types.
    """

    def __init__(self, scope: str, in_channels: int, settings: Settings, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.settings = settings
        types, atoms, kernel = settings.primary_types, settings.primary_atoms, settings.kernel
        official = settings.initial == "official"
        deviation = 0.1 if official else (kernel * kernel * in_channels) ** -0.5
        self.weights = self.add_variable("weights", initializers.truncated_normal(
            rng, (kernel, kernel, in_channels, types * atoms), deviation))
        self.biases = self.add_variable("biases", np.full(
            (types, atoms, 1, 1), 0.1 if official else 0.0, np.float32))

    def __call__(self, features: Array) -> Array:
        """Capsules on a grid, `[batch, type, atom, row, col]`."""
        settings = self.settings
        y = tf.nn.conv2d(features, self.weights, settings.primary_stride, "VALID")
        y = tf.reshape(y, [*y.shape[:3], settings.primary_types, settings.primary_atoms])
        y = tf.transpose(y, [0, 3, 4, 1, 2])
        if settings.primary_coupling:
            y = y * (1.0 / (settings.primary_types + settings.leaky))
        return squash(y + self.biases, 2, settings.squash_epsilon)


class RoutingCapsules(NamedModule):
    """A layer of capsules, each with its own matrix for every child, joined by dynamic routing.

    Args:
        scope: holds `weights` [child, atom_in, parent·atom_out] and, with a routing bias, `biases`
            [parent, atom_out].
        children: number of capsules below.
        atoms_in: their numbers.
        parents: number of capsules.
        atoms_out: their numbers.
        settings: `iterations`, `leaky`, `routing_gradient`, `routing_bias`, `squash_epsilon`, `initial`.
        rng: draws the weights.
        dtype: of the variables.

    Source: CapsNet paper, section 4; official `layers.py: capsule`.
    """

    def __init__(self, scope: str, children: int, atoms_in: int, parents: int, atoms_out: int,
                 settings: Settings, rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.settings, self.parents = settings, parents
        official = settings.initial == "official"
        shape = (children, atoms_in, parents * atoms_out)
        self.weights = self.add_variable("weights", initializers.truncated_normal(
            rng, shape, 0.1) if official else (0.01 * rng.standard_normal(shape)).astype(np.float32))
        self.biases = self.add_variable("biases", np.full(
            (parents, atoms_out), 0.1 if official else 0.0, np.float32)
        ) if settings.routing_bias else None

    def __call__(self, capsules: Array) -> Array:
        """Parents `[batch, parent, atom_out]` of children `[batch, child, atom_in]`."""
        return self.route(capsules).capsules

    def route(self, capsules: Array) -> Routing:
        """The same with logits and coupling of the last iteration."""
        settings = self.settings
        votes = capsule_votes(capsules, self.weights, self.parents)
        return dynamic_routing(votes, self.biases, settings.iterations, settings.leaky,
                               settings.routing_gradient, settings.squash_epsilon)


class CapsuleDecoder(NamedModule):
    """An image from masked capsules: dense layers with ReLU, the last with a sigmoid.

    Args:
        scope: holds `recons_1`, `recons_2`, …, each with `weights` [in, out] and `biases` [out].
        in_features: numbers of all class capsules.
        hidden: widths of the hidden layers.
        pixels: numbers of an image.
        initial: see `Settings`.
        rng: draws the weights.
        dtype: of the variables.

    Source: CapsNet paper, section 4.1; official `layers.py: reconstruction`.
    """

    def __init__(self, scope: str, in_features: int, hidden: tuple[int, ...], pixels: int, initial: str,
                 rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        sizes = [in_features, *hidden, pixels]
        self.linear = []
        for i, (before, after) in enumerate(zip(sizes, sizes[1:])):
            official = initial == "official"
            weights = initializers.truncated_normal(
                rng, (before, after), 0.1 if official else before ** -0.5)
            biases = np.full(after, 0.1 if official else 0.0, np.float32)
            self.linear.append((self.add_variable(f"recons_{i + 1}/weights", weights),
                                self.add_variable(f"recons_{i + 1}/biases", biases)))

    def __call__(self, masked: Array) -> Array:
        x = masked
        for weights, biases in self.linear[:-1]:
            x = tf.nn.relu(tf.matmul(x, weights) + biases)
        weights, biases = self.linear[-1]
        return tf.sigmoid(tf.matmul(x, weights) + biases)
