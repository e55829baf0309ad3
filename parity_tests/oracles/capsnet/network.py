"""Oracles of `capsnet/network.py`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from parity_tests.oracles.capsnet.layers import (
    capsule_decoder,
    convolution,
    flatten_grid,
    mask_capsules,
    primary_capsules,
    routing_capsules,
)
from parity_tests.oracles.capsnet.losses import margin_loss, reconstruction_loss
from parity_tests.oracles.capsnet.routing import capsule_lengths
from parity_tests.oracles.scalars import as64, sub_scope


def caps_net(image, variables: Mapping[str, np.ndarray], settings: Mapping[str, Any], label=None,
             mask: str = "label") -> dict[str, np.ndarray]:
    """The whole network and its losses; images are channels last, pixels decoded channel by channel."""
    image = as64(image)
    features = np.maximum(
        convolution(image, sub_scope(variables, "conv1"), settings.get("conv1_stride", 1)), 0.0)
    grid = primary_capsules(features, sub_scope(variables, "conv_capsule1"), settings)
    capsules = routing_capsules(flatten_grid(grid), sub_scope(variables, "capsule2"),
                                settings.get("classes", 10), settings)
    lengths = capsule_lengths(capsules)
    longest = [int(np.argmax(row)) for row in lengths]
    found = {"capsules": capsules, "lengths": lengths, "loss": 0.0}
    joint = settings.get("reconstruction", "joint") == "joint"
    if label is not None:
        labels = np.zeros(lengths.shape)
        for b, value in enumerate(label):
            labels[b, int(value)] = 1.0
        found["margin_loss"] = margin_loss(lengths, labels, settings.get("margin", "sum"))
        found["accuracy"] = sum(a == int(b) for a, b in zip(longest, label)) / len(longest)
        found["loss"] += found["margin_loss"] if joint else 0.0
    if settings.get("decoder", (512, 1024)):
        keep = longest if label is None or mask == "length" else label
        flat = capsule_decoder(mask_capsules(capsules, keep), sub_scope(variables, "recons"))
        batch, side, _, channels = image.shape
        picture = np.zeros(image.shape)
        for b, y, x, c in np.ndindex(image.shape):
            picture[b, y, x, c] = flat[b, (c * side + y) * side + x]
        weight = settings.get("reconstruction_weight", 0.0005)
        found["reconstruction"] = picture
        found["reconstruction_loss"] = reconstruction_loss(image, picture, weight)
        found["loss"] += found["reconstruction_loss"]
    return found
