"""Oracles of `constellation/model.py`."""

from collections.abc import Mapping, Sequence

import numpy as np

from parity_tests.oracles.constellation.decoder import constellation_capsule, constellation_decoder
from parity_tests.oracles.core import attention, losses
from parity_tests.oracles.scalars import sub_scope

Variables = Mapping[str, np.ndarray]
Taps = dict[str, np.ndarray]


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
