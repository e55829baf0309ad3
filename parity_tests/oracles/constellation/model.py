"""Oracles of the constellation model: votes without an order for a set of points."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.core import attention, layers, losses
from parity_tests.oracles.scae import object_decoder
from parity_tests.oracles.scalars import as64, sub_scope

Variables = Mapping[str, np.ndarray]
Taps = dict[str, np.ndarray]


def order_invariant_likelihood(
    votes, scales, vote_presence_prob, x, presence=None, n_votes=1, df=None
) -> Taps:
    """Points explained by any of V votes or a dummy.

    logit_v = safe_log(vote presence), dummy logit and log-density -2 ln 10; pi = softmax(logits)
    over V + 1. log_prob = mean_b sum_m presence_m log sum_v pi_v p(x_m; vote_v, scale_v);
    posterior = softmax_v(logit + log p) without the dummy; winner = the vote of the argmax over V,
    is_from_capsule its index // n_votes, winner_pres its presence; vote_presence = logit > dummy
    logit; soft_winner and soft_winner_pres are zeros.
    Args: votes [B, V, D]; scales, vote_presence_prob [B, V]; x [B, M, D]; presence [B, M] or None.
    Source: capsule.py, OrderInvariantCapsuleLikelihood.
    """
    votes, scales, x = as64(votes), as64(scales), as64(x)
    pres, dummy = as64(vote_presence_prob), object_decoder.DUMMY
    n_images, n_all, n_dims = votes.shape
    n_points = x.shape[1]
    out = {
        "vote_presence": np.zeros((n_images, n_all)),
        "winner": np.zeros((n_images, n_points, n_dims)),
        "winner_pres": np.zeros((n_images, n_points)),
        "is_from_capsule": np.zeros((n_images, n_points)),
        "mixing_logits": np.zeros((n_images, n_all + 1)),
        "mixing_log_prob": np.zeros((n_images, n_all + 1)),
        "soft_winner": np.zeros((n_images, n_points, n_dims)),
        "soft_winner_pres": np.zeros((n_images, n_points)),
        "posterior_mixing_probs": np.zeros((n_images, n_points, n_all)),
    }
    log_prob = 0.0
    for b in range(n_images):
        logits = [scalars.safe_log(float(pres[b, v])) for v in range(n_all)] + [dummy]
        normaliser = scalars.log_sum_exp(logits)
        for v in range(n_all + 1):
            out["mixing_logits"][b, v] = logits[v]
            out["mixing_log_prob"][b, v] = logits[v] - normaliser
        for v in range(n_all):
            out["vote_presence"][b, v] = 1.0 if logits[v] > dummy else 0.0
        for m in range(n_points):
            density = [
                object_decoder.vote_log_prob(x[b, m], votes[b, v], float(scales[b, v]), df)
                for v in range(n_all)
            ] + [dummy]
            joint = [logits[v] + density[v] for v in range(n_all + 1)]
            mixed = [logits[v] - normaliser + density[v] for v in range(n_all + 1)]
            point = scalars.log_sum_exp(mixed)
            log_prob += point if presence is None else point * float(presence[b][m])
            posterior = scalars.softmax(joint)
            winner = scalars.argmax(joint[:-1])
            out["is_from_capsule"][b, m] = winner // n_votes
            out["winner_pres"][b, m] = pres[b, winner]
            for v in range(n_all):
                out["posterior_mixing_probs"][b, m, v] = posterior[v]
            for d in range(n_dims):
                out["winner"][b, m, d] = votes[b, winner, d]
    out["log_prob"] = np.float64(log_prob / n_images)
    return out


def mixing_kl(mixing_logits, mixing_log_prob, n_states: int) -> np.ndarray:
    """mean_b sum_v softmax(logits)_v (log pi_v + log n). Source: capsule.py, ConstellationCapsule."""
    total = 0.0
    for b in range(len(mixing_logits)):
        probs = scalars.softmax([float(value) for value in mixing_logits[b]])
        for v, prob in enumerate(probs):
            total += prob * (float(mixing_log_prob[b][v]) + math.log(n_states))
    return np.float64(total / len(mixing_logits))


def usage_loss(is_from_capsule, presence, pres_logit) -> np.ndarray:
    """mean_b sum_o [w > 0] xe([w > 1], logit), w = present points that capsule o wins.

    Source: capsule.py, ConstellationCapsule.
    """
    total = 0.0
    for b, o in np.ndindex(np.shape(pres_logit)):
        wins = 0.0
        for m in range(len(is_from_capsule[b])):
            if is_from_capsule[b][m] == o:
                wins += 1.0 if presence is None else float(presence[b][m])
        if wins > 0.0:
            logit = float(pres_logit[b][o])
            # -log sigmoid(logit) where the label is 1, -log sigmoid(-logit) where it is 0.
            total += scalars.softplus(-logit if wins > 1.0 else logit)
    return np.float64(total / len(pres_logit))


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


def total_loss(terms: Mapping, weights: Mapping) -> np.ndarray:
    """-log_prob + w sparsity + w dynamic l2 + w within - w between of posterior and prior.

    Source: models/constellation.py, ConstellationAutoencoder.
    """
    loss = -float(terms["log_prob"]) + weights["sparsity_weight"] * float(terms["sparsity_loss"])
    loss += weights["dynamic_l2_weight"] * float(terms["dynamic_weights_l2"])
    for kind in ("posterior", "prior"):
        for sign, place in ((1.0, "within"), (-1.0, "between")):
            weight = weights[f"{kind}_{place}_example_sparsity_weight"]
            loss += sign * weight * float(terms[f"{kind}_{place}_sparsity_loss"])
    return np.float64(loss)


def constellation_autoencoder(
    arguments: Mapping, variables: Variables, corners, presence, noise: Sequence
) -> Taps:
    """Every tap of one forward pass; noise is the two raw draws, of capsules and of votes.

    Source: models/constellation.py, ConstellationAutoencoder.
    """
    taps: Taps = {"input/corners": corners, "obj_enc/input": corners}
    if presence is not None:
        taps["input/presence"] = taps["obj_enc/presence"] = presence
    own = sub_scope(variables, "set_transformer")
    settings = {k: arguments["obj_encoder"][k] for k in ("n_layers", "n_heads", "layer_norm")}
    states = attention.set_transformer_layers(corners, presence, own, **settings)
    for i in range(settings["n_layers"]):
        taps[f"obj_enc/layer{i}_in"], taps[f"obj_enc/layer{i}_out"] = states[i], states[i + 1]
    encoded = attention.set_transformer_output(states[-1], presence, own, settings["n_heads"])
    taps["obj_enc/output"] = encoded

    decoder = dict(arguments["obj_decoder"])
    plain = decoder.pop("klass") == "ConstellationDecoder"
    function = constellation_decoder if plain else constellation_capsule
    own = sub_scope(variables, "constellation_decoder" if plain else "constellation_capsule")
    draws = dict(zip(("noise_caps", "noise_vote"), noise))
    out = function(encoded, corners, presence, own, **decoder, **draws)
    taps["obj_dec/all_params"] = out.pop("all_params")
    out["mean_scale"] = np.float64(out["scale"].mean())

    weights, posterior = arguments["autoencoder"], out["posterior_mixing_probs"]
    mass = np.zeros(out["scale"].shape)
    for b, m, v in np.ndindex(posterior.shape):
        mass[b, v] += posterior[b, m, v]
    share = mass / np.shape(corners)[1]
    for kind, p in (("posterior", share), ("prior", out["caps_presence_prob"])):
        constant = weights["prior_within_example_constant"] if kind == "prior" else 0.0
        found = losses.sparsity_loss(
            weights[f"{kind}_sparsity_loss_type"], p, weights["n_classes"], constant
        )
        for place, value in zip(("within", "between"), found):
            out[f"{kind}_{place}_sparsity_loss"] = value
    taps.update({f"res/{name}": value for name, value in out.items()})
    taps["loss/total"] = total_loss(out, weights)
    taps["loss/mass_explained_by_capsule"] = mass
    return taps
