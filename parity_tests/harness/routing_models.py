"""The reference's CapsNet and matrix capsules as a command takes a model: by arguments, with loss and taps.

The twin of `port/capsnet/classifier.py` and `port/em/classifier.py`, whose tap names these are. It stands here since
no one but the commands that compare both sides needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Result(NamedTuple):
    """A forward pass, as the reference's autoencoders give it."""

    loss: Any
    scalars: dict[str, Any]
    taps: dict[str, Any] | None


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
            if name != "model"}


class CapsNet:
    """CapsNet of the reference; arguments as `CapsNetConfig.to_arguments` gives them."""

    def __init__(self, arguments: Mapping[str, Any], seed: int, dtype: str) -> None:
        import tensorflow as tf

        from reference.capsnet import network as capsnet
        from reference.capsnet import settings as capsnet_settings
        self.arguments = arguments
        self.network = capsnet.CapsNet(capsnet_settings.Settings(**_tuples(arguments)), seed,
                                       getattr(tf, dtype))
        self.variables_by_name = self.network.variables_by_name
        self.load_variables = self.network.load_variables

    def __call__(self, image: Any, label: Any = None, noise: None = None, taps: bool = False,
                 tape: Any = None) -> Result:
        import tensorflow as tf

        from reference.capsnet.layers import flatten_grid
        network = self.network
        found = network(image, label)
        log = None
        if taps:
            features = tf.nn.relu(network.conv1(image))
            log = {"features": features, "primary": flatten_grid(network.primary(features)),
                   "capsules": found.capsules, "lengths": found.lengths}
            if found.reconstruction is not None:
                log["reconstruction"] = found.reconstruction
        return Result(found.loss, found.scalars, log)


class MatrixCapsules:
    """Matrix capsules of the reference; arguments as `EMConfig.to_arguments` gives them."""

    def __init__(self, arguments: Mapping[str, Any], seed: int, dtype: str) -> None:
        import tensorflow as tf

        from reference.em import losses as em_losses
        from reference.em import network as em_network
        from reference.em import settings as em_settings
        self.arguments = arguments
        given = _tuples(arguments)
        self.canvas, margin, ramp = (given.pop(name) for name in ("canvas", "margin", "margin_ramp"))
        self.margin = em_losses.spread_margin(0, margin, ramp)
        for name in ("routing", "class_routing"):
            given[name] = em_settings.Routing(**given[name])
        self.network = em_network.MatrixCapsules("", em_settings.Network(**given),
                                                 np.random.default_rng(seed), getattr(tf, dtype))
        self.variables_by_name = self.network.variables_by_name
        self.load_variables = self.network.load_variables

    def __call__(self, image: Any, label: Any = None, noise: None = None, taps: bool = False,
                 tape: Any = None) -> Result:
        import tensorflow as tf

        from reference.core import losses
        from reference.em import layers as em_layers
        from reference.em import losses as em_losses
        network, settings = self.network, self.network.settings
        found = network(image)
        log: dict[str, Any] | None = None
        if taps:
            features = network.conv(em_layers.batch_normalize(image) if settings.normalize else image)
            pose, activation = network.primary(features)
            log = {"features": features, "primary/pose": pose, "primary/activation": activation}
            for i, layer in enumerate(found.layers):
                name = "classes" if i == len(found.layers) - 1 else f"capsules{i}"
                log |= {f"{name}/pose": layer.pose, f"{name}/logit": layer.logit,
                        f"{name}/activation": layer.activation}
        loss, scalars = tf.zeros([], found.activation.dtype), {}
        if label is not None:
            spread = em_losses.spread_loss(found.activation, label, self.margin, settings.reduction)
            right = tf.equal(tf.argmax(found.activation, 1), tf.cast(label, tf.int64))
            scalars = {"spread_loss": spread, "accuracy": tf.reduce_mean(tf.cast(
                right, found.activation.dtype))}
            loss += spread
        if settings.decay:
            loss += settings.decay * losses.weight_decay_loss(network.kernels())
        return Result(loss, scalars, log)


MODELS = {"capsnet": CapsNet, "em": MatrixCapsules}
