"""Oracles of the part encoder: CNN, pooling heads, poses and presences."""

from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import layers, ops
from parity_tests.oracles.scalars import as64, sub_scope


def pooling_weights(feature_map, n_caps: int) -> np.ndarray:
    """softmax over the positions of the last n_caps channels.

    Args: feature_map [B, h, w, n_dims n_caps + n_caps]. Returns [B, h w, n_caps].
    Source: primary.py, CapsuleImageEncoder, 'conv_att'.
    """
    feature_map = as64(feature_map)
    n_images, height, width, n_channels = feature_map.shape
    out = np.zeros((n_images, height * width, n_caps))
    for b in range(n_images):
        for k in range(n_caps):
            logits = []
            for i in range(height):
                for j in range(width):
                    logits.append(float(feature_map[b, i, j, n_channels - n_caps + k]))
            for position, weight in enumerate(scalars.softmax(logits)):
                out[b, position, k] = weight
    return out


def attention_features(feature_map, n_caps: int, n_dims: int) -> np.ndarray:
    """The pooled channels as [position, dimension, map]: channel d n_caps + k is (d, k).

    Args: as attention_pool. Returns [B, h w, n_dims, n_caps].
    Source: primary.py, CapsuleImageEncoder, 'conv_att'.
    """
    feature_map = as64(feature_map)
    n_images, height, width = feature_map.shape[:3]
    out = np.zeros((n_images, height * width, n_dims, n_caps))
    for b, i, j, d, k in np.ndindex(n_images, height, width, n_dims, n_caps):
        out[b, i * width + j, d, k] = feature_map[b, i, j, d * n_caps + k]
    return out


def attention_pooled(feature_map, n_caps: int, n_dims: int) -> np.ndarray:
    """Weighted sums over the positions: out[b, d, k] = sum_ij a[b, ij, k] f[b, i, j, d n_caps + k].

    Args: as attention_pool. Returns [B, n_dims, n_caps], before the reshape.
    Source: primary.py, CapsuleImageEncoder, 'conv_att'.
    """
    features = attention_features(feature_map, n_caps, n_dims)
    weights = pooling_weights(feature_map, n_caps)
    out = np.zeros((len(features), n_dims, n_caps))
    for b, d, k in np.ndindex(out.shape):
        total = 0.0
        for position in range(features.shape[1]):
            total += float(weights[b, position, k]) * float(features[b, position, d, k])
        out[b, d, k] = total
    return out


def spatial_mean(feature_map) -> np.ndarray:
    """Plain mean over the positions, [B, h, w, D] -> [B, D].

    Source: primary.py, CapsuleImageEncoder, 'conv'.
    """
    feature_map = as64(feature_map)
    n_images, height, width, n_channels = feature_map.shape
    out = np.zeros((n_images, n_channels))
    for b in range(n_images):
        for channel in range(n_channels):
            total = 0.0
            for i in range(height):
                for j in range(width):
                    total += float(feature_map[b, i, j, channel])
            out[b, channel] = total / (height * width)
    return out


def reshaped(pooled, n_caps: int, n_dims: int) -> np.ndarray:
    """Reads each example's numbers in memory order as [n_caps, n_dims].

    Not a transpose: capsule k, dimension d is number n_dims k + d of the pooled array.
    Args: pooled [B, n_dims, n_caps] or [B, n_dims n_caps]. Returns [B, n_caps, n_dims].
    Source: primary.py:95,101.
    """
    pooled = as64(pooled)
    out = np.zeros((pooled.shape[0], n_caps, n_dims))
    for b in range(pooled.shape[0]):
        flat = [float(pooled[(b, *index)]) for index in np.ndindex(pooled.shape[1:])]
        for k in range(n_caps):
            for d in range(n_dims):
                out[b, k, d] = flat[n_dims * k + d]
    return out


def attention_pool(feature_map, n_caps: int, n_dims: int) -> np.ndarray:
    """Attention pooling and the reshape after it.

    Channels d n_caps + k hold dimension d of map k; the last n_caps hold the attention logits.
    Args: feature_map [B, h, w, n_dims n_caps + n_caps]. Returns [B, n_caps, n_dims].
    Source: primary.py, CapsuleImageEncoder, 'conv_att'.
    """
    return reshaped(attention_pooled(feature_map, n_caps, n_dims), n_caps, n_dims)


def _with_spatial_bias(embedding: np.ndarray, bias) -> np.ndarray:
    """Adds the learned bias [h, w, D] to every image."""
    out = np.zeros(embedding.shape)
    for index in np.ndindex(embedding.shape):
        out[index] = float(embedding[index]) + float(bias[index[1:]])
    return out


