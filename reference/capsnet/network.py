"""CapsNet: capsules with dynamic routing, margin loss and a reconstruction decoder, in TensorFlow.

Read beside `port/capsnet/network.py`: same names, same order; images are channels last here. Capsules are
`[batch, capsule, atom]` on both sides, variables have the official program's names.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.capsnet.routing import Routing, capsule_lengths, capsule_votes, dynamic_routing, squash
from reference.capsnet.settings import Settings
from reference.core import initializers
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]


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
    present = labels * tf.square(tf.nn.relu(upper - lengths))
    absent = (1.0 - labels) * tf.square(tf.nn.relu(lengths - lower))
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
        return tf.reduce_mean(tf.reduce_sum(terms, 1))
    return 0.5 * tf.reduce_mean(terms)


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
    square = tf.square(reconstruction - image)
    return weight * tf.reduce_mean(tf.reduce_sum(tf.reshape(square, [square.shape[0], -1]), 1))


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


class CapsNet(NamedModule):
    """The whole network: convolution, primary capsules, class capsules, decoder, losses.

    Args:
        settings: the configuration.
        seed: draws the initial weights, bit-equal to the port's from the same seed.
        dtype: of the variables.

    Source: CapsNet paper, section 4; official `capsule_model.py: CapsuleModel`.
    """

    def __init__(self, settings: Settings, seed: int = 0, dtype: tf.DType = tf.float32) -> None:
        super().__init__("", dtype)
        self.settings = settings
        rng = np.random.default_rng(seed)
        self.conv1 = Convolution("conv1", settings.channels, settings.conv1_channels, settings.kernel,
                                 settings.conv1_stride, settings.initial, rng, dtype)
        self.primary = PrimaryCapsules("conv_capsule1", settings.conv1_channels, settings, rng, dtype)
        self.classes = RoutingCapsules("capsule2", settings.children, settings.primary_atoms,
                                       settings.classes, settings.class_atoms, settings, rng, dtype)
        self.decoder = CapsuleDecoder(
            "recons", settings.classes * settings.class_atoms, settings.decoder,
            settings.pixels, settings.initial, rng, dtype) if settings.decoder else None

    def encode(self, image: Array) -> Array:
        """Class capsules `[batch, class, atom]` of images `[batch, S, S, C]` in [0, 1]."""
        features = tf.nn.relu(self.conv1(image))
        return self.classes(flatten_grid(self.primary(features)))

    def decode(self, capsules: Array, keep: Array) -> Array:
        """Images `[batch, S, S, C]` from the one capsule `keep` of each example.

        The decoder's numbers are in the official program's order, channel by channel.
        """
        side, channels = self.settings.canvas, self.settings.channels
        flat = self.decoder(mask_capsules(capsules, keep))
        return tf.transpose(tf.reshape(flat, [flat.shape[0], channels, side, side]), [0, 2, 3, 1])

    def __call__(self, image: Array, label: tf.Tensor | None = None, noise: None = None,
                 mask: str = "label") -> Result:
        """One forward pass.

        Args:
            image: `[batch, S, S, C]` in [0, 1].
            label: integers `[batch]`; without them the margin loss is absent.
            noise: there is none; the training loop hands it to every model.
            mask: which capsule is decoded: that of the `label` (training), or the longest by `length`,
                which is also taken without labels.
        """
        settings = self.settings
        capsules = self.encode(image)
        lengths = capsule_lengths(capsules)
        longest = tf.argmax(lengths, 1)
        loss, scalars, reconstruction = tf.zeros([], self.dtype), {}, None
        if label is not None:
            labels = tf.one_hot(label, settings.classes, dtype=self.dtype)
            scalars["margin_loss"] = margin_loss(lengths, labels, settings.margin)
            correct = tf.cast(tf.equal(longest, tf.cast(label, longest.dtype)), self.dtype)
            scalars["accuracy"] = tf.reduce_mean(correct)
            if settings.reconstruction == "joint":
                loss += scalars["margin_loss"]
        if self.decoder is not None:
            frozen = settings.reconstruction == "frozen"
            keep = longest if label is None or mask == "length" else label
            reconstruction = self.decode(tf.stop_gradient(capsules) if frozen else capsules, keep)
            scalars["reconstruction_loss"] = reconstruction_loss(
                image, reconstruction, settings.reconstruction_weight)
            loss += scalars["reconstruction_loss"]
        return Result(loss, scalars, capsules, lengths, reconstruction)
