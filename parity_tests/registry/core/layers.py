"""Rows of `core/layers.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.core.drawing import plain
from parity_tests.registry.row import OpCase


def _linear(m: Maker) -> Case:
    *batch, before, after = m.sizes(m.size(3, 4))
    return m.case({"in_features": before, "out_features": after}, terms=before,
                  x=m.normal(*batch, before))


def _conv(m: Maker) -> Case:
    batch, channels, out = m.sizes(3, 2, 4)
    kernel, stride = m.choice([1, 2, 3]), m.choice([1, 2])
    height, width = (kernel + extra for extra in m.sizes(2, 2, 6))
    same = kernel == 3 and stride == 1 and m.flag()
    return m.case({"in_channels": channels, "out_channels": out, "kernel_size": kernel,
                   "stride": stride, "padding": "SAME" if same else "VALID"}, terms=channels * kernel**2,
                  image=m.normal(batch, height, width, channels))


def _layer_norm(m: Maker) -> Case:
    *batch, features = m.sizes(m.size(2, 3), 2, 7)
    features = max(features, 3)  # fewer are normalised to 0 or ±1: see the special case
    return m.case({"n_features": features}, terms=features, x=m.normal(*batch, features))


def _mlp(m: Maker) -> Case:
    batch, before, *hiddens = m.sizes(m.size(3, 5))
    return m.case({"in_features": before, "n_hiddens": hiddens}, terms=max(before, *hiddens),
                  x=m.normal(batch, before))


def _conv_encoder(m: Maker) -> Case:
    batch, channels = m.sizes(2, 2, 3)
    n_layers = m.size(1, 3)
    out = m.sizes(n_layers, 2, 6)
    kernels = m.choice([[3], [2] * n_layers, [1 + i % 3 for i in range(n_layers)]])
    strides = m.choice([[1], [2, 1, 1][:n_layers], [1, 2, 1][:n_layers]])
    height, width = (16 + extra for extra in m.sizes(2, 2, 5))
    return m.case({"in_channels": channels, "output_channels": out, "kernel_shapes": kernels,
                   "strides": strides, "activate_final": m.flag(),
                   "residual_blocks": m.choice([0, 0, 1, 2])}, terms=9 * max(out),
                  image=m.normal(batch, height, width, channels))


def _residual_block(m: Maker) -> Case:
    batch, channels, height, width = m.sizes(4, 1, 5)
    return m.case({"channels": channels}, terms=9 * channels,
                  image=m.normal(batch, height, width, channels))


def _batch_linear(m: Maker) -> Case:
    batch, caps, before, after = m.sizes(4)
    return m.case({"n_caps": caps, "in_features": before, "out_features": after,
                   "use_bias": m.flag()}, terms=before, x=m.normal(batch, caps, before))


def _batch_mlp(m: Maker) -> Case:
    batch, caps, before, *hiddens = m.sizes(m.size(4, 6))
    return m.case({"n_caps": caps, "in_features": before, "n_hiddens": hiddens,
                   "use_bias": m.flag()}, terms=max(before, *hiddens), x=m.normal(batch, caps, before))


ROWS = (
    OpCase("core.layers.Linear", plain("core.layers.Linear"), _linear, oracle=True),
    OpCase("core.layers.Conv2D", plain("core.layers.Conv2D", layouts={"image": 1, "out": 1}), _conv, oracle=True),
    OpCase("core.layers.LayerNorm", plain("core.layers.LayerNorm"), _layer_norm, (
        ("constant rows", Case({"x": np.array([[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])},
                               {"n_features": 3})),), oracle=True),
    OpCase("core.layers.MLP", plain("core.layers.MLP"), _mlp, oracle=True),
    OpCase("core.layers.ResidualBlock", plain("core.layers.ResidualBlock", outputs=("out", "hidden"), layouts={
        "image": 1, "out": 1, "hidden": 1}), _residual_block, oracle=True),
    OpCase("core.layers.ConvEncoder", plain("core.layers.ConvEncoder", layouts={"image": 1, "out": 1}),
           _conv_encoder, oracle=True),
    OpCase("core.layers.BatchLinear", plain("core.layers.BatchLinear"), _batch_linear, oracle=True),
    OpCase("core.layers.BatchMLP", plain("core.layers.BatchMLP"), _batch_mlp, oracle=True),
)
