"""The whole image autoencoder of the original's `capsules/scae.py`, in TensorFlow 2.

Read beside `port/scae/model.py`: same class, same order of computation; images are channels last here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Float

from reference.core import attention, losses, mixture, ops, preprocess, probe
from reference.core.module import NamedModule, Taps, frozen
from reference.scae import object_decoder as objects
from reference.scae import part_decoder as decoders
from reference.scae import part_encoder as encoders

Array = Float[tf.Tensor, "..."]

# What recordings call by the names of these fields, in the recordings' order.
VOTE_FIELDS = ("pres_logit_per_caps", "pres_logit_per_vote", "raw_caps_params", "raw_caps_features")
LIKELIHOOD_FIELDS = ("winner", "winner_pres", "is_from_capsule", "mixing_logits", "mixing_log_prob", "soft_winner",
                     "soft_winner_pres", "posterior_mixing_probs")
AT_ONCE = 8  # reconstructions by one capsule each: B·O of K canvases would be the most memory of a recorded pass


class Result(NamedTuple):
    """A forward pass: the optimised scalar, its terms, presences, probe logits and taps.

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


class Objects(NamedTuple):
    """What a level above the objects builds on: encoded capsules, votes, presence, what they explain."""

    encoded: Array
    votes: objects.CapsuleVotes
    caps_presence_prob: Array
    target_pose: Array
    target_presence: Array


class Pass(NamedTuple):
    """What a forward pass has made by its end, for recordings and pictures."""

    target: Array
    parts: encoders.PartCapsules
    templates: Array
    votes: objects.CapsuleVotes
    flat_votes: Array
    vote_presence: Array
    likelihood: objects.Likelihood
    caps_presence_prob: Array
    dec_pose: Array
    dec_presence: Array
    decoded: decoders.Decoded
    log_prob: Array


