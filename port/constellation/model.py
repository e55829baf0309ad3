"""The constellation autoencoder of the original's `capsules/models/constellation.py`, in PyTorch.

Read beside `reference/constellation/model.py`: same names, same order of computation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from port.constellation import decoder as decoders
from port.constellation.config import ConstellationConfig, ConstellationLosses
from port.core import attention, inputs, losses
from port.core.gathering import alone
from port.core.taps import SILENT, Recorder, Taps
from port.scae.model import Result
from port.scae.noise import Noise

Array = Float[Tensor, "..."]


def total_loss(terms: Mapping[str, Array], weights: ConstellationLosses, with_mixing_kl: bool = False
               ) -> Array:
    """The optimised scalar.

    -log_prob + w·sparsity_loss + w·dynamic_weights_l2 + Σ over posterior and prior of (w·within -
    w·between). The mixing KL is in no loss (Q33).

    Args:
        terms: scalars by the names of the original's result.
        weights: the configuration section `autoencoder`.
        with_mixing_kl: add it with its weight, the repair of Q33.

    Returns:
        A scalar.

    Source: original `models/constellation.py: ConstellationAutoencoder._loss`.
    """
    loss = -terms["log_prob"] + weights.sparsity_weight * terms["sparsity_loss"]
    loss += weights.dynamic_l2_weight * terms["dynamic_weights_l2"]
    for kind in ("posterior", "prior"):
        loss += (getattr(weights, f"{kind}_within_example_sparsity_weight")
                 * terms[f"{kind}_within_sparsity_loss"])
        loss -= (getattr(weights, f"{kind}_between_example_sparsity_weight")
                 * terms[f"{kind}_between_sparsity_loss"])
    if with_mixing_kl:
        loss += weights.mixing_kl_weight * terms["mixing_kl"]
    return loss


class ConstellationAutoencoder(nn.Module):
    """Points to object capsules and back: set transformer, votes, likelihood, losses.

    Args:
        config: the configuration; what it does not name has the original's default.
        seed: draws the initial weights, bit-equal to the reference's from the same seed.

    Source: original `models/constellation.py: ConstellationAutoencoder`; paper section 2.1.
    """

    def __init__(self, config: ConstellationConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        self.check_range = True  # training switches it off: it draws its points itself
        # From this rank's rows to those of all ranks (`port.training.distributed`).
        self.gather = alone
        repairs, encoder, rng = config.repairs, config.obj_encoder, np.random.default_rng(seed)
        self.object_encoder = attention.SetTransformer(
            decoders.N_DIMS, encoder.n_layers, encoder.n_heads, encoder.n_dims, encoder.n_output_dims,
            encoder.n_outputs, encoder.layer_norm, rng, encoder.n_inducing_points,
            encoder.dropout_rate, "log_presence" if "Q01" in repairs else "faithful")
        plain = config.obj_decoder.klass == "ConstellationDecoder"
        kind = decoders.ConstellationDecoder if plain else decoders.ConstellationCapsule
        # Named as the original's scope, so that one mapping table serves both decoders.
        self.decoder_name = "constellation_decoder" if plain else "constellation_capsule"
        self.add_module(self.decoder_name, kind(encoder.n_output_dims, config.obj_decoder, rng, repairs))

    @property
    def object_decoder(self) -> nn.Module:
        """The decoder, whichever it is."""
        return getattr(self, self.decoder_name)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights, which the points must have too."""
        return self.object_encoder.inducing_points.dtype

    def check_points(self, points: Tensor, presence: Tensor | None) -> None:
        """Refuse points or presences of another shape, dtype or range.

        Args:
            points: `[B, M, 2]`.
            presence: `[B, M]` or None.

        Raises:
            ValueError: says what was expected and what was given.
        """
        inputs.check_points(points, presence, decoders.N_DIMS, self.dtype, self.check_range)

    def forward(self, points: Array, presence: Array | None = None, noise: Noise | None = None,
                taps: bool = False, pictures: bool = False) -> Result:
        """One forward pass.

        Args:
            points: `[B, M, 2]`, in the model's dtype.
            presence: `[B, M]`, 1 for a point that is there; None for all.
            noise: the draws (`Noise.draw`); None is no noise, in either mode.
            taps: record every intermediate under its golden name.
            pictures: keep what a picture of the points needs.

        Raises:
            ValueError: points, presences or noise that do not fit the configuration.
        """
        self.check_points(points, presence)
        settings, repairs = self.config.autoencoder, self.config.repairs
        draws = {} if noise is None else noise.assign(self.config, points.shape[0])
        log = Taps() if taps else SILENT
        points = log.watch(points)
        for name in ("input/corners", "obj_enc/input"):
            log.record(name, points)
        if presence is not None:
            for name in ("input/presence", "obj_enc/presence"):
                log.record(name, presence)
        encoded, steps = self.object_encoder(points, presence, draws.get("attention"))
        for i, (before, after) in enumerate(steps):
            log.record(f"obj_enc/layer{i}_in", before)
            log.record(f"obj_enc/layer{i}_out", after)
        log.record("obj_enc/output", encoded)
        explained = self.object_decoder(encoded, points, presence, draws.get("caps"),
                                        draws.get("vote"), draws.get("caps_mask"))

        likelihood, n_points = explained.likelihood, points.shape[1]
        posterior = likelihood.posterior_mixing_probs
        mass_explained_by_votes = torch.sum(posterior, 1)
        by_capsule = mass_explained_by_votes.reshape(*explained.pres_logit_per_caps.shape, -1)
        share = mass_explained_by_votes / n_points  # Q35: of votes, not of capsules, and of absent points too
        if "Q35" in repairs:
            there = torch.ones_like(points[..., 0]) if presence is None else presence
            present = torch.sum(posterior * there[..., None], 1)
            share = torch.sum(present.reshape(by_capsule.shape), -1) / torch.sum(
                there, 1, keepdim=True).clamp(min=1.0)
        scalars = {"log_prob": likelihood.log_prob, "dynamic_weights_l2": explained.dynamic_weights_l2,
                   "mixing_kl": explained.mixing_kl, "sparsity_loss": explained.sparsity_loss,
                   "mean_scale": torch.mean(explained.scale)}
        # These look at the whole batch: with several ranks, at the rows of all of them.
        whole_share, whole_presence = self.gather(share), self.gather(explained.caps_presence_prob)
        for kind, p in (("posterior", whole_share), ("prior", whole_presence)):
            constant = settings.prior_within_example_constant if kind == "prior" else 0.0
            within, between = losses.sparsity_loss(
                getattr(settings, f"{kind}_sparsity_loss_type"), p, settings.n_classes, constant)
            scalars[f"{kind}_within_sparsity_loss"] = within
            scalars[f"{kind}_between_sparsity_loss"] = between
        loss = total_loss(scalars, settings, "Q33" in repairs)
        if taps:
            self._record(log, explained, scalars)
            log.record("loss/total", loss)
            log.record("loss/mass_explained_by_capsule", mass_explained_by_votes)
        shown = None
        if pictures:
            shown = {"points": points, "vote": explained.vote, "scale": explained.scale,
                     "vote_presence_prob": explained.vote_presence_prob,
                     "is_from_capsule": likelihood.is_from_capsule, "winner": likelihood.winner}
        return Result(loss, scalars, torch.sum(by_capsule, -1), explained.caps_presence_prob,
                      presence, None, None, log if taps else None, shown)

    def _record(self, log: Recorder, explained: decoders.Explained, scalars: dict[str, Array]) -> None:
        """The original's result fields."""
        log.record("obj_dec/all_params", explained.all_params)
        fields = {**explained.likelihood._asdict(), "vote": explained.vote, "scale": explained.scale,
                  "pres_logit_per_caps": explained.pres_logit_per_caps,
                  "pres_logit_per_vote": explained.pres_logit_per_vote,
                  "raw_caps_params": explained.raw_caps_params,
                  "raw_caps_features": explained.raw_caps_features, "transform": explained.transform,
                  "caps_presence_prob": explained.caps_presence_prob, **scalars}
        for name, value in fields.items():
            if value is not None:
                log.record(f"res/{name}", value)
