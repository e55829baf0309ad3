"""Template decoder of the original's `primary.py: TemplateBasedImageDecoder`, in PyTorch.

Read beside `reference/scae/part_decoder.py`: same class, same order; images are channels first here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import initializers, layers, mixture, ops, warp
from port.core.parameters import parameter
from port.core.taps import PARTS_CHANNELS_LAST, SILENT, Recorder
from port.scae import config as configuration
from port.scae import pixel_likelihood

Array = Float[Tensor, "..."]

N_COLOR_HIDDENS = 32


class Decoded(NamedTuple):
    """A decoder call: components and logits of the pixel mixture, the background last.

    means `[B, K + 1, C, S, S]`, mixing_logits `[B, K + 1, 1 or C, S, S]` (log presence included),
    scale (scalar or `[1]`), transformed_templates `[B, K, C, S, S]`.
    """

    means: Array
    mixing_logits: Array
    scale: Array
    transformed_templates: Array


def _nonlinearity(name: str, x: Array) -> Array:
    return ops.relu1(x) if name == "relu1" else torch.sigmoid(x)


class PartDecoder(nn.Module):
    """Templates, coloured by the parts' features, drawn at the parts' poses, mixed per pixel.

    Args:
        canvas_size: S in pixels.
        n_parts: K; `templates` is [1, K, C, T, T], `templates_alpha` [1, K, 1, T, T].
        n_features: size of the parts' features, the colour MLP's input.
        settings: the configuration section `part_decoder`.
        rng: draws the weights.

    Source: original `primary.py: TemplateBasedImageDecoder`; paper section 2.1, equations (1)-(4).
    """

    def __init__(self, canvas_size: int, n_parts: int, n_features: int,
                 settings: configuration.PartDecoder, rng: np.random.Generator) -> None:
        super().__init__()
        size, channels = tuple(settings.template_size), settings.n_channels
        self.canvas = (canvas_size, canvas_size)
        self.settings = settings
        self.templates = parameter(initializers.orthogonal_templates(
            rng, n_parts, size, channels).transpose(0, 1, 4, 2, 3))
        self.templates_alpha = self.temperature_logit = self.bg_mixing_logit = self.mlp = None
        if settings.use_alpha_channel:
            self.templates_alpha = parameter(np.zeros((1, n_parts, 1, *size), np.float32))
        if settings.colorize_templates:
            self.mlp = layers.MLP(n_features, [N_COLOR_HIDDENS, channels], rng)
        self.bg_value = parameter(initializers.glorot_uniform(rng, (1,)))
        if settings.use_alpha_channel:
            self.bg_mixing_logit = parameter(np.zeros(1, np.float32))
        else:
            self.temperature_logit = parameter(initializers.glorot_uniform(rng, (1,)))
        self.scale = parameter(
            initializers.glorot_uniform(rng, (1,))) if settings.learn_output_scale else None

    def make_templates(self, feature: Array | None = None, taps: Recorder = SILENT) -> Array:
        """Templates after their nonlinearity, times the colour of each part.

        Args:
            feature: `[B, K, F]`; needed when templates are coloured.
            taps: receives the intermediates.

        Returns:
            `[B, K, C, T, T]`, or `[1, K, C, T, T]` without colour.
        """
        taps.record("templates/logits", self.templates, PARTS_CHANNELS_LAST)
        templates = _nonlinearity(self.settings.template_nonlin, self.templates)
        taps.record("templates/raw", templates[0], (0, 2, 3, 1))
        if self.mlp is not None:
            color_nonlin = self.settings.color_nonlin
            color = self.mlp(feature)
            taps.record("templates/color_preact", color)
            if color_nonlin == "relu1":
                color = color + 0.99  # Q12: starts near white, inside relu1's linear range
            templates = templates * _nonlinearity(color_nonlin, color)[..., None, None]
        taps.record("templates/colorized", templates, PARTS_CHANNELS_LAST)
        return templates

    def _background_logit(self) -> Array:
        return ops.softplus(self.bg_mixing_logit)

    def sampled_pose(self, pose: Array) -> Array:
        """Canvas to template, `[B·K, 6]`: the pose's inverse, or itself where it is not inverted."""
        pose = pose.flatten(0, 1)
        return warp.inverse_affine(pose) if self.settings.inverse_space_transform else pose

    def forward(self, pose: Array, presence: Array | None, templates: Array,
                bg_image: Array | None = None) -> Decoded:
        """Draw and mix.

        Args:
            pose: `[B, K, 6]`, template to canvas (or the other way with `inverse_space_transform` false).
            presence: `[B, K]`; None leaves the log presence out.
            templates: `[B or 1, K, C, T, T]`, as `make_templates` gives them.
            bg_image: `[B, C, S, S]` in place of the constant background.
        """
        batch, n_channels = pose.shape[0], templates.shape[2]
        templates = templates.expand(batch, -1, -1, -1, -1)
        if self.templates_alpha is not None:
            # Colour and alpha are sampled at the same places: one warp serves both.
            alpha = self.templates_alpha.expand(batch, -1, -1, -1, -1)
            templates = torch.cat([templates, alpha], 2)
        drawn = warp.warp_templates(templates, pose, self.canvas, self.settings.inverse_space_transform)
        drawn, alpha = drawn[:, :, :n_channels], drawn[:, :, n_channels:]
        if bg_image is None:
            background = torch.sigmoid(self.bg_value).expand(batch, 1, n_channels, *self.canvas)
        else:
            background = bg_image[:, None]
        means = torch.cat([drawn, background], 1)
        if self.templates_alpha is not None:
            bg_logit = self._background_logit().expand(batch, 1, 1, *self.canvas)
            logits = torch.cat([alpha, bg_logit], 1)
        else:
            temperature = ops.softplus(self.temperature_logit + 0.5) + 1e-4
            logits = means / temperature
        if presence is not None:
            log_presence = ops.safe_log(presence)
            log_presence = torch.cat([log_presence, torch.zeros_like(log_presence[:, :1])], 1)
            logits = logits + log_presence[:, :, None, None, None]
        scale = torch.ones((), dtype=pose.dtype, device=pose.device)
        if self.scale is not None:
            scale = ops.softplus(self.scale) + 1e-4
        return Decoded(means, logits, scale, drawn)

    def log_prob(self, target: Array, pose: Array, presence: Array | None, templates: Array) -> Array:
        """log p of each pixel of `target` `[B, C, S, S]`, by the fused kernel where it can run.

        Args:
            target: what is explained, in [0, 1].
            pose, presence, templates: as for `forward`.

        Returns:
            `[B, C, S, S]`: `mixture.mixture_log_prob` of `forward`'s components.
        """
        against = pixel_likelihood.reason_against(
            pose.device, self.templates_alpha is not None, self.scale is None,
            pixel_likelihood.sizes_of(templates, self.canvas, templates.shape[0] > 1),
            self.settings.inverse_space_transform, target_gradient=target.requires_grad)
        if against:
            decoded = self(pose, presence, templates)
            return mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means, decoded.scale)
        log_presence = torch.zeros_like(pose[..., 0]) if presence is None else ops.safe_log(presence)
        return pixel_likelihood.pixel_log_prob(target, templates, self.templates_alpha, pose, log_presence,
                                      torch.sigmoid(self.bg_value), self._background_logit())