class ImageAutoencoder(NamedModule):
    """Stacked capsule autoencoder: parts, objects, reconstruction, losses and probes.

    Args:
        arguments: nested class arguments (`canvas`, `channels`, `cnn`, `part_encoder`,
            `part_decoder`, `obj_encoder`, `obj_decoder`, `autoencoder`, `repairs`). With `model`
            `ocae` the part capsules stay as they are: no gradient reaches them.
        seed: draws the initial weights.
        dtype: `tf.float32` or `tf.float64`.

    Source: original `scae.py: ImageAutoencoder` and `configs/model_config.py`; paper section 2.
    """

    def __init__(self, arguments: Mapping[str, Any], seed: int = 0,
                 dtype: tf.DType = tf.float32) -> None:
        super().__init__("", dtype)
        self.arguments = a = {**arguments, "repairs": arguments.get("repairs", ())}
        repairs, part, settings = a["repairs"], a["part_encoder"], a["autoencoder"]
        rng = np.random.default_rng(seed)
        with frozen() if a.get("model") == "ocae" else contextlib.nullcontext():
            self.part_encoder = encoders.PartEncoder(
                "capsule_image_encoder", a["canvas"], a["channels"], a["cnn"], part, rng,
                "transposed" if "Q02" in repairs else "faithful", dtype=dtype)
            self.part_decoder = decoders.PartDecoder(
                "template_based_image_decoder", a["canvas"], part["n_caps"], part["n_features"],
                a["part_decoder"], rng, dtype)
        size = a["part_decoder"]["template_size"]
        n_tokens = part["n_caps_dims"] + 1 + part["n_features"]
        # An encoder of one argument gets poses, presences and features only, as the original calls it.
        mlp = settings.get("object_encoder", "set_transformer") == "mlp"
        self.feeds_templates = settings["feed_templates"] and not mlp
        if self.feeds_templates:
            n_tokens += size[0] * size[1] * a["channels"]
        objects_in = a["obj_encoder"]
        if mlp:
            self.object_encoder = attention.MLPEncoder(
                "mlp_encoder", part["n_caps"], n_tokens, objects_in["n_layers"], objects_in["n_dims"],
                objects_in["n_output_dims"], objects_in["n_outputs"], rng, dtype)
        else:
            self.object_encoder = attention.SetTransformer(
                "set_transformer", n_tokens, objects_in["n_layers"], objects_in["n_heads"],
                objects_in["n_dims"], objects_in["n_output_dims"], objects_in["n_outputs"],
                objects_in["layer_norm"], rng, objects_in["n_inducing_points"],
                objects_in["dropout_rate"], "log_presence" if "Q01" in repairs else "faithful", dtype)
        self.object_decoder = objects.ImageCapsule(
            "image_capsule", objects_in["n_output_dims"], a["obj_decoder"], rng,
            "normalised" if "Q03" in repairs else "faithful", dtype)
        self.probes = []
        if settings.get("probe", True):
            self.probes = [probe.ClassificationProbe(
                f"image_autoencoder/{name}", a["obj_decoder"]["n_caps"], settings["n_classes"], rng,
                dtype) for name in ("classification_probe", "classification_probe_1")]

    def assign_noise(self, raw: Sequence[Array] | None) -> dict[str, Any]:
        """Raw draws, in the original's order, by their use; see the port's `noise_plan`."""
        draws = [] if raw is None else [tf.cast(r, self.dtype) for r in raw]
        part, encoder, decoder = (self.arguments[k] for k in ("part_encoder", "obj_encoder",
                                                              "obj_decoder"))
        uses: dict[str, Any] = {}
        if draws and part["noise_scale"] > 0:
            uses["part"] = draws.pop(0)
        if draws and encoder["dropout_rate"] > 0:
            uses["attention"] = [draws.pop(0) for _ in range(2 * encoder["n_layers"])]
        if draws and decoder["caps_dropout_rate"] > 0:
            uses["caps_mask"] = draws.pop(0)
        if draws and decoder["noise_type"] is not None:
            uses["caps"], uses["vote"] = draws.pop(0), draws.pop(0)
        if draws and "upper_encoder" in self.arguments:
            encoder, decoder = self.arguments["upper_encoder"], self.arguments["upper_decoder"]
            if encoder["dropout_rate"] > 0:
                uses["upper_attention"] = [draws.pop(0) for _ in range(2 * encoder["n_layers"])]
            if decoder["caps_dropout_rate"] > 0:
                uses["upper_caps_mask"] = draws.pop(0)
            if decoder["noise_type"] is not None:
                uses["upper_caps"], uses["upper_vote"] = draws.pop(0), draws.pop(0)
        if draws:
            raise ValueError(f"{len(draws)} raw draws too many for this configuration")
        return uses

    def decayed_weights(self) -> list[tf.Variable]:
        """The variables under weight decay: those trained that are named `w` or `weights` (Q15)."""
        return [variable for name, variable in self.variables_by_name.items()
                if variable.trainable and name.rpartition("/")[2] in ("w", "weights")]

    def above(self, found: Objects, draws: Mapping[str, Any], scalars: dict[str, Array], log: Taps
              ) -> Array | None:
        """What a level above the objects adds to the loss; there is none here."""
        return None

    def __call__(self, image: Array, label: tf.Tensor | None = None,
                 noise: Sequence[Array] | None = None, taps: bool = False,
                 target: Array | None = None, tape: tf.GradientTape | None = None) -> Result:
        """One forward pass.

        Args:
            image: `[B, S, S, C]` in [0, 1].
            label: integers `[B]`; without them the probes' terms are absent.
            noise: raw draws in the original's order; None for no noise.
            taps: record every intermediate, and what is only for pictures.
            target: what is reconstructed, `[B, S, S, C]`; by default what the setting `target`
                makes of the image: itself or its edges (`normalized_sobel_edges`).
            tape: watches taps that no variable reaches, so that gradients can be taken there.
        """
        settings, repairs = self.arguments["autoencoder"], self.arguments["repairs"]
        image = tf.cast(image, self.dtype)
        if target is None:
            edges = settings.get("target", "image") == "sobel"
            target = preprocess.normalized_sobel_edges(image) if edges else image
        else:
            target = tf.cast(target, self.dtype)
        draws, log = self.assign_noise(noise), Taps(tape)
        parts = self.part_encoder(image, draws.get("part"), log)
        templates = self.part_decoder.make_templates(parts.feature, log)
        tokens, presence, target_pose, target_presence = self._object_input(parts, templates, log)
        log["obj_enc/input"], log["obj_enc/presence"] = tokens, presence
        encoded, steps = self.object_encoder(tokens, presence, draws.get("attention"))
        for i, (before, after) in enumerate(steps):
            log[f"obj_enc/layer{i}_in"], log[f"obj_enc/layer{i}_out"] = before, after
        log["obj_enc/output"] = encoded
        votes, flat_votes, likelihood, caps_presence_prob = self.object_decoder(
            encoded, target_pose, target_presence, draws.get("caps"), draws.get("vote"),
            draws.get("caps_mask"), log)

        dec_pose = {"enc": parts.pose, "soft": likelihood.soft_winner,
                    "hard": likelihood.winner}[settings["vote_type"]]
        dec_presence = {"enc": parts.presence, "soft": likelihood.soft_winner_pres,
                        "hard": likelihood.winner_pres}[settings["pres_type"]]
        decoded = self.part_decoder(dec_pose, dec_presence, templates)
        log_prob = mixture.mixture_log_prob(target, decoded.mixing_logits, decoded.means,
                                            decoded.scale)
        scalars = {"rec_ll": ops.flat_reduce(log_prob), "log_prob": likelihood.log_prob,
                   "dynamic_weights_l2": votes.dynamic_weights_l2,
                   "primary_caps_l1": ops.flat_reduce(parts.presence)}
        if settings.get("template_l1_weight", 0.0) > 0:
            scalars["template_l1"] = losses.template_l1(self.part_decoder.templates)
        if settings.get("mse_weight", 0.0) > 0:
            mean = mixture.mixture_mean(decoded.mixing_logits, decoded.means)
            scalars["rec_mse"] = tf.reduce_mean(tf.square(target - mean))
        mass_explained_by_capsule = tf.reduce_sum(likelihood.posterior_mixing_probs, 1)
        n_points = likelihood.posterior_mixing_probs.shape[1]
        logits = self._batch_terms(mass_explained_by_capsule, caps_presence_prob, n_points, label, scalars)
        if settings["weight_decay"] > 0:
            scalars["weight_decay_loss"] = losses.weight_decay_loss(self.decayed_weights())
        loss = losses.total_loss(scalars, settings)
        more = self.above(Objects(encoded, votes, caps_presence_prob, target_pose, target_presence), draws,
                          scalars, log)
        loss = loss if more is None else loss + more
        if taps:
            vote_presence = votes.vote_presence if "Q04" in repairs else likelihood.vote_presence
            made = Pass(target, parts, templates, votes, flat_votes, vote_presence, likelihood, caps_presence_prob,
                        dec_pose, dec_presence, decoded, log_prob)
            log["input/image"] = image
            if label is not None:
                log["input/label"] = label
            self._record(log, made, scalars)
            log["loss/total"], log["loss/mass_explained_by_capsule"] = loss, mass_explained_by_capsule
        return Result(loss, scalars, mass_explained_by_capsule, caps_presence_prob, parts.presence, *logits,
                      log if taps else None)

    def _object_input(self, parts: encoders.PartCapsules, templates: Array, log: Taps
                      ) -> tuple[Array, Array, Array, Array]:
        """Tokens and presences of the object encoder, and the poses and presences that it has to explain."""
        token_templates = templates
        if self.arguments["part_decoder"]["colorize_templates"]:
            # The original colours anew for every use, so the gradient at this tap is the tokens' own.
            token_templates = log["templates/colorized"] = tf.identity(templates)

        presence, pose = parts.presence, parts.pose
        target_pose, target_presence = pose, presence
        if self.arguments["autoencoder"]["stop_grad_caps_inpt"]:
            pose, presence, token_templates = (
                tf.stop_gradient(v) for v in (pose, presence, token_templates))
        if self.arguments["autoencoder"]["stop_grad_caps_target"]:
            target_pose, target_presence = (
                tf.stop_gradient(v) for v in (target_pose, target_presence))
        tokens = [pose, 1.0 - presence[..., None]]
        if parts.feature is not None:
            tokens.append(parts.feature)  # Q24: never cut
        if self.feeds_templates:
            batch, n_parts = pose.shape[:2]
            flat = tf.reshape(token_templates, [token_templates.shape[0], n_parts, -1])
            tokens.append(tf.repeat(flat, batch, axis=0) if flat.shape[0] != batch else flat)
        return log.watch(tf.concat(tokens, -1)), presence, target_pose, target_presence

    def _batch_terms(self, mass_explained_by_capsule: Array, presence: Array, n_points: int, label: tf.Tensor | None,
                     scalars: dict[str, Array]) -> list[Array | None]:
        """Sparsity losses and probes, into `scalars`; the logits of both probes."""
        settings = self.arguments["autoencoder"]
        for kind, p in (("posterior", mass_explained_by_capsule / n_points), ("prior", presence)):
            constant = settings["prior_within_example_constant"] if kind == "prior" else 0.0
            within, between = losses.sparsity_loss(
                settings[f"{kind}_sparsity_loss_type"], p, settings["n_classes"], constant)
            scalars[f"{kind}_within_sparsity_loss"] = within
            scalars[f"{kind}_between_sparsity_loss"] = between
        logits: list[Array | None] = [None, None]
        for i, (name, features) in enumerate((("posterior", mass_explained_by_capsule), ("prior", presence))):
            if self.probes:
                logits[i], xe, accuracy = self.probes[i](features, label)
                if label is not None:
                    scalars[f"{name}_cls_xe"], scalars[f"{name}_cls_acc"] = xe, accuracy
        if "posterior_cls_acc" in scalars:
            scalars["best_cls_acc"] = tf.maximum(scalars["posterior_cls_acc"],
                                                 scalars["prior_cls_acc"])
        return logits

    def _record(self, log: Taps, made: Pass, scalars: dict[str, Array]) -> None:
        """What only pictures and recordings need: reconstructions and result fields."""
        def picture(call: decoders.Decoded) -> Array:
            return mixture.mixture_mean(call.mixing_logits, call.means)

        mean, mode = picture(made.decoded), mixture.mixture_mode(made.decoded.mixing_logits, made.decoded.means)
        error = tf.square(made.target - mode)
        scalars["mse"] = ops.flat_reduce(error)
        batch, n_caps, n_parts = made.flat_votes.shape[:3]
        log["part_dec/pose_in"], log["part_dec/presence_in"] = made.dec_pose, made.dec_presence
        log["part_dec/inverse_pose"] = self.part_decoder.sampled_pose(made.dec_pose)
        log["part_dec/transformed_templates"] = made.decoded.transformed_templates
        log["part_dec/mixing_logits_with_bg"] = made.decoded.mixing_logits
        log["part_dec/mean"], log["part_dec/mode"] = mean, mode
        log["part_dec/log_prob_per_pixel"] = made.log_prob
        if self.part_decoder.scale is not None:
            log["part_dec/scale"] = made.decoded.scale
        log["loss_parts/rec_mode"], log["loss_parts/rec_mean"] = mode, mean
        decode = self.part_decoder
        log["bottom_up/mean"] = picture(decode(made.parts.pose, made.parts.presence, made.templates))
        log["top_down/mean"] = picture(decode(made.likelihood.winner, made.parts.presence, made.templates))
        # Q25: votes run over (example, capsule), presences and features over (capsule, example).
        def spread(x: Array) -> Array:
            if "Q25" in self.arguments["repairs"]:
                return tf.repeat(x, n_caps, axis=0)
            return tf.tile(x, [n_caps, *[1] * (len(x.shape) - 1)])

        log["per_caps_rec/pose_in"] = pose = tf.reshape(made.flat_votes, [batch * n_caps, n_parts, 6])
        log["per_caps_rec/presence_in"] = presence = tf.reshape(
            made.vote_presence, [batch * n_caps, n_parts]) * spread(made.parts.presence)
        own = made.templates.shape[0] == batch
        per_caps = spread(made.templates) if own else made.templates
        # In no loss, so in no graph: at full size this alone would hold gigabytes.
        with contextlib.nullcontext() if log.tape is None else log.tape.stop_recording():
            log["per_caps_rec/mean_per_image"] = tf.concat([tf.reduce_mean(picture(decode(
                pose[i:i + AT_ONCE], presence[i:i + AT_ONCE],
                per_caps[i:i + AT_ONCE] if own else per_caps)), (1, 2, 3))
                for i in range(0, batch * n_caps, AT_ONCE)], 0)
        log["obj_dec/raw_caps_params"] = made.votes.raw_caps_params
        log["obj_dec/all_params"] = made.votes.all_params
        fields = {"vote": made.flat_votes, "scale": made.votes.scale, "vote_presence": made.vote_presence,
                  **{name: getattr(made.votes, name) for name in VOTE_FIELDS},
                  **{name: getattr(made.likelihood, name) for name in LIKELIHOOD_FIELDS},
                  "caps_presence_prob": made.caps_presence_prob, "primary_presence": made.parts.presence,
                  "templates": made.templates, "template_pres": made.parts.presence,
                  "used_templates": made.decoded.transformed_templates, "rec_mode": mode,
                  "rec_mean": mean, "mse_per_pixel": error, "rec_ll_per_pixel": made.log_prob, **scalars}
        log.update({f"res/{name}": value for name, value in fields.items()})

