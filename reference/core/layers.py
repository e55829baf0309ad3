"""Sonnet's layers and the original's per-capsule layers, re-made in TensorFlow 2.

Read beside `port/core/layers.py`: same classes, same order; images are channels last here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import initializers
from reference.core.module import NamedModule, join

Array = Float[tf.Tensor, "..."]


class Linear(NamedModule):
    """y = x W + b on the last axis; W truncated normal 1/sqrt(fan_in), b zero.

    Args:
        scope: holds `w` [in, out] and `b` [out].
        in_features: size of the last axis.
        out_features: size of the result's last axis.
        rng: draws W.
        dtype: of the variables.

    Source: `snt.Linear` with the original's initializers.
    """

    def __init__(self, scope: str, in_features: int, out_features: int, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.w = self.add_variable("w", initializers.truncated_normal(
            rng, (in_features, out_features), in_features ** -0.5))
        self.b = self.add_variable("b", np.zeros(out_features, np.float32))

    def __call__(self, x: Array) -> Array:
        return tf.tensordot(x, self.w, 1) + self.b


class Conv2D(NamedModule):
    """Square convolution, stride s, with bias; without padding by default.

    Args:
        scope: holds `w` [k, k, in, out] and `b` [out].
        in_channels: channels of the image.
        out_channels: channels of the result.
        kernel_size: k.
        stride: s.
        rng: draws w (truncated normal, 1/sqrt(k·k·in)).
        dtype: of the variables.
        padding: `VALID`, or `SAME` for zeros around the image (odd k and stride 1 only).

    Source: `snt.Conv2D` with `padding='VALID'`.
    """

    def __init__(self, scope: str, in_channels: int, out_channels: int, kernel_size: int, stride: int,
                 rng: np.random.Generator, dtype: tf.DType = tf.float32, padding: str = "VALID") -> None:
        super().__init__(scope, dtype)
        self.stride, self.padding = stride, padding
        self.w = self.add_variable("w", initializers.truncated_normal(
            rng, (kernel_size, kernel_size, in_channels, out_channels),
            (kernel_size * kernel_size * in_channels) ** -0.5))
        self.b = self.add_variable("b", np.zeros(out_channels, np.float32))

    def __call__(self, image: Array) -> Array:
        return tf.nn.conv2d(image, self.w, self.stride, self.padding) + self.b


class LayerNorm(NamedModule):
    """(x - mean) / sqrt(var + 1e-5) · gamma + beta over the last axis, biased variance.

    Args:
        scope: holds `gamma` [d] and `beta` [d].
        n_features: d.
        dtype: of the variables.

    Source: `snt.LayerNorm`.
    """

    def __init__(self, scope: str, n_features: int, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.gamma = self.add_variable("gamma", np.ones(n_features, np.float32))
        self.beta = self.add_variable("beta", np.zeros(n_features, np.float32))

    def __call__(self, x: Array) -> Array:
        mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, self.beta, self.gamma, 1e-5)


class MLP(NamedModule):
    """Linear layers with ReLU between them; the last one is linear.

    Args:
        scope: holds `linear_0`, `linear_1`, ….
        in_features: size of the last axis.
        n_hiddens: output size of each layer, the last included.
        rng: draws the weights.
        dtype: of the variables.

    Source: `snt.nets.MLP` (`activate_final=False`).
    """

    def __init__(self, scope: str, in_features: int, n_hiddens: Sequence[int],
                 rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        sizes = [in_features, *n_hiddens]
        self.linear = [Linear(join(scope, f"linear_{i}"), sizes[i], sizes[i + 1], rng, dtype)
                       for i in range(len(n_hiddens))]

    def __call__(self, x: Array) -> Array:
        for layer in self.linear[:-1]:
            x = tf.nn.relu(layer(x))
        return self.linear[-1](x)


class ResidualBlock(NamedModule):
    """y = x + conv(relu(conv(x))), both 3x3 with zeros around the image; size and channels stay.

    Args:
        scope: holds `conv_2d` and `conv_2d_1`.
        channels: of the image and the result.
        rng: draws the weights.
        dtype: of the variables.

    Source: ours; He et al. 2015 (Deep residual learning), without normalisation and without the last ReLU.
    """

    def __init__(self, scope: str, channels: int, rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.conv = [Conv2D(join(scope, name), channels, channels, 3, 1, rng, dtype, "SAME")
                     for name in ("conv_2d", "conv_2d_1")]

    def __call__(self, image: Array) -> tuple[Array, Array]:
        hidden = self.conv[0](image)
        return image + self.conv[1](tf.nn.relu(hidden)), hidden


class ConvEncoder(NamedModule):
    """Convolutions with a ReLU after every one, the last included; residual blocks where asked for.

    Args:
        scope: holds `conv_2d_0`, `conv_2d_1`, …; `residual`, `residual_1`, ….
        in_channels: channels of the image.
        output_channels: channels after each convolution.
        kernel_shapes: kernel size of each; a single one serves all.
        strides: stride of each.
        activate_final: ReLU after the last too.
        rng: draws the weights.
        dtype: of the variables.
        residual_blocks: blocks after each convolution's ReLU, with a ReLU after each (ours).

    Source: `snt.nets.ConvNet2D` in the original's `configs/model_config.py`.
    """

    def __init__(self, scope: str, in_channels: int, output_channels: Sequence[int],
                 kernel_shapes: Sequence[int], strides: Sequence[int], activate_final: bool,
                 rng: np.random.Generator, dtype: tf.DType = tf.float32,
                 residual_blocks: int = 0) -> None:
        super().__init__(scope, dtype)
        n_layers = len(output_channels)
        kernels = list(kernel_shapes) * (n_layers if len(kernel_shapes) == 1 else 1)
        steps = list(strides) * (n_layers if len(strides) == 1 else 1)
        channels = [in_channels, *output_channels]
        self.activate_final = activate_final
        self.conv = [Conv2D(join(scope, f"conv_2d_{i}"), channels[i], channels[i + 1], kernels[i],
                            steps[i], rng, dtype) for i in range(n_layers)]
        self.residual = [ResidualBlock(join(scope, f"residual{f'_{j}' if j else ''}"),
                                       channels[j // residual_blocks + 1], rng, dtype)
                         for j in range(n_layers * residual_blocks)]

    def __call__(self, image: Array) -> tuple[Array, list[tuple[str, Array, Array]]]:
        steps, blocks = [], len(self.residual) // len(self.conv)
        for i, conv in enumerate(self.conv):
            before = conv(image)
            active = self.activate_final or i < len(self.conv) - 1
            image = tf.nn.relu(before) if active else before
            steps.append((f"conv{i}", before, image))
            for j in range(i * blocks, (i + 1) * blocks):
                before, hidden = self.residual[j](image)
                image = tf.nn.relu(before) if active else before
                steps += [(f"residual{j}_hidden", hidden, tf.nn.relu(hidden)),
                          (f"residual{j}", before, image)]
        return image, steps


class BatchLinear(NamedModule):
    """One linear layer per capsule: y[b, o] = x[b, o] W[o] + bias[o].

    Args:
        scope: holds `weights` [1, O, in, out] and `add/b` [O, out].
        n_caps: O.
        in_features: size of the last axis.
        out_features: size of the result's last axis.
        use_bias: have `add/b`.
        rng: draws the weights (truncated normal, 1/sqrt(in)).
        dtype: of the variables.

    Source: original `neural.BatchLinear`; paper section 2.2.
    """

    def __init__(self, scope: str, n_caps: int, in_features: int, out_features: int, use_bias: bool,
                 rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.weights = self.add_variable("weights", initializers.truncated_normal(
            rng, (1, n_caps, in_features, out_features), in_features ** -0.5))
        self.bias = self.add_variable(
            "add/b", np.zeros((n_caps, out_features), np.float32)) if use_bias else None

    def __call__(self, x: Array) -> Array:
        y = tf.transpose(tf.matmul(tf.transpose(x, [1, 0, 2]), self.weights[0]), [1, 0, 2])
        return y if self.bias is None else y + self.bias


class BatchMLP(NamedModule):
    """One MLP per capsule: ReLU between the layers, the last linear.

    Args:
        scope: holds `batch_linear`, `batch_linear_1`, ….
        n_caps: O.
        in_features: size of the last axis.
        n_hiddens: output size of each layer, the last included.
        use_bias: bias of the last layer; hidden layers always have one (Q20).
        rng: draws the weights.
        dtype: of the variables.

    Source: original `neural.BatchMLP`.
    """

    def __init__(self, scope: str, n_caps: int, in_features: int, n_hiddens: Sequence[int],
                 use_bias: bool, rng: np.random.Generator, dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        sizes = [in_features, *n_hiddens]
        self.batch_linear = [
            BatchLinear(join(scope, "batch_linear" + (f"_{i}" if i else "")), n_caps, sizes[i],
                        sizes[i + 1], use_bias or i < len(n_hiddens) - 1, rng, dtype)
            for i in range(len(n_hiddens))]

    def __call__(self, x: Array) -> Array:
        for layer in self.batch_linear[:-1]:
            x = tf.nn.relu(layer(x))
        return self.batch_linear[-1](x)
