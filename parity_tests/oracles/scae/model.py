"""Oracle of the whole image model, tap by tap; for tiny sizes only."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parity_tests.oracles.core import attention, losses, probe, warp
from parity_tests.oracles.core.layers import mlp
from parity_tests.oracles.scae import object_decoder, part_decoder, part_encoder
from parity_tests.oracles.scalars import as64, sub_scope

Taps = dict[str, np.ndarray]


def object_tokens(pose, presence, feature=None, templates=None) -> np.ndarray:
    """The object encoder's input: [pose 6 | 1 - presence | feature F | template h w C] per part.

    Args: pose [B, K, 6]; presence [B, K]; feature [B, K, F] or None; templates [B or 1, K, h, w,
    C] or None. Returns [B, K, 7 + F + h w C].
    Source: scae.py, ImageAutoencoder._build.
    """
    n_images, n_caps = np.shape(pose)[:2]
    rows = []
    for b in range(n_images):
        for k in range(n_caps):
            row = [float(value) for value in pose[b, k]]
            row.append(1.0 - float(presence[b, k]))
            if feature is not None:
                row += [float(value) for value in feature[b, k]]
            if templates is not None:
                template = templates[b if templates.shape[0] > 1 else 0, k]
                row += [float(template[index]) for index in np.ndindex(template.shape)]
            rows.append(row)
    return as64(rows).reshape(n_images, n_caps, len(rows[0]))


def _object_capsules(taps: Taps, arguments: Mapping, variables: Mapping, noise: Sequence) -> Taps:
    """Object encoder and decoder; returns the fields of the object decoder."""
    tokens = object_tokens(
        taps["part_enc/pose"],
        taps["part_enc/presence"],
        taps.get("part_enc/feature"),
        taps["templates/colorized"] if arguments["autoencoder"]["feed_templates"] else None,
    )
    presence = taps["part_enc/presence"]
    own = sub_scope(variables, "set_transformer")
    settings = {k: arguments["obj_encoder"][k] for k in ("n_layers", "n_heads", "layer_norm")}
    taps["obj_enc/input"], taps["obj_enc/presence"] = tokens, presence
    states = attention.set_transformer_layers(tokens, presence, own, **settings)
    for i in range(settings["n_layers"]):
        taps[f"obj_enc/layer{i}_in"], taps[f"obj_enc/layer{i}_out"] = states[i], states[i + 1]
    taps["obj_enc/output"] = attention.set_transformer_output(
        states[-1], presence, own, settings["n_heads"]
    )

    decoder = dict(arguments["obj_decoder"])
    noise = list(noise)
    if decoder["caps_dropout_rate"] > 0:
        decoder["mask"] = noise.pop(0)
    if noise:
        decoder["noise_caps"], decoder["noise_vote"] = noise
    for name in ("n_caps", "n_caps_dims", "n_votes", "n_caps_params", "n_hiddens"):
        decoder.pop(name)
    fields = object_decoder.image_capsule(
        taps["obj_enc/output"],
        taps["part_enc/pose"],
        presence,
        sub_scope(variables, "image_capsule"),
        **decoder,
    )
    taps["obj_dec/all_params"] = fields.pop("all_params")
    taps["obj_dec/raw_caps_params"] = fields["raw_caps_params"]
    return fields


def _per_capsule(taps: Taps, fields: Taps, decode) -> None:
    """Reconstructions of single capsules, paired as the original pairs them.

    Row n of the votes is (example n // O, capsule n % O); row n of presences and features is
    example n % B, so most rows mix two examples.
    """
    n_images, n_caps, n_votes = fields["vote_presence"].shape
    pose = np.zeros((n_images * n_caps, n_votes, 6))
    presence = np.zeros((n_images * n_caps, n_votes))
    feature = taps.get("part_enc/feature")
    tiled = None if feature is None else np.zeros((n_images * n_caps, *feature.shape[1:]))
    for n in range(n_images * n_caps):
        for v in range(n_votes):
            present = float(fields["vote_presence"][n // n_caps, n % n_caps, v])
            pose[n, v] = fields["vote"][n // n_caps, n % n_caps, v]
            presence[n, v] = present * float(taps["part_enc/presence"][n % n_images, v])
            if tiled is not None:
                tiled[n, v] = feature[n % n_images, v]
    mean = decode(pose, presence, tiled)["mean"]
    per_image = np.zeros(n_images * n_caps)
    for n in range(n_images * n_caps):
        values = [float(mean[(n, *index)]) for index in np.ndindex(mean.shape[1:])]
        per_image[n] = sum(values) / len(values)
    taps["per_caps_rec/pose_in"], taps["per_caps_rec/presence_in"] = pose, presence
    taps["per_caps_rec/mean_per_image"] = per_image


def _reconstruct(taps: Taps, fields: Taps, settings: Mapping, decode, image) -> None:
    """The three decoder calls and the pixel terms."""
    pose, presence = taps["part_enc/pose"], taps["part_enc/presence"]
    feature = taps.get("part_enc/feature")
    bottom_up = decode(pose, presence, feature)
    taps["bottom_up/mean"] = bottom_up["mean"]
    taps["top_down/mean"] = decode(fields["winner"], presence, feature)["mean"]
    used_pose = {"enc": pose, "soft": fields["soft_winner"], "hard": fields["winner"]}
    used_presence = {
        "enc": presence,
        "soft": fields["soft_winner_pres"],
        "hard": fields["winner_pres"],
    }
    taps["part_dec/pose_in"] = used_pose[settings["vote_type"]]
    taps["part_dec/presence_in"] = used_presence[settings["pres_type"]]
    rec = bottom_up
    if (settings["vote_type"], settings["pres_type"]) != ("enc", "enc"):
        rec = decode(taps["part_dec/pose_in"], taps["part_dec/presence_in"], feature)
    taps["part_dec/mixing_logits_with_bg"] = rec["logits"]
    taps["part_dec/component_means_with_bg"] = rec["means"]
    taps["part_dec/scale"] = as64([rec["scale"]])
    taps["part_dec/transformed_templates"] = rec["transformed_templates"]
    poses = as64(taps["part_dec/pose_in"]).reshape(-1, 6)
    taps["part_dec/inverse_pose"] = warp.inverse_affine(poses)
    taps["part_dec/grid_coords"] = warp.affine_grid(
        taps["part_dec/inverse_pose"], rec["mode"].shape[1:3], rec["templates"].shape[2:4]
    )
    log_prob = part_decoder.image_log_prob(image, rec)
    taps["part_dec/log_prob_per_pixel"] = log_prob
    for name in ("mean", "mode"):
        taps[f"part_dec/{name}"] = taps[f"loss_parts/rec_{name}"] = rec[name]
    error = np.zeros(log_prob.shape)
    total_log_prob, total_error = 0.0, 0.0
    for index in np.ndindex(log_prob.shape):
        error[index] = (float(image[index]) - float(rec["mode"][index])) ** 2
        total_log_prob += float(log_prob[index])
        total_error += float(error[index])
    fields.update(
        used_templates=rec["transformed_templates"],
        rec_mode=rec["mode"],
        rec_mean=rec["mean"],
        mse_per_pixel=error,
        mse=np.float64(total_error / len(image)),
        rec_ll_per_pixel=log_prob,
        rec_ll=np.float64(total_log_prob / len(image)),
    )


def _sparsity(taps: Taps, fields: Taps, settings: Mapping) -> None:
    """Posterior and prior sparsity, and the capsules' mass over the points."""
    posterior = fields["posterior_mixing_probs"]
    n_images, n_points, n_caps = posterior.shape
    mass_explained_by_capsule, mean = np.zeros((n_images, n_caps)), np.zeros((n_images, n_caps))
    for b, o in np.ndindex(n_images, n_caps):
        for n in range(n_points):
            mass_explained_by_capsule[b, o] += float(posterior[b, n, o])
        mean[b, o] = mass_explained_by_capsule[b, o] / n_points
    taps["loss/mass_explained_by_capsule"] = mass_explained_by_capsule
    for name, p, constant in (
        ("posterior", mean, 0.0),
        ("prior", fields["caps_presence_prob"], settings["prior_within_example_constant"]),
    ):
        within, between = losses.sparsity_loss(
            settings[f"{name}_sparsity_loss_type"], p, settings["n_classes"], constant
        )
        fields[f"{name}_within_sparsity_loss"] = within
        fields[f"{name}_between_sparsity_loss"] = between


def image_autoencoder(
    arguments: Mapping[str, Any],
    variables: Mapping[str, np.ndarray],
    image,
    label=None,
    noise: Sequence | None = None,
    per_capsule: bool = True,
) -> Taps:
    """The whole image model on one batch.

    Args: arguments, the nested dict of a golden manifest; variables by the original's names;
    image [B, H, W, C]; label int [B] or None (no probes then); noise, the raw draws in the order
    they are made (part presence, capsule dropout mask if any, capsule logits, vote logits), None
    for none; per_capsule False leaves out the slowest taps, `per_caps_rec/*`.
    Returns every tap of a golden folder by its name, loss/total the optimised loss.
    Source: scae.py, ImageAutoencoder; section 8 of the facts sheet for the loss.
    """
    image = as64(image)
    settings = arguments["autoencoder"]
    noise = list(noise or [])
    encoder = dict(arguments["part_encoder"], noise=noise[0] if noise else None)
    taps = part_encoder.part_encoder(image, variables, arguments["cnn"]["strides"], **encoder)
    taps["input/image"] = image

    decoder = sub_scope(variables, "template_based_image_decoder")
    drawing = dict(arguments["part_decoder"])

    def decode(pose, presence, feature):
        return part_decoder.part_decoder(pose, presence, decoder, feature=feature, **drawing)

    feature = taps.get("part_enc/feature")
    taps["templates/logits"] = as64(decoder["templates"])
    taps["templates/raw"] = part_decoder.raw_templates(decoder, drawing["template_nonlin"])[0]
    taps["templates/colorized"] = part_decoder.make_templates(
        decoder,
        feature,
        drawing["colorize_templates"],
        drawing["template_nonlin"],
        drawing["color_nonlin"],
    )
    if drawing["colorize_templates"] and feature is not None:
        taps["templates/color_preact"] = mlp(feature, sub_scope(decoder, "mlp"))

    fields = _object_capsules(taps, arguments, variables, noise[1:])
    fields["primary_presence"] = fields["template_pres"] = taps["part_enc/presence"]
    fields["templates"] = taps["templates/colorized"]
    _reconstruct(taps, fields, settings, decode, image)
    if per_capsule:
        _per_capsule(taps, fields, decode)
    _sparsity(taps, fields, settings)
    fields["primary_caps_l1"] = np.float64(taps["part_enc/presence"].sum() / len(image))
    if settings["weight_decay"]:
        fields["weight_decay_loss"] = losses.weight_decay_loss(variables)
    if label is not None:
        taps["input/label"] = np.asarray(label)
        for name, scope, features in (
            ("posterior", "classification_probe", taps["loss/mass_explained_by_capsule"]),
            ("prior", "classification_probe_1", fields["caps_presence_prob"]),
        ):
            own = sub_scope(variables, f"image_autoencoder/{scope}")
            xe, accuracy = probe.classification_probe(features, label, own)
            fields[f"{name}_cls_xe"], fields[f"{name}_cls_acc"] = xe, accuracy
        fields["best_cls_acc"] = max(fields["posterior_cls_acc"], fields["prior_cls_acc"])
    taps["loss/total"] = losses.total_loss(fields, settings)
    taps.update({f"res/{name}": value for name, value in fields.items()})
    return taps
