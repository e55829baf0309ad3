"""Which oracle call answers for which function that was recorded (`tests/ops/test_oracles_goldens.py`)."""

from __future__ import annotations

import numpy as np

from parity_tests import oracles
from parity_tests.oracles import sub_scope


def _with_presence(x: dict) -> np.ndarray:
    """Mixing logits with the log presences added, as every mixture oracle wants them."""
    if "presence" not in x:
        return x["mixing_logits"]
    log_presence = oracles.core.ops.safe_log(x["presence"])
    return x["mixing_logits"] + oracles.core.ops.expand_dims(log_presence, n_dims=3)


def _mixture(x, a, v):
    logits, mix = _with_presence(x), oracles.core.mixture
    return {
        "mixing_log_prob": mix.mixing_log_prob(logits),
        "mixing_prob": mix.mixing_prob(logits),
        "log_prob": mix.mixture_log_prob(x["x"], logits, x["mean"], x["scale"]),
        "mean": mix.mixture_mean(logits, x["mean"]),
        "mode": mix.mixture_mode(logits, x["mean"], x["scale"]),
    }


def _mixture_mode(x, a, v):
    return oracles.core.mixture.mixture_mode(
        _with_presence(x), x["mean"], x["scale"], x.get("presence"), **a
    )


def _set_transformer(x, a, v):
    masks = [x[f"mask_{i}"] for i in range(2 * a["n_layers"])] if "mask_0" in x else None
    return oracles.core.attention.set_transformer(
        x["x"],
        x.get("presence"),
        sub_scope(v, "set_transformer"),
        a["n_layers"],
        a["n_heads"],
        a["layer_norm"],
        n_inducing_points=a.get("n_inducing_points", 0),
        dropout_masks=masks,
        dropout_rate=a.get("dropout_rate", 0.0),
    )


def _capsule_layer(x, a, v):
    own = sub_scope(v, "capsule_layer")
    settings = {"deformations": True, "noise_scale": 0.0, **a}
    inputs = dict(x)
    out = oracles.scae.object_decoder.capsule_layer(inputs.pop("features"), own, **settings, **inputs)
    out.pop("all_params")
    return out


def _freedom(v):
    """Degrees of freedom of a Student's t, None where no variable says so."""
    raw = [value for name, value in v.items() if name.endswith("/df")]
    return oracles.scae.object_decoder.degrees_of_freedom(raw[0]) if raw else None


def _capsule_likelihood(x, a, v):
    votes = dict(x, dummy_vote=v["capsule_likelihood/dummy_vote"], df=_freedom(v))
    return oracles.scae.object_decoder.capsule_likelihood(**votes)


def _order_invariant(x, a, v):
    return oracles.constellation.likelihood.order_invariant_likelihood(
        **x, n_votes=a["n_votes"], df=_freedom(v)
    )


def _constellations(x, a, v):
    words = {"basic": (0, 1), "all": (0, 1, 2, 3)}
    settings = {k: value for k, value in a.items() if k not in ("size_n", "shuffle_corners")}
    which = settings.pop("which_patterns")
    slots = words[which] if isinstance(which, str) else [slot for slot, in which]
    seed = int(x["np_random_seed"])
    return oracles.constellation.data.create(seed, a["size_n"], slots, **settings)


def _part_decoder(x, a, v):
    own = sub_scope(v, "template_based_image_decoder")
    inputs, settings = dict(x), dict(a)
    image = inputs.pop("img")
    out = oracles.scae.part_decoder.part_decoder(
        inputs.pop("pose"), inputs.pop("presence"), own, **inputs, **settings
    )
    out["log_prob"] = oracles.scae.part_decoder.image_log_prob(image, out)
    return out


def _pad_and_shift(x, a, v):
    image, column, row = x["img"][None], [int(x["x"])], [int(x["y"])]
    return oracles.core.preprocess.pad_and_shift(image, column, row, a["output_size"])[0]


def _offsets(x, a, v):
    found = [oracles.core.preprocess.shift_offset(int(shift), 12) for shift in x["shift"]]
    return {"top": found, "left": found}


def _pair(function):
    """An oracle that returns (within, between)."""
    return lambda x, a, v: dict(zip(("within", "between"), function(x, a)))


def _grid(x, a, v):
    warp = oracles.core.warp
    return warp.affine_grid(warp.inverse_affine(x["pose"]), a["source_shape"], a["output_shape"])


