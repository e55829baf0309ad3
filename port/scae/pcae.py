"""Part capsules alone: images to parts and back, without object capsules, in PyTorch.

Read beside `reference/scae/pcae.py`: same names, same order of computation; images are channels first here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import inputs, losses, mixture, ops, preprocess
from port.core.gathering import alone
from port.core.taps import CHANNELS_LAST, PARTS_CHANNELS_LAST, SILENT, Taps
from port.scae import part_decoder as decoders
from port.scae import part_encoder as encoders
from port.scae import pixel_likelihood
from port.scae.config_modes import PartConfig, PartLosses
from port.scae.model import ImageAutoencoder, Result
from port.scae.noise import Noise

Array = Float[Tensor, "..."]


def total_loss(terms: Mapping[str, Array], weights: PartLosses) -> Array:
    """The optimised scalar: -w·rec_ll + w·template_l1 + w·rec_mse + w·primary_caps_l1 + weight decay.

    Args:
        terms: scalars by name; `rec_mse` only where its weight is not 0.
        weights: the configuration section `autoencoder`.

    Returns:
        A scalar.

    Source: mlberkeley/scae-pytorch `models/pcae.py`; the last two terms are those of the original.
    """
    loss = -weights.rec_ll_weight * terms["rec_ll"]
    loss = loss + weights.template_l1_weight * terms["template_l1"]
    if weights.mse_weight > 0:
        loss = loss + weights.mse_weight * terms["rec_mse"]
    loss = loss + weights.primary_caps_sparsity_weight * terms["primary_caps_l1"]
    if "weight_decay_loss" in terms:
        loss = loss + weights.weight_decay * terms["weight_decay_loss"]
    return loss


class PartAutoencoder(nn.Module):
    """Part capsule autoencoder: part encoder, template decoder, three terms of loss.

    Args:
        config: the configuration (kind `pcae`).
        seed: draws the initial weights, the same as the image model's part capsules.

    Source: the part capsules of the original `scae.py: ImageAutoencoder`; losses as in
    mlberkeley/scae-pytorch `models/pcae.py`.
    """

    dtype = ImageAutoencoder.dtype
    decayed_weights = ImageAutoencoder.decayed_weights
    check_image = ImageAutoencoder.check_image

    def __init__(self, config: PartConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.check_range = True
        self.gather = alone  # nothing here looks at the whole batch
        part, rng = config.part_encoder, np.random.default_rng(seed)
        self.part_encoder = encoders.PartEncoder(
            config.canvas, config.channels, config.cnn, part, rng,
            "transposed" if "Q02" in config.repairs else "faithful")
        self.part_decoder = decoders.PartDecoder(
            config.canvas, part.n_caps, part.n_features, config.part_decoder, rng)

    def forward(self, image: Array, label: Tensor | None = None, noise: Noise | None = None,
                taps: bool = False, pictures: bool = False, target: Array | None = None) -> Result:
        """One forward pass.

        Args:
            image: `[B, C, S, S]` in [0, 1], in the model's dtype.
            label: not used; parts know no classes.
            noise: the draws (`Noise.draw`); None is no noise, in either mode.
            taps: record every intermediate under its golden name.
            pictures: make the reconstruction and what it consists of.
            target: what is reconstructed, `[B, C, S, S]`; by default as for the image model.

        Raises:
            ValueError: an image, label, target or noise that does not fit the configuration.
        """
        settings = self.config.autoencoder
        self.check_image(image)
        if label is not None:
            inputs.check_labels(label, image.shape[0], None, self.check_range)
        if target is None:
            target = preprocess.normalized_sobel_edges(image) if settings.target == "sobel" else image
        else:
            self.check_image(target, "target")
        draws = {} if noise is None else noise.assign(self.config, image.shape[0])
        log = Taps() if taps else SILENT
        parts = self.part_encoder(image, draws.get("part"), log)
        templates = self.part_decoder.make_templates(parts.feature, log)
        decoded = mean = None
        if taps or pictures or pixel_likelihood.needs_components(self.config):
            decoded = self.part_decoder(parts.pose, parts.presence, templates)
            log_prob = mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means,
                                                decoded.scale)
            mean = mixture.mixture_mean(decoded.mixing_logits, decoded.means)
        else:
            log_prob = self.part_decoder.log_prob(target, parts.pose, parts.presence, templates)
        scalars = {"rec_ll": ops.flat_reduce(log_prob),
                   "template_l1": losses.template_l1(self.part_decoder.templates),
                   "primary_caps_l1": ops.flat_reduce(parts.presence)}
        if mean is not None:
            scalars["rec_mse"] = torch.mean(torch.square(target - mean))
        if settings.weight_decay > 0:
            scalars["weight_decay_loss"] = losses.weight_decay_loss(self.decayed_weights())
        loss = total_loss(scalars, settings)
        images = None
        if pictures:
            images = {"target": target, "reconstruction": mean, "templates": templates,
                      "transformed_templates": decoded.transformed_templates, "log_prob": log_prob,
                      "pose": parts.pose}
        if taps:
            log.record("input/image", image, CHANNELS_LAST)
            log.record("part_dec/inverse_pose", self.part_decoder.sampled_pose(parts.pose))
            log.record("part_dec/transformed_templates", decoded.transformed_templates,
                       PARTS_CHANNELS_LAST)
            log.record("part_dec/mixing_logits_with_bg", decoded.mixing_logits, PARTS_CHANNELS_LAST)
            log.record("part_dec/mean", mean, CHANNELS_LAST)
            log.record("part_dec/log_prob_per_pixel", log_prob, CHANNELS_LAST)
            if self.part_decoder.scale is not None:
                log.record("part_dec/scale", decoded.scale)
            log.record("res/rec_mean", mean, CHANNELS_LAST)
            log.record("res/primary_presence", parts.presence)
            for name, value in scalars.items():
                log.record(f"res/{name}", value)
            log.record("loss/total", loss)
        return Result(loss, scalars, None, None, parts.presence, None, None, log if taps else None,
                      images)