def _head(embedding, variables, n_caps, n_dims, encoder_type, taps) -> np.ndarray:
    """From the CNN's output to raw parameters [B, n_caps, n_dims], filling taps on the way."""
    if encoder_type == "linear":
        flat = np.zeros((embedding.shape[0], embedding[0].size))
        for b in range(embedding.shape[0]):
            for position, index in enumerate(np.ndindex(embedding.shape[1:])):
                flat[b, position] = embedding[(b, *index)]
        pooled = layers.linear(flat, sub_scope(variables, "linear"))
        taps["part_enc/linear"] = pooled
        return reshaped(pooled, n_caps, n_dims)
    biased = _with_spatial_bias(embedding, as64(variables["add/b"]))
    feature_map = layers.conv_2d(biased, sub_scope(variables, "conv_2d"))
    taps["part_enc/embedding_plus_bias"] = biased
    taps["part_enc/conv1x1"] = feature_map
    if encoder_type == "conv":
        pooled = spatial_mean(feature_map)
        taps["part_enc/spatial_mean"] = pooled
    elif encoder_type == "conv_att":
        pooled = attention_pooled(feature_map, n_caps, n_dims)
        taps["part_enc/att_features"] = attention_features(feature_map, n_caps, n_dims)
        taps["part_enc/att_weights"] = pooling_weights(feature_map, n_caps)
        taps["part_enc/att_pooled"] = pooled
    else:
        raise ValueError(f"unknown encoder type {encoder_type!r}")
    return reshaped(pooled, n_caps, n_dims)


def part_encoder(
    image,
    variables: Mapping[str, np.ndarray],
    strides: Sequence[int],
    n_caps: int,
    n_caps_dims: int = 6,
    n_features: int = 0,
    noise_scale: float = 4.0,
    similarity_transform: bool = False,
    encoder_type: str = "conv_att",
    noise=None,
    residual_blocks: int = 0,
) -> dict[str, np.ndarray]:
    """Images to part poses, presences and special features, as a dict of taps.

    Each capsule's parameters split 6 | n_features | 1 into pose, feature and presence logit.
    logit += (u - 1/2) noise_scale; presence = sigmoid(logit); pose = geometric_transform(pose).
    Args: image [B, H, W, C]; variables under their whole names, conv_net_2d/... and
    capsule_image_encoder/...; noise u [B, K] in [0, 1), None for none.
    Returns taps part_enc/pose [B, K, 6], part_enc/presence [B, K], part_enc/feature [B, K, F]
    (absent without features) and those before them.
    Source: primary.py, CapsuleImageEncoder.
    """
    taps: dict[str, np.ndarray] = {}
    cnn = sub_scope(variables, "conv_net_2d")
    outputs = layers.conv_encoder_steps(image, cnn, strides, residual_blocks)
    for name, output in outputs:
        taps[f"part_enc/{name}_preact"] = output
        taps[f"part_enc/{name}"] = layers.relu(output)
    embedding = layers.relu(outputs[-1][1])
    taps["part_enc/img_embedding"] = embedding

    n_dims = n_caps_dims + n_features + 1
    own = sub_scope(variables, "capsule_image_encoder")
    parameters = _head(embedding, own, n_caps, n_dims, encoder_type, taps)
    n_images = parameters.shape[0]
    raw_pose = np.zeros((n_images, n_caps, n_caps_dims))
    feature = np.zeros((n_images, n_caps, n_features))
    before, logit, presence = (np.zeros((n_images, n_caps)) for _ in range(3))
    for b in range(n_images):
        for k in range(n_caps):
            for d in range(n_caps_dims):
                raw_pose[b, k, d] = parameters[b, k, d]
            for d in range(n_features):
                feature[b, k, d] = parameters[b, k, n_caps_dims + d]
            before[b, k] = parameters[b, k, n_dims - 1]
            drawn = 0.0 if noise is None else (float(noise[b][k]) - 0.5) * noise_scale
            logit[b, k] = before[b, k] + drawn
            presence[b, k] = scalars.sigmoid(float(logit[b, k]))
    taps["part_enc/caps_params"] = parameters
    taps["part_enc/pose_raw"] = raw_pose
    taps["part_enc/pres_logit_pre_noise"] = before
    taps["part_enc/pres_logit"] = logit
    taps["part_enc/presence"] = presence
    taps["part_enc/pose"] = ops.geometric_transform(raw_pose, similarity_transform, nonlinear=True)
    if n_features:
        taps["part_enc/feature"] = feature
    return taps
