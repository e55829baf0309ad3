"""Oracles of `constellation/decoder.py`."""

from collections.abc import Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.constellation.likelihood import (
    mixing_kl,
    order_invariant_likelihood,
    usage_loss,
)
from parity_tests.oracles.core import layers
from parity_tests.oracles.scae import object_decoder
from parity_tests.oracles.scalars import sub_scope

Variables = Mapping[str, np.ndarray]
Taps = dict[str, np.ndarray]


def caps_presence(vote_presence, n_caps: int) -> np.ndarray:
    """Largest vote presence of each capsule, [B, O]. Source: capsule.py, ConstellationCapsule."""
    n_images, n_all = np.shape(vote_presence)
    out = np.zeros((n_images, n_caps))
    for b, v in np.ndindex(n_images, n_all):
        o = v // (n_all // n_caps)
        out[b, o] = max(out[b, o], float(vote_presence[b][v]))
    return out


def _explained(out: Taps, x, presence, vote_presence_prob, n_caps: int, variables) -> Taps:
    """What both decoders share: likelihood, mixing KL, usage loss, presences."""
    raw = variables.get("order_invariant_capsule_likelihood/df")
    df = None if raw is None else object_decoder.degrees_of_freedom(raw)
    n_votes = out["vote"].shape[1] // n_caps
    out.update(order_invariant_likelihood(
        out["vote"], out["scale"], vote_presence_prob, x, presence, n_votes, df
    ))
    out["mixing_kl"] = mixing_kl(out["mixing_logits"], out["mixing_log_prob"], np.shape(x)[1])
    out["sparsity_loss"] = usage_loss(
        out["is_from_capsule"], presence, out["pres_logit_per_caps"]
    )
    out["caps_presence_prob"] = caps_presence(out["vote_presence"], n_caps)
    return out


def constellation_capsule(features, x, presence, variables: Variables, **settings) -> Taps:
    """A capsule layer whose votes are points: the translation of each 3 x 3 vote.

    Args: features [B, O, F]; x [B, M, 2]; presence [B, M] or None; settings of capsule_layer.
    Returns its fields and the likelihood's, capsules and votes in one axis.
    Source: capsule.py, ConstellationCapsule.
    """
    settings = {name: value for name, value in settings.items() if name != "pdf"}
    layer = object_decoder.capsule_layer(features, sub_scope(variables, "capsule_layer"), **settings)
    n_images, n_caps, n_votes = layer["scale"].shape
    flat = (n_images, n_caps * n_votes)
    vote, transform = np.zeros((*flat, 2)), np.zeros((*flat, 3, 3))
    for b, o, v in np.ndindex(n_images, n_caps, n_votes):
        transform[b, o * n_votes + v] = layer["vote"][b, o, v]
        for d in range(2):
            vote[b, o * n_votes + v, d] = layer["vote"][b, o, v, d, 2]
    out = {
        "vote": vote,
        "transform": transform,
        "scale": layer["scale"].reshape(flat),
        "pres_logit_per_caps": layer["pres_logit_per_caps"][..., 0],
        "pres_logit_per_vote": layer["pres_logit_per_vote"].reshape(flat),
        "raw_caps_params": layer["raw_caps_params"].reshape(n_images, -1),
        "raw_caps_features": layer["raw_caps_features"].reshape(n_images, -1),
        "dynamic_weights_l2": layer["dynamic_weights_l2"],
        "all_params": layer["all_params"],
    }
    soft = layer["vote_presence"].reshape(flat)
    return _explained(out, x, presence, soft, n_caps, variables)


def constellation_decoder(
    features, x, presence, variables: Variables, n_votes: int, noise_caps=None, noise_vote=None,
    noise_type="uniform", noise_scale=4.0, **_unused
) -> Taps:
    """An MLP per capsule gives 1 + 4 V numbers: presence, V presences, V scales, V points.

    The presence logits are the noise alone; scale = softplus(. + 1/2) + 1e-6; votes as they are.
    Source: capsule.py, ConstellationDecoder.
    """
    parameters = layers.batch_mlp(features, sub_scope(variables, "batch_mlp"))
    n_images, n_caps = parameters.shape[:2]
    factor = noise_scale if noise_type == "uniform" else 1.0
    flat = (n_images, n_caps * n_votes)
    out = {
        "vote": np.zeros((*flat, 2)),
        "scale": np.zeros(flat),
        "pres_logit_per_caps": np.zeros((n_images, n_caps)),
        "pres_logit_per_vote": np.zeros(flat),
        "dynamic_weights_l2": np.float64(0.0),
        "all_params": parameters,
    }
    soft = np.zeros(flat)
    for b, o in np.ndindex(n_images, n_caps):
        if noise_caps is not None:
            out["pres_logit_per_caps"][b, o] = float(noise_caps[b][o][0]) * factor
        for v in range(n_votes):
            at = o * n_votes + v
            if noise_vote is not None:
                out["pres_logit_per_vote"][b, at] = float(noise_vote[b][o][v]) * factor
            raw_scale = float(parameters[b, o, 1 + n_votes + v])
            out["scale"][b, at] = scalars.softplus(raw_scale + 0.5) + 1e-6
            for d in range(2):
                out["vote"][b, at, d] = parameters[b, o, 1 + 2 * n_votes + 2 * v + d]
            soft[b, at] = scalars.sigmoid(float(out["pres_logit_per_caps"][b, o])) * scalars.sigmoid(
                float(out["pres_logit_per_vote"][b, at])
            )
    return _explained(out, x, presence, soft, n_caps, variables)
