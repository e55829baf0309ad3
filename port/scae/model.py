"""The whole image autoencoder of the original's `capsules/scae.py`, in PyTorch.

Read beside `reference/scae/model.py`: same class, same order of computation; images are channels first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.core import attention, inputs, layers, losses, mixture, ops, preprocess, probe
from port.core.gathering import alone
from port.core.taps import CHANNELS_LAST, PARTS_CHANNELS_LAST, SILENT, Recorder, Taps
from port.scae import object_decoder as objects
from port.scae import part_decoder as decoders
from port.scae import part_encoder as encoders
from port.scae import pixel_likelihood, recording
from port.scae.config import Config
from port.scae.noise import Noise

Array = Float[Tensor, "..."]


class Result(NamedTuple):
    """A forward pass: the optimised scalar, its terms, presences, probe logits, taps, pictures.

    Parts alone have no object capsules, and points that are given without presences are all there: None.
    """

    loss: Array
    scalars: dict[str, Array]
    mass_explained_by_capsule: Array | None
    caps_presence_prob: Array | None
    part_presence: Array | None
    posterior_logits: Array | None
    prior_logits: Array | None
    taps: Taps | None
    pictures: dict[str, Array] | None


class Objects(NamedTuple):
    """What a level above the objects builds on: encoded capsules, votes, presence, what they explain."""

    encoded: Array
    votes: objects.CapsuleVotes
    caps_presence_prob: Array
    target_pose: Array
    target_presence: Array


class ImageAutoencoder(nn.Module):
    """Stacked capsule autoencoder: parts, objects, reconstruction, losses and probes.

    Args:
        config: the configuration; what it does not name has the original's default. Of kind `ocae`
            the part capsules stay as they are: no gradient reaches them.
        seed: draws the initial weights, bit-equal to the reference's from the same seed.

    Source: original `scae.py: ImageAutoencoder` and `configs/model_config.py`; paper section 2.
    """

    def __init__(self, config: Config, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.check_range = True  # training switches it off: its images come from bytes
        # Rows of the whole batch; with several ranks, training puts in what brings them together.
        self.gather = alone
        repairs, part, settings = config.repairs, config.part_encoder, config.autoencoder
        rng = np.random.default_rng(seed)
        self.part_encoder = encoders.PartEncoder(
            config.canvas, config.channels, config.cnn, part, rng,
            "transposed" if "Q02" in repairs else "faithful")
        self.part_decoder = decoders.PartDecoder(
            config.canvas, part.n_caps, part.n_features, config.part_decoder, rng)
        if config.kind == "ocae":
            self.part_encoder.requires_grad_(False)
            self.part_decoder.requires_grad_(False)
        size = config.part_decoder.template_size
        n_tokens = part.n_caps_dims + 1 + part.n_features
        if config.feeds_templates:
            n_tokens += size[0] * size[1] * config.channels
        objects_in = config.obj_encoder
        if settings.object_encoder == "mlp":
            self.object_encoder = attention.MLPEncoder(
                part.n_caps, n_tokens, objects_in.n_layers, objects_in.n_dims,
                objects_in.n_output_dims, objects_in.n_outputs, rng)
        else:
            self.object_encoder = attention.SetTransformer(
                n_tokens, objects_in.n_layers, objects_in.n_heads, objects_in.n_dims,
                objects_in.n_output_dims, objects_in.n_outputs, objects_in.layer_norm, rng,
                objects_in.n_inducing_points, objects_in.dropout_rate,
                "log_presence" if "Q01" in repairs else "faithful")
        self.object_decoder = objects.ImageCapsule(
            objects_in.n_output_dims, config.obj_decoder, rng,
            "normalised" if "Q03" in repairs else "faithful")
        self.probes = nn.ModuleList(
            probe.ClassificationProbe(config.obj_decoder.n_caps, settings.n_classes, rng)
            for _ in range(2 * settings.probe))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the image must have too."""
        return self.part_decoder.templates.dtype

    def decayed_weights(self) -> list[Tensor]:
        """The trained weights under weight decay: of linear, convolution and per-capsule layers (Q15)."""
        kinds = (layers.Linear, layers.Conv2D, layers.BatchLinear)
        return [module.weight for module in self.modules()
                if isinstance(module, kinds) and module.weight.requires_grad]

    def check_image(self, image: Tensor, what: str = "image") -> None:
        """Refuse an image of the wrong size, channels, dtype or range.

        Args:
            image: `[B, C, S, S]`. The range is looked at on the CPU only, where reading a value stops
                nothing, and not in training.
            what: the argument's name, for the message.

        Raises:
            ValueError: says what was expected and what was given.
        """
        inputs.check_image(image, self.config.channels, self.config.canvas, self.dtype, self.check_range,
                           what)

    def above(self, found: Objects, draws: Mapping[str, Any], scalars: dict[str, Array], log: Recorder
              ) -> Array | None:
        """What a level above the objects adds to the loss; there is none here."""
        return None

    def forward(self, image: Array, label: Tensor | None = None, noise: Noise | None = None,
                taps: bool = False, pictures: bool = False, target: Array | None = None) -> Result:
        """One forward pass.

        Args:
            image: `[B, C, S, S]` in [0, 1], in the model's dtype.
            label: integers `[B]`; without them the probes' terms are absent.
            noise: the draws (`Noise.draw`); None is no noise, in either mode.
            taps: record every intermediate under its golden name.
            pictures: make the reconstructions that the loss does not need.
            target: what is reconstructed, `[B, C, S, S]`; by default what the setting `target`
                makes of the image: itself or its edges (`normalized_sobel_edges`).

        Raises:
            ValueError: an image, label, target or noise that does not fit the configuration.
        """
        config, settings, repairs = self.config, self.config.autoencoder, self.config.repairs
        self.check_image(image)
        if label is not None:
            label = inputs.check_labels(label, image.shape[0], inputs.classes_of(config), self.check_range)
        if target is None:
            target = preprocess.normalized_sobel_edges(image) if settings.target == "sobel" else image
        else:
            self.check_image(target, "target")
        draws = {} if noise is None else noise.assign(config, image.shape[0])
        log = Taps() if taps else SILENT
        parts = self.part_encoder(image, draws.get("part"), log)
        templates = self.part_decoder.make_templates(parts.feature, log)
        tokens, presence, target_pose, target_presence = self._object_input(parts, templates, log)
        log.record("obj_enc/input", tokens)
        log.record("obj_enc/presence", presence)
        encoded, steps = self.object_encoder(tokens, presence, draws.get("attention"))
        for i, (before, after) in enumerate(steps):
            log.record(f"obj_enc/layer{i}_in", before)
            log.record(f"obj_enc/layer{i}_out", after)
        log.record("obj_enc/output", encoded)
        votes, flat_votes, likelihood, caps_presence_prob = self.object_decoder(
            encoded, target_pose, target_presence, draws.get("caps"), draws.get("vote"),
            draws.get("caps_mask"), log)

        dec_pose = {"enc": parts.pose, "soft": likelihood.soft_winner,
                    "hard": likelihood.winner}[settings.vote_type]
        dec_presence = {"enc": parts.presence, "soft": likelihood.soft_winner_pres,
                        "hard": likelihood.winner_pres}[settings.pres_type]
        if taps or pictures or pixel_likelihood.needs_components(config):
            decoded = self.part_decoder(dec_pose, dec_presence, templates)
            log_prob = mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means,
                                                decoded.scale)
        else:
            # Nobody looks at the components themselves, so they need not be made.
            log_prob = self.part_decoder.log_prob(target, dec_pose, dec_presence, templates)
        scalars = {"rec_ll": ops.flat_reduce(log_prob), "log_prob": likelihood.log_prob,
                   "dynamic_weights_l2": votes.dynamic_weights_l2,
                   "primary_caps_l1": ops.flat_reduce(parts.presence)}
        if settings.template_l1_weight > 0:
            scalars["template_l1"] = losses.template_l1(self.part_decoder.templates)
        if settings.mse_weight > 0:
            mean = mixture.mixture_mean(decoded.mixing_logits, decoded.means)
            scalars["rec_mse"] = torch.mean(torch.square(target - mean))
        mass_explained_by_capsule = torch.sum(likelihood.posterior_mixing_probs, 1)
        n_points = likelihood.posterior_mixing_probs.shape[1]
        # These look at the whole batch: with several ranks, at the rows of all of them.
        label = None if label is None else self.gather(label)
        logits = self._batch_terms(self.gather(mass_explained_by_capsule), self.gather(caps_presence_prob), n_points,
                                   label, scalars)
        if settings.weight_decay > 0:
            scalars["weight_decay_loss"] = losses.weight_decay_loss(self.decayed_weights())
        loss = losses.total_loss(scalars, settings)
        more = self.above(Objects(encoded, votes, caps_presence_prob, target_pose, target_presence), draws,
                          scalars, log)
        loss = loss if more is None else loss + more
        images = None
        if taps or pictures:
            vote_presence = votes.vote_presence if "Q04" in repairs else likelihood.vote_presence
            made = recording.Pass(target, parts, templates, votes, flat_votes, vote_presence, likelihood,
                                  caps_presence_prob, dec_pose, dec_presence, decoded, log_prob)
            images = recording.pictures(self.part_decoder, made)
            if pictures:
                images["per_capsule"] = recording.capsule_pictures(self.part_decoder, made)
            scalars["mse"] = ops.flat_reduce(torch.square(target - images["mode"]))
            if taps:
                log.record("input/image", image, CHANNELS_LAST)
                if label is not None:
                    log.record("input/label", label)
                recording.record(self.part_decoder, repairs, log, made, scalars, images)
                log.record("loss/total", loss)
                log.record("loss/mass_explained_by_capsule", mass_explained_by_capsule)
        return Result(loss, scalars, mass_explained_by_capsule, caps_presence_prob, parts.presence, *logits,
                      log if taps else None, images)

    @torch.no_grad()
    def presences(self, image: Array, noises: Sequence[Noise | None]) -> list[tuple[Array, Array]]:
        """What the object capsules say of the same images under several draws of noise; the CNN runs once.

        Reconstruction, losses and probes are left out: `mass_explained_by_capsule` and `caps_presence_prob`
        have the values that `forward` gives.

        Args:
            image: as for `forward`.
            noises: one pass each; None is no noise.

        Returns:
            For each of `noises` Σ over the parts of the posterior `[B, O]`, and the presence `[B, O]`.

        Raises:
            ValueError: an image or noise that does not fit the configuration.
        """
        self.check_image(image)
        params, found = self.part_encoder.parameters_of(image), []
        for noise in noises:
            draws = {} if noise is None else noise.assign(self.config, image.shape[0])
            parts = self.part_encoder.capsules(params, draws.get("part"))
            tokens, presence, target_pose, target_presence = self._object_input(
                parts, self.part_decoder.make_templates(parts.feature), SILENT)
            encoded, _ = self.object_encoder(tokens, presence, draws.get("attention"))
            _, _, likelihood, caps_presence_prob = self.object_decoder(
                encoded, target_pose, target_presence, draws.get("caps"), draws.get("vote"), draws.get("caps_mask"))
            found.append((torch.sum(likelihood.posterior_mixing_probs, 1), caps_presence_prob))
        return found

    def _object_input(self, parts: encoders.PartCapsules, templates: Array, log: Recorder
                      ) -> tuple[Array, Array, Array, Array]:
        """Tokens and presences of the object encoder, and the poses and presences that it has to explain."""
        token_templates = templates
        if self.config.part_decoder.colorize_templates:
            # The original colours anew for every use, so the gradient at this tap is the tokens' own.
            token_templates = templates.view_as(templates)
            log.record("templates/colorized", token_templates, PARTS_CHANNELS_LAST)

        presence, pose = parts.presence, parts.pose
        target_pose, target_presence = pose, presence
        if self.config.autoencoder.stop_grad_caps_inpt:
            pose, presence, token_templates = (
                v.detach() for v in (pose, presence, token_templates))
        if self.config.autoencoder.stop_grad_caps_target:
            target_pose, target_presence = target_pose.detach(), target_presence.detach()
        tokens = [pose, 1.0 - presence[..., None]]
        if parts.feature is not None:
            tokens.append(parts.feature)  # Q24: never cut
        if self.config.feeds_templates:
            batch, n_parts = pose.shape[:2]
            # The original flattens channels last.
            flat = token_templates.permute(0, 1, 3, 4, 2).flatten(2)
            tokens.append(flat.expand(batch, n_parts, -1))
        return log.watch(torch.cat(tokens, -1)), presence, target_pose, target_presence

    def _batch_terms(self, whole_mass: Array, whole_presence: Array, n_points: int, label: Tensor | None,
                     scalars: dict[str, Array]) -> list[Array | None]:
        """Sparsity losses and probes, into `scalars`; the logits of both probes."""
        settings = self.config.autoencoder
        for kind, p in (("posterior", whole_mass / n_points), ("prior", whole_presence)):
            constant = settings.prior_within_example_constant if kind == "prior" else 0.0
            within, between = losses.sparsity_loss(
                getattr(settings, f"{kind}_sparsity_loss_type"), p, settings.n_classes, constant)
            scalars[f"{kind}_within_sparsity_loss"] = within
            scalars[f"{kind}_between_sparsity_loss"] = between
        logits: list[Array | None] = [None, None]
        for i, (name, features) in enumerate((("posterior", whole_mass), ("prior", whole_presence))):
            if len(self.probes):
                logits[i], xe, accuracy = self.probes[i](features, label)
                if label is not None:
                    scalars[f"{name}_cls_xe"], scalars[f"{name}_cls_acc"] = xe, accuracy
        if "posterior_cls_acc" in scalars:
            scalars["best_cls_acc"] = torch.maximum(scalars["posterior_cls_acc"],
                                                    scalars["prior_cls_acc"])
        return logits
