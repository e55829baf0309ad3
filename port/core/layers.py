"""Sonnet's layers and the original's per-capsule layers, as PyTorch modules.

Read beside `reference/core/layers.py`: same classes, same order; images are channels first here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from port.core import initializers
from port.core.parameters import parameter

Array = Float[Tensor, "..."]


class Linear(nn.Module):
    """y = x Wᵀ + b on the last axis; W truncated normal 1/sqrt(fan_in), b zero.

    Args:
        in_features: size of the last axis.
        out_features: size of the result's last axis.
        rng: draws W, in the original's [in, out] order; `weight` is [out, in].

    Source: `snt.Linear` with the original's initializers.
    """

    def __init__(self, in_features: int, out_features: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.weight = parameter(initializers.truncated_normal(
            rng, (in_features, out_features), in_features ** -0.5).T)
        self.bias = parameter(np.zeros(out_features, np.float32))

    def forward(self, x: Array) -> Array:
        return F.linear(x, self.weight, self.bias)


class Conv2D(nn.Module):
    """Square convolution, stride s, with bias; without padding by default.

    Args:
        in_channels: channels of the image.
        out_channels: channels of the result.
        kernel_size: k.
        stride: s.
        rng: draws the weight (truncated normal, 1/sqrt(k·k·in)) in the original's HWIO order;
            `weight` is OIHW.
        padding: `VALID`, or `SAME` for zeros around the image (odd k and stride 1 only).

    Source: `snt.Conv2D` with `padding='VALID'`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int,
                 rng: np.random.Generator, padding: str = "VALID") -> None:
        super().__init__()
        self.stride = stride
        self.padding = kernel_size // 2 if padding == "SAME" else 0
        self.weight = parameter(initializers.truncated_normal(
            rng, (kernel_size, kernel_size, in_channels, out_channels),
            (kernel_size * kernel_size * in_channels) ** -0.5).transpose(3, 2, 0, 1))
        self.bias = parameter(np.zeros(out_channels, np.float32))

    def forward(self, image: Array) -> Array:
        return F.conv2d(image, self.weight, self.bias, self.stride, self.padding)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(var + 1e-5) · weight + bias over the last axis, biased variance.

    Args:
        n_features: d; `weight` and `bias` are [d] (the original's gamma and beta).

    Source: `snt.LayerNorm`.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.weight = parameter(np.ones(n_features, np.float32))
        self.bias = parameter(np.zeros(n_features, np.float32))

    def forward(self, x: Array) -> Array:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class MLP(nn.Module):
    """Linear layers with ReLU between them; the last one is linear.

    Args:
        in_features: size of the last axis.
        n_hiddens: output size of each layer, the last included.
        rng: draws the weights.

    Source: `snt.nets.MLP` (`activate_final=False`).
    """

    def __init__(self, in_features: int, n_hiddens: Sequence[int], rng: np.random.Generator) -> None:
        super().__init__()
        sizes = [in_features, *n_hiddens]
        self.linear = nn.ModuleList(
            Linear(sizes[i], sizes[i + 1], rng) for i in range(len(n_hiddens)))

    def forward(self, x: Array) -> Array:
        for layer in self.linear[:-1]:
            x = F.relu(layer(x))
        return self.linear[-1](x)


class ResidualBlock(nn.Module):
    """y = x + conv(relu(conv(x))), both 3x3 with zeros around the image; size and channels stay.

    Args:
        channels: of the image and the result.
        rng: draws the weights.

    Source: ours; He et al. 2015 (Deep residual learning), without normalisation and without the last ReLU.
    """

    def __init__(self, channels: int, rng: np.random.Generator) -> None:
        super().__init__()
        self.conv = nn.ModuleList(Conv2D(channels, channels, 3, 1, rng, "SAME") for _ in range(2))

    def forward(self, image: Array) -> tuple[Array, Array]:
        hidden = self.conv[0](image)
        return image + self.conv[1](F.relu(hidden)), hidden


class ConvEncoder(nn.Module):
    """Convolutions with a ReLU after every one, the last included; residual blocks where asked for.

    Args:
        in_channels: channels of the image.
        output_channels: channels after each convolution.
        kernel_shapes: kernel size of each; a single one serves all.
        strides: stride of each.
        activate_final: ReLU after the last too.
        rng: draws the weights.
        residual_blocks: blocks after each convolution's ReLU, with a ReLU after each (ours).

    Source: `snt.nets.ConvNet2D` in the original's `configs/model_config.py`.
    """

    def __init__(self, in_channels: int, output_channels: Sequence[int],
                 kernel_shapes: Sequence[int], strides: Sequence[int], activate_final: bool,
                 rng: np.random.Generator, residual_blocks: int = 0) -> None:
        super().__init__()
        n_layers = len(output_channels)
        kernels = list(kernel_shapes) * (n_layers if len(kernel_shapes) == 1 else 1)
        steps = list(strides) * (n_layers if len(strides) == 1 else 1)
        channels = [in_channels, *output_channels]
        self.activate_final = activate_final
        self.conv = nn.ModuleList(
            Conv2D(channels[i], channels[i + 1], kernels[i], steps[i], rng) for i in range(n_layers))
        self.residual = nn.ModuleList(ResidualBlock(channels[i + 1], rng) for i in range(n_layers)
                                      for _ in range(residual_blocks))

    def forward(self, image: Array) -> tuple[Array, list[tuple[str, Array, Array]]]:
        steps, blocks = [], len(self.residual) // len(self.conv)
        for i, conv in enumerate(self.conv):
            before = conv(image)
            active = self.activate_final or i < len(self.conv) - 1
            image = F.relu(before) if active else before
            steps.append((f"conv{i}", before, image))
            for j in range(i * blocks, (i + 1) * blocks):
                before, hidden = self.residual[j](image)
                image = F.relu(before) if active else before
                steps += [(f"residual{j}_hidden", hidden, F.relu(hidden)), (f"residual{j}", before, image)]
        return image, steps


class BatchLinear(nn.Module):
    """One linear layer per capsule: y[b, o] = x[b, o] W[o] + bias[o].

    Args:
        n_caps: O.
        in_features: size of the last axis.
        out_features: size of the result's last axis.
        use_bias: have `bias` [O, out]; `weight` is [1, O, in, out] as in the original.
        rng: draws the weights (truncated normal, 1/sqrt(in)).

    Source: original `neural.BatchLinear`; paper section 2.2.
    """

    def __init__(self, n_caps: int, in_features: int, out_features: int, use_bias: bool,
                 rng: np.random.Generator) -> None:
        super().__init__()
        self.weight = parameter(initializers.truncated_normal(
            rng, (1, n_caps, in_features, out_features), in_features ** -0.5))
        self.bias = parameter(np.zeros((n_caps, out_features), np.float32)) if use_bias else None

    def forward(self, x: Array) -> Array:
        y = torch.bmm(x.transpose(0, 1), self.weight[0]).transpose(0, 1)
        return y if self.bias is None else y + self.bias


class BatchMLP(nn.Module):
    """One MLP per capsule: ReLU between the layers, the last linear.

    Args:
        n_caps: O.
        in_features: size of the last axis.
        n_hiddens: output size of each layer, the last included.
        use_bias: bias of the last layer; hidden layers always have one (Q20).
        rng: draws the weights.

    Source: original `neural.BatchMLP`.
    """

    def __init__(self, n_caps: int, in_features: int, n_hiddens: Sequence[int], use_bias: bool,
                 rng: np.random.Generator) -> None:
        super().__init__()
        sizes = [in_features, *n_hiddens]
        self.batch_linear = nn.ModuleList(
            BatchLinear(n_caps, sizes[i], sizes[i + 1], use_bias or i < len(n_hiddens) - 1, rng)
            for i in range(len(n_hiddens)))

    def forward(self, x: Array) -> Array:
        for layer in self.batch_linear[:-1]:
            x = F.relu(layer(x))
        return self.batch_linear[-1](x)