def _probe(x, a, v):
    own = sub_scope(v, "classification_probe")
    found = oracles.core.probe.classification_probe(x["features"], x["labels"], own, x.get("labeled"))
    return dict(zip(("xe", "acc"), found))


def _op(name: str):
    """An oracle of `ops` that takes the recorded inputs and attributes by name."""
    return lambda x, a, v: getattr(oracles.core.ops, name)(**x, **a)


def _resample(x, a, v):
    return oracles.core.warp.resampler(x["data"], x["warp"])


TABLE = {
    "relu1": _op("relu1"),
    "safe_log": _op("safe_log"),
    "safe_ce": _op("safe_ce"),
    "flat_reduce": _op("flat_reduce"),
    "to_homogenous": _op("to_homogeneous"),
    "from_homogenous": _op("from_homogeneous"),
    "apply_transform": lambda x, a, v: oracles.core.ops.apply_transform(
        x["transform"], x.get("tensor"), a.get("affine", True)
    ),
    "geometric_transform": _op("geometric_transform"),
    "normalize": _op("normalize"),
    "make_brodcastable": _op("make_broadcastable"),
    "expand_dims": _op("expand_dims"),
    "MixtureDistribution": _mixture,
    "MixtureDistribution.log_prob": lambda x, a, v: oracles.core.mixture.mixture_log_prob(
        x["x"], _with_presence(x), x["mean"], x["scale"]
    ),
    "MixtureDistribution.mode": _mixture_mode,
    "QKVAttention": lambda x, a, v: oracles.core.attention.qkv_attention(**x),
    "MultiHeadQKVAttention": lambda x, a, v: oracles.core.attention.multi_head_qkv_attention(
        x["queries"],
        x["keys"],
        x["values"],
        x.get("presence"),
        sub_scope(v, "multi_head_qkv_attention"),
        a["n_heads"],
    ),
    "SelfAttention": lambda x, a, v: oracles.core.attention.self_attention(
        x["x"], x.get("presence"), sub_scope(v, "self_attention"), a["n_heads"], a["layer_norm"]
    ),
    "SetTransformer": _set_transformer,
    "BatchLinear": lambda x, a, v: oracles.core.layers.batch_linear(
        x["x"], sub_scope(v, "batch_linear")
    ),
    "BatchMLP": lambda x, a, v: oracles.core.layers.batch_mlp(x["x"], sub_scope(v, "batch_mlp")),
    "LayerNorm": lambda x, a, v: oracles.core.layers.layer_norm(x["x"], sub_scope(v, "layer_norm")),
    "Conv2D_valid": lambda x, a, v: oracles.core.layers.conv_2d(
        x["x"], sub_scope(v, "conv_2d"), a["stride"]
    ),
    "_capsule_entropy": _pair(lambda x, a: oracles.core.losses.capsule_entropy(x["p"])),
    "_neg_capsule_kl": _pair(lambda x, a: oracles.core.losses.neg_capsule_kl(x["p"])),
    "_caps_pres_l2": _pair(lambda x, a: oracles.core.losses.capsule_presence_l2(x["p"], **a)),
    "sparsity_loss": _pair(lambda x, a: oracles.core.losses.sparsity_loss(p=x["p"], **a)),
    "CapsuleLikelihood": _capsule_likelihood,
    "CapsuleLikelihood.log_prob": lambda x, a, v: _capsule_likelihood(x, a, v)["log_prob"],
    "CapsuleLikelihood_student": _capsule_likelihood,
    "OrderInvariantCapsuleLikelihood": _order_invariant,
    "OrderInvariantCapsuleLikelihood_student": _order_invariant,
    "constellation_create_numpy": _constellations,
    "CapsuleLayer": _capsule_layer,
    "resampler": _resample,
    "resampler_nonsquare": _resample,
    "AffineGridWarper_inverse": _grid,
    "AffineGridWarper_inverse_40_11": _grid,
    "warp_template": lambda x, a, v: oracles.core.warp.warp_templates(
        x["data"][:, None], x["pose"][:, None], a["source_shape"]
    )[:, 0],
    "classification_probe": _probe,
    "TemplateBasedImageDecoder": _part_decoder,
    "pad_and_shift": _pad_and_shift,
    "pad_and_shift_offsets": _offsets,
}
