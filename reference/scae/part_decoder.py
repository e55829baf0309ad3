"""Template decoder of the original's `primary.py: TemplateBasedImageDecoder`, in TensorFlow 2.

Read beside `port/scae/part_decoder.py`: same class, same order; images are channels last here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import initializers, layers, ops, warp
from reference.core.module import NamedModule

Array = Float[tf.Tensor, "..."]

N_COLOR_HIDDENS = 32


class Decoded(NamedTuple):
    """A decoder call: components and logits of the pixel mixture, the background last.

    means `[B, K + 1, S, S, C]`, mixing_logits `[B, K + 1, S, S, 1 or C]` (log presence included),
    scale (scalar or `[1]`), transformed_templates `[B, K, S, S, C]`.
    """

    means: Array
    mixing_logits: Array
    scale: Array
    transformed_templates: Array


def _nonlinearity(name: str, x: Array) -> Array:
    return ops.relu1(x) if name == "relu1" else tf.nn.sigmoid(x)


class PartDecoder(NamedModule):
    """Templates, coloured by the parts' features, drawn at the parts' poses, mixed per pixel.

    Args:
        scope: `template_based_image_decoder`; holds `templates` [1, K, T, T, C], `templates_alpha`,
            `mlp` (colour), `bg_value`, `bg_mixing_logit` or `temperature_logit`, `scale`.
        canvas_size: S in pixels.
        n_parts: K.
        n_features: size of the parts' features, the colour MLP's input.
        settings: the argument section `part_decoder`.
        rng: draws the weights.
        dtype: of the variables.

    Source: original `primary.py: TemplateBasedImageDecoder`; paper section 2.1, equations (1)-(4).
    """

    def __init__(self, scope: str, canvas_size: int, n_parts: int, n_features: int,
                 settings: Mapping[str, Any], rng: np.random.Generator,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__(scope, dtype)
        size, channels = tuple(settings["template_size"]), settings["n_channels"]
        self.canvas = (canvas_size, canvas_size)
        self.settings = dict(settings)
        self.templates = self.add_variable("templates", initializers.orthogonal_templates(
            rng, n_parts, size, channels))
        self.templates_alpha = self.temperature_logit = self.bg_mixing_logit = self.mlp = None
        if settings["use_alpha_channel"]:
            self.templates_alpha = self.add_variable(
                "templates_alpha", np.zeros((1, n_parts, *size, 1), np.float32))
        if settings["colorize_templates"]:
            self.mlp = layers.MLP(f"{scope}/mlp", n_features, [N_COLOR_HIDDENS, channels], rng, dtype)
        self.bg_value = self.add_variable("bg_value", initializers.glorot_uniform(rng, (1,)))
        if settings["use_alpha_channel"]:
            self.bg_mixing_logit = self.add_variable("bg_mixing_logit", np.zeros(1, np.float32))
        else:
            self.temperature_logit = self.add_variable(
                "temperature_logit", initializers.glorot_uniform(rng, (1,)))
        self.scale = self.add_variable("scale", initializers.glorot_uniform(
            rng, (1,))) if settings["learn_output_scale"] else None

    def make_templates(self, feature: Array | None = None, taps: dict | None = None) -> Array:
        """Templates after their nonlinearity, times the colour of each part.

        Args:
            feature: `[B, K, F]`; needed when templates are coloured.
            taps: receives the intermediates.

        Returns:
            `[B, K, T, T, C]`, or `[1, K, T, T, C]` without colour.
        """
        taps = {} if taps is None else taps
        taps["templates/logits"] = self.templates
        templates = _nonlinearity(self.settings["template_nonlin"], self.templates)
        taps["templates/raw"] = templates[0]
        if self.mlp is not None:
            color_nonlin = self.settings["color_nonlin"]
            color = self.mlp(feature)
            taps["templates/color_preact"] = color
            if color_nonlin == "relu1":
                color = color + 0.99  # Q12: starts near white, inside relu1's linear range
            templates = templates * _nonlinearity(color_nonlin, color)[:, :, None, None, :]
        taps["templates/colorized"] = templates
        return templates

    def sampled_pose(self, pose: Array) -> Array:
        """Canvas to template, `[B·K, 6]`: the pose's inverse, or itself where it is not inverted."""
        pose = tf.reshape(pose, [-1, 6])
        return warp.inverse_affine(pose) if self.settings.get("inverse_space_transform", True) else pose

    def __call__(self, pose: Array, presence: Array | None, templates: Array,
                 bg_image: Array | None = None) -> Decoded:
        """Draw and mix.

        Args:
            pose: `[B, K, 6]`, template to canvas (or the other way with `inverse_space_transform` false).
            presence: `[B, K]`; None leaves the log presence out.
            templates: `[B or 1, K, T, T, C]`, as `make_templates` gives them.
            bg_image: `[B, S, S, C]` in place of the constant background.
        """
        batch = pose.shape[0]
        if templates.shape[0] != batch:
            templates = tf.repeat(templates, batch, axis=0)
        inverse = self.settings.get("inverse_space_transform", True)
        drawn = warp.warp_templates(templates, pose, self.canvas, inverse)
        if bg_image is None:
            background = tf.ones_like(drawn[:, :1]) * tf.nn.sigmoid(self.bg_value)
        else:
            background = bg_image[:, None]
        means = tf.concat([drawn, background], 1)
        if self.templates_alpha is not None:
            alpha = warp.warp_templates(tf.repeat(self.templates_alpha, batch, axis=0), pose,
                                        self.canvas, inverse)
            bg_logit = tf.ones_like(alpha[:, :1]) * ops.softplus(self.bg_mixing_logit)
            logits = tf.concat([alpha, bg_logit], 1)
        else:
            temperature = ops.softplus(self.temperature_logit + 0.5) + 1e-4
            logits = means / temperature
        if presence is not None:
            log_presence = ops.safe_log(presence)
            log_presence = tf.concat([log_presence, tf.zeros_like(log_presence[:, :1])], 1)
            logits = logits + log_presence[:, :, None, None, None]
        scale = tf.ones([], self.dtype)
        if self.scale is not None:
            scale = ops.softplus(self.scale) + 1e-4
        return Decoded(means, logits, scale, drawn)
