"""Part capsule encoder of the original's `primary.py: CapsuleImageEncoder`, in PyTorch.

Read beside `reference/scae/part_encoder.py`: same names, same order; images are channels first here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import layers, ops
from port.core.parameters import parameter
from port.core.taps import CHANNELS_LAST, SILENT, Recorder
from port.scae import config as configuration

Array = Float[Tensor, "..."]


class PartCapsules(NamedTuple):
    """Parts of a batch: pose `[B, K, 6]`, presence `[B, K]`, its logit, feature `[B, K, F]`."""

    pose: Array
    presence: Array
    presence_logit: Array
    feature: Array | None


def attention_pool(feature_map: Float[Tensor, "batch maps h w"], n_caps: int, n_dims: int,
                   pooling: str = "faithful") -> tuple[Array, Array, Array, Array]:
    """Weighted mean over the positions, one attention map per column of the pooled array.

    Args:
        feature_map: `[B, D·K + K, h, w]`; channel d·K + k is dimension d of map k, the last K are
            attention logits.
        n_caps: K.
        n_dims: D.
        pooling: `faithful` reshapes the pooled `[B, D, K]` to `[B, K, D]` without transposing (Q02);
            `transposed` gives every capsule its own map.

    Returns:
        features `[B, D, K, hw]`, weights `[B, K, hw]` (softmax over hw), pooled `[B, D, K]` and the
        capsule parameters `[B, K, D]`.

    Source: original `primary.py: CapsuleImageEncoder._build` (`encoder_type='conv_att'`).
    """
    flat = feature_map.flatten(2)
    batch, _, n_positions = flat.shape
    features = flat[:, :n_dims * n_caps].reshape(batch, n_dims, n_caps, n_positions)
    weights = torch.softmax(flat[:, n_dims * n_caps:], 2)
    pooled = torch.sum(features * weights[:, None], 3)
    if pooling == "transposed":
        return features, weights, pooled, pooled.mT
    return features, weights, pooled, pooled.reshape(batch, n_caps, n_dims)


class PartEncoder(nn.Module):
    """Image to part capsules: CNN, spatial bias, head, pooling, pose and noisy presence.

    Args:
        canvas_size: side of the image in pixels.
        n_channels: channels of the image.
        cnn: the configuration section `cnn`.
        settings: the configuration section `part_encoder`.
        rng: draws the weights.
        pooling: see `attention_pool`.

    Source: original `primary.py: CapsuleImageEncoder`; paper section 2.1.
    """

    def __init__(self, canvas_size: int, n_channels: int, cnn: configuration.CNN,
                 settings: configuration.PartEncoder, rng: np.random.Generator,
                 pooling: str = "faithful") -> None:
        super().__init__()
        self.n_caps, self.n_features = settings.n_caps, settings.n_features
        self.n_dims = settings.n_caps_dims + self.n_features + 1
        self.encoder_type = settings.encoder_type
        self.similarity = settings.similarity_transform
        self.noise_scale, self.pooling = settings.noise_scale, pooling
        self.cnn = layers.ConvEncoder(n_channels, cnn.output_channels, cnn.kernel_shapes, cnn.strides,
                                      cnn.activate_final, rng, cnn.residual_blocks)
        side = cnn.output_side(canvas_size)
        width = cnn.output_channels[-1]
        n_outputs = self.n_caps * self.n_dims
        if self.encoder_type == "linear":
            self.linear = layers.Linear(side * side * width, n_outputs, rng)
        else:
            self.spatial_bias = parameter(np.zeros((width, side, side), np.float32))
            n_outputs += self.n_caps * (self.encoder_type == "conv_att")
            self.conv = layers.Conv2D(width, n_outputs, 1, 1, rng)

    def forward(self, image: Array, noise: Array | None = None, taps: Recorder = SILENT) -> PartCapsules:
        """Encode.

        Args:
            image: `[B, C, S, S]` in [0, 1].
            noise: raw uniforms `[B, K]` in [0, 1); (raw - ½)·scale is added to the presence logit.
            taps: receives the intermediates.
        """
        return self.capsules(self.parameters_of(image, taps), noise, taps)

    def parameters_of(self, image: Array, taps: Recorder = SILENT) -> Array:
        """Parameters of every part capsule `[B, K, D]`, before any noise: all that the CNN is run for."""
        embedding, steps = self.cnn(image)
        for name, before, after in steps:
            taps.record(f"part_enc/{name}_preact", before, CHANNELS_LAST)
            taps.record(f"part_enc/{name}", after, CHANNELS_LAST)
        taps.record("part_enc/img_embedding", embedding, CHANNELS_LAST)
        shape = (image.shape[0], self.n_caps, self.n_dims)
        if self.encoder_type == "linear":
            # The original flattens channels last.
            flat = self.linear(embedding.permute(0, 2, 3, 1).flatten(1))
            taps.record("part_enc/linear", flat)
            params = flat.reshape(shape)
        else:
            biased = embedding + self.spatial_bias
            taps.record("part_enc/embedding_plus_bias", biased, CHANNELS_LAST)
            feature_map = self.conv(biased)
            taps.record("part_enc/conv1x1", feature_map, CHANNELS_LAST)
            if self.encoder_type == "conv":
                mean = torch.mean(feature_map, (2, 3))
                taps.record("part_enc/spatial_mean", mean)
                params = mean.reshape(shape)
            else:
                features, weights, pooled, params = attention_pool(
                    feature_map, self.n_caps, self.n_dims, self.pooling)
                taps.record("part_enc/att_features", features, (0, 3, 1, 2))
                taps.record("part_enc/att_weights", weights, (0, 2, 1))
                taps.record("part_enc/att_pooled", pooled)
        taps.record("part_enc/caps_params", params)
        return params

    def capsules(self, params: Array, noise: Array | None = None, taps: Recorder = SILENT) -> PartCapsules:
        """Part capsules of what `parameters_of` gives, with the noise of `forward`."""
        pose_raw, feature, logit = params.split(
            [self.n_dims - self.n_features - 1, self.n_features, 1], -1)
        taps.record("part_enc/pose_raw", pose_raw)
        logit = logit.squeeze(-1)
        taps.record("part_enc/pres_logit_pre_noise", logit)
        if noise is not None:
            logit = logit + (noise.to(logit.dtype) - 0.5) * self.noise_scale
        presence = torch.sigmoid(logit)
        pose = ops.geometric_transform(pose_raw, self.similarity)
        taps.record("part_enc/pres_logit", logit)
        taps.record("part_enc/presence", presence)
        taps.record("part_enc/pose", pose)
        if not self.n_features:
            return PartCapsules(pose, presence, logit, None)
        taps.record("part_enc/feature", feature)
        return PartCapsules(pose, presence, logit, feature)
