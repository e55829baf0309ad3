"""Oracles of the layers: linear, convolution, layer norm, and their per-capsule versions."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.scalars import as64, sub_scope

Variables = Mapping[str, np.ndarray]


def relu(x) -> np.ndarray:
    """max(x, 0), elementwise.

    Source: tf.nn.relu.
    """
    x = as64(x)
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = scalars.relu(float(x[index]))
    return out


def _vector_times_matrix(vector: list, matrix: list, bias: list | None) -> list[float]:
    """out[j] = sum_i vector[i] matrix[i][j] + bias[j]."""
    out = []
    for j in range(len(matrix[0])):
        total = 0.0
        for i in range(len(vector)):
            total += vector[i] * matrix[i][j]
        out.append(total if bias is None else total + bias[j])
    return out


def linear(x, variables: Variables) -> np.ndarray:
    """x w + b over the last axis.

    Args: x [..., in]; variables w [in, out] and, where there is one, b [out]. Returns [..., out].
    Source: Sonnet Linear (with BatchApply for more axes).
    """
    x = as64(x)
    weight = as64(variables["w"]).tolist()
    bias = as64(variables["b"]).tolist() if "b" in variables else None
    out = np.zeros((*x.shape[:-1], len(weight[0])))
    for index in np.ndindex(x.shape[:-1]):
        out[index] = _vector_times_matrix(x[index].tolist(), weight, bias)
    return out


def conv_2d(x, variables: Variables, stride: int = 1, padding: str = "VALID") -> np.ndarray:
    """Convolution without padding: out[i, j, o] = sum x[s i + u, s j + v, c] w[u, v, c, o] + b[o].

    Args: x [B, H, W, C]; variables w [kh, kw, C, O], b [O]; padding SAME (odd kernels, stride 1) puts
    zeros around the image.
    Returns [B, (H - kh) // s + 1, (W - kw) // s + 1, O].
    Source: Sonnet Conv2D, padding VALID.
    """
    x = as64(x)
    if padding == "SAME":
        x = _zeros_around(x, as64(variables["w"]).shape[0] // 2)
    weight = as64(variables["w"])
    kernel_height, kernel_width, n_in, n_out = weight.shape
    weight = weight.tolist()
    bias = as64(variables["b"]).tolist() if "b" in variables else [0.0] * n_out
    n_images, height, width, _ = x.shape
    out_height = (height - kernel_height) // stride + 1
    out_width = (width - kernel_width) // stride + 1
    out = np.zeros((n_images, out_height, out_width, n_out))
    for b in range(n_images):
        image = x[b].tolist()
        for i in range(out_height):
            for j in range(out_width):
                total = [0.0] * n_out
                for u in range(kernel_height):
                    for v in range(kernel_width):
                        pixel = image[stride * i + u][stride * j + v]
                        for c in range(n_in):
                            value, row = pixel[c], weight[u][v][c]
                            for o in range(n_out):
                                total[o] += value * row[o]
                for o in range(n_out):
                    out[b, i, j, o] = total[o] + bias[o]
    return out


def _zeros_around(x: np.ndarray, n: int) -> np.ndarray:
    """x [B, H, W, C] with n rows and columns of zeros on every side."""
    out = np.zeros((x.shape[0], x.shape[1] + 2 * n, x.shape[2] + 2 * n, x.shape[3]))
    for b, i, j, c in np.ndindex(x.shape):
        out[b, i + n, j + n, c] = x[b, i, j, c]
    return out


def residual_block(x, variables: Variables) -> tuple[np.ndarray, np.ndarray]:
    """x + conv(relu(conv(x))), 3x3 with zeros around, and the first convolution's output.

    Args: x [B, H, W, C]; variables conv_2d/w, conv_2d/b, conv_2d_1/w, conv_2d_1/b.
    Source: ours.
    """
    x = as64(x)
    hidden = conv_2d(x, sub_scope(variables, "conv_2d"), padding="SAME")
    added = conv_2d(relu(hidden), sub_scope(variables, "conv_2d_1"), padding="SAME")
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        out[index] = float(x[index]) + float(added[index])
    return out, hidden


def layer_norm(x, variables: Variables) -> np.ndarray:
    """gamma (x - mean) / sqrt(var + 1e-5) + beta over the last axis, var biased.

    Args: x [..., d]; variables gamma, beta [d].
    Source: Sonnet LayerNorm.
    """
    x = as64(x)
    gamma, beta = as64(variables["gamma"]), as64(variables["beta"])
    size = x.shape[-1]
    out = np.zeros(x.shape)
    for index in np.ndindex(x.shape[:-1]):
        row = x[index].tolist()
        mean = sum(row) / size
        variance = 0.0
        for value in row:
            variance += (value - mean) * (value - mean)
        variance /= size
        for i in range(size):
            centred = (row[i] - mean) / math.sqrt(variance + 1e-5)
            out[(*index, i)] = float(gamma[i]) * centred + float(beta[i])
    return out


def mlp(x, variables: Variables) -> np.ndarray:
    """Linear layers with ReLU between them, the last one linear.

    Args: x [..., in]; variables linear_0/w, linear_0/b, linear_1/w, ...
    Source: Sonnet nets.MLP, activate_final=False.
    """
    n_layers = len({name.split("/")[0] for name in variables})
    for i in range(n_layers):
        x = linear(x, sub_scope(variables, f"linear_{i}"))
        if i + 1 < n_layers:
            x = relu(x)
    return x


def conv_encoder(image, variables: Variables, strides: Sequence[int], residual_blocks: int = 0
                 ) -> np.ndarray:
    """A stack of VALID convolutions, ReLU after every one, the last included.

    Args: image [B, H, W, C]; variables conv_2d_0/w, conv_2d_0/b, ... and residual/..., residual_1/...;
    residual_blocks after each convolution (ours). Returns [B, h, w, D].
    Source: Sonnet nets.ConvNet2D with activate_final=True (configs/model_config.py).
    """
    return relu(conv_encoder_steps(image, variables, strides, residual_blocks)[-1][1])


def conv_encoder_steps(image, variables: Variables, strides, residual_blocks: int = 0
                       ) -> list[tuple[str, np.ndarray]]:
    """What comes before each ReLU, in order, by name: conv0, residual0_hidden, residual0, conv1, ...

    Args and source: see conv_encoder.
    """
    outputs, x, block = [], as64(image), 0
    for i, stride in enumerate(strides):
        outputs.append((f"conv{i}", conv_2d(x, sub_scope(variables, f"conv_2d_{i}"), stride)))
        x = relu(outputs[-1][1])
        for _ in range(residual_blocks):
            out, hidden = residual_block(x, sub_scope(variables, f"residual_{block}" if block
                                                      else "residual"))
            outputs += [(f"residual{block}_hidden", hidden), (f"residual{block}", out)]
            x, block = relu(out), block + 1
    return outputs


def batch_linear(x, variables: Variables) -> np.ndarray:
    """A matrix of its own for every capsule: out[b, o] = x[b, o] w[0, o] + bias[o].

    Args: x [B, O, in]; variables weights [1, O, in, out] and, where there is one, add/b [O, out].
    Returns [B, O, out].
    Source: neural.py, BatchLinear.
    """
    x = as64(x)
    weights = as64(variables["weights"])
    n_examples, n_caps = x.shape[:2]
    out = np.zeros((n_examples, n_caps, weights.shape[-1]))
    for o in range(n_caps):
        matrix = weights[0, o].tolist()
        bias = as64(variables["add/b"])[o].tolist() if "add/b" in variables else None
        for b in range(n_examples):
            out[b, o] = _vector_times_matrix(x[b, o].tolist(), matrix, bias)
    return out


def batch_mlp(x, variables: Variables) -> np.ndarray:
    """Per-capsule linear layers with ReLU between them, the last one linear.

    Args: x [B, O, in]; variables batch_linear/weights, batch_linear/add/b,
    batch_linear_1/weights, ... (a layer without add/b has no bias). Returns [B, O, out].
    Source: neural.py, BatchMLP.
    """
    n_layers = len({name.split("/")[0] for name in variables})
    for i in range(n_layers):
        scope = "batch_linear" if i == 0 else f"batch_linear_{i}"
        x = batch_linear(x, sub_scope(variables, scope))
        if i + 1 < n_layers:
            x = relu(x)
    return x
