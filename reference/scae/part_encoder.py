"""Part capsule encoder of the original's `primary.py: CapsuleImageEncoder`, in TensorFlow 2.

Read beside `port/scae/part_encoder.py`: same names, same order; images are channels last here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import layers, ops
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]


class PartCapsules(NamedTuple):
    """Parts of a batch: pose `[B, K, 6]`, presence `[B, K]`, its logit, feature `[B, K, F]`."""

    pose: Array
    presence: Array
    presence_logit: Array
    feature: Array | None


def attention_pool(feature_map: Float[tf.Tensor, "batch h w maps"], n_caps: int, n_dims: int,
                   pooling: str = "faithful") -> tuple[Array, Array, Array, Array]:
    """Weighted mean over the positions, one attention map per column of the pooled array.

    Args:
        feature_map: `[B, h, w, D·K + K]`; channel d·K + k is dimension d of map k, the last K are
            attention logits.
        n_caps: K.
        n_dims: D.
        pooling: `faithful` reshapes the pooled `[B, D, K]` to `[B, K, D]` without transposing (Q02);
            `transposed` gives every capsule its own map.

    Returns:
        features `[B, hw, D, K]`, weights `[B, hw, K]` (softmax over hw), pooled `[B, D, K]` and the
        capsule parameters `[B, K, D]`.

    Source: original `primary.py: CapsuleImageEncoder._build` (`encoder_type='conv_att'`).
    """
    batch, height, width, _ = feature_map.shape
    flat = tf.reshape(feature_map, [batch, height * width, n_dims * n_caps + n_caps])
    features = tf.reshape(flat[..., :n_dims * n_caps], [batch, height * width, n_dims, n_caps])
    weights = tf.nn.softmax(flat[..., n_dims * n_caps:], 1)
    pooled = tf.reduce_sum(features * weights[:, :, None, :], 1)
    if pooling == "transposed":
        return features, weights, pooled, tf.transpose(pooled, [0, 2, 1])
    return features, weights, pooled, tf.reshape(pooled, [batch, n_caps, n_dims])


class PartEncoder(NamedModule):
    """Image to part capsules: CNN, spatial bias, head, pooling, pose and noisy presence.

    Args:
        scope: scope of the head (`capsule_image_encoder`); the CNN's is `cnn_scope`.
        canvas_size: side of the image in pixels.
        n_channels: channels of the image.
        cnn: the argument section `cnn`.
        settings: the argument section `part_encoder`.
        rng: draws the weights.
        pooling: see `attention_pool`.
        cnn_scope: scope of the CNN.
        dtype: of the variables.

    Source: original `primary.py: CapsuleImageEncoder`; paper section 2.1.
    """

    def __init__(self, scope: str, canvas_size: int, n_channels: int, cnn: Mapping[str, Any],
                 settings: Mapping[str, Any], rng: np.random.Generator, pooling: str = "faithful",
                 cnn_scope: str = "conv_net_2d", dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        self.n_caps, self.n_features = settings["n_caps"], settings["n_features"]
        self.n_dims = settings["n_caps_dims"] + self.n_features + 1
        self.encoder_type = settings["encoder_type"]
        self.similarity = settings["similarity_transform"]
        self.noise_scale, self.pooling = settings["noise_scale"], pooling
        self.cnn = layers.ConvEncoder(cnn_scope, n_channels, cnn["output_channels"],
                                      cnn["kernel_shapes"], cnn["strides"], cnn["activate_final"],
                                      rng, dtype, cnn.get("residual_blocks", 0))
        side = canvas_size
        for conv in self.cnn.conv:
            side = (side - conv.w.shape[0]) // conv.stride + 1
        width = cnn["output_channels"][-1]
        n_outputs = self.n_caps * self.n_dims
        if self.encoder_type == "linear":
            self.linear = layers.Linear(f"{scope}/linear", side * side * width, n_outputs, rng, dtype)
        else:
            self.spatial_bias = self.add_variable("add/b", np.zeros((side, side, width), np.float32))
            n_outputs += self.n_caps * (self.encoder_type == "conv_att")
            self.conv = layers.Conv2D(f"{scope}/conv_2d", width, n_outputs, 1, 1, rng, dtype)

    def __call__(self, image: Array, noise: Array | None = None, taps: dict | None = None
                 ) -> PartCapsules:
        """Encode.

        Args:
            image: `[B, S, S, C]` in [0, 1].
            noise: raw uniforms `[B, K]` in [0, 1); (raw - ½)·scale is added to the presence logit.
            taps: receives the intermediates.
        """
        taps = {} if taps is None else taps
        embedding, steps = self.cnn(image)
        for name, before, after in steps:
            taps[f"part_enc/{name}_preact"], taps[f"part_enc/{name}"] = before, after
        taps["part_enc/img_embedding"] = embedding
        shape = [image.shape[0], self.n_caps, self.n_dims]
        if self.encoder_type == "linear":
            taps["part_enc/linear"] = flat = self.linear(tf.reshape(embedding, [image.shape[0], -1]))
            params = tf.reshape(flat, shape)
        else:
            taps["part_enc/embedding_plus_bias"] = biased = embedding + self.spatial_bias
            taps["part_enc/conv1x1"] = feature_map = self.conv(biased)
            if self.encoder_type == "conv":
                taps["part_enc/spatial_mean"] = mean = tf.reduce_mean(feature_map, (1, 2))
                params = tf.reshape(mean, shape)
            else:
                features, weights, pooled, params = attention_pool(
                    feature_map, self.n_caps, self.n_dims, self.pooling)
                taps["part_enc/att_features"], taps["part_enc/att_weights"] = features, weights
                taps["part_enc/att_pooled"] = pooled
        taps["part_enc/caps_params"] = params
        pose_raw, feature, logit = tf.split(
            params, [self.n_dims - self.n_features - 1, self.n_features, 1], -1)
        taps["part_enc/pose_raw"] = pose_raw
        logit = tf.squeeze(logit, -1)
        taps["part_enc/pres_logit_pre_noise"] = logit
        if noise is not None:
            logit = logit + (tf.cast(noise, logit.dtype) - 0.5) * self.noise_scale
        taps["part_enc/pres_logit"] = logit
        taps["part_enc/presence"] = presence = tf.nn.sigmoid(logit)
        taps["part_enc/pose"] = pose = ops.geometric_transform(pose_raw, self.similarity)
        if not self.n_features:
            return PartCapsules(pose, presence, logit, None)
        taps["part_enc/feature"] = feature
        return PartCapsules(pose, presence, logit, feature)
