"""The oracles against recordings of the original: float64, 1e-12 of the largest value.

An oracle is only worth something once it is proven itself. `TABLE` names for each recorded function
the oracle call that answers for it; every float64 record found in any golden folder is run, and
every small whole model, tap by tap. `test_oracles_definitions.py` has what no recording covers.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from parity_tests import goldens, oracles
from parity_tests.goldens.shared import needs_shared
from parity_tests.oracles import sub_scope

BOUND = 1e-12
OTHERS = {
    "bipartite_match": "evaluation",
    "bipartite_match_auto": "evaluation",
    "eval_segmentation": "evaluation",
    "cluster_classify": "evaluation",
}


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


def margin(found, recorded) -> float:
    """Largest deviation over the bound; infinite where shapes or non-finite values differ."""
    found, recorded = np.asarray(found, np.float64), np.asarray(recorded, np.float64)
    if found.shape != recorded.shape:
        return math.inf
    finite = np.isfinite(recorded)
    if not np.array_equal(found[~finite], recorded[~finite], equal_nan=True):
        return math.inf
    if not np.isfinite(found[finite]).all():
        return math.inf
    worst = float(np.abs(found[finite] - recorded[finite]).max(initial=0.0))
    if worst == 0.0:
        return 0.0
    scale = float(np.abs(recorded[finite]).max(initial=0.0))
    return worst / (BOUND * scale) if scale else math.inf


def _records() -> dict[str, list[goldens.Record]]:
    """Records in float64 (or copied data), by function."""
    found: dict[str, list[goldens.Record]] = {}
    for record in goldens.records():
        if record.ok and record.dtype in ("float64", "np"):
            found.setdefault(record.function, []).append(record)
    return found


RECORDS = _records()


@pytest.mark.shared
def test_every_recorded_function_has_an_oracle():
    """A new kind of recording shows up here before it is silently left out."""
    assert set(RECORDS) - set(TABLE) - set(OTHERS) == set()


@pytest.mark.golden
@pytest.mark.parametrize("function", needs_shared(sorted(set(RECORDS) & set(TABLE)), RECORDS.get))
def test_oracle_meets_recordings(function, record_property):
    """Each recorded output of the function, each case."""
    margins = {}
    for record in RECORDS[function]:
        arrays = record.arrays()
        found = TABLE[function](arrays["in"], dict(record.entry["attrs"]), arrays["var"])
        if not isinstance(found, dict):
            found = {"out": found}
        for name, recorded in arrays["out"].items():
            margins[f"{record.key}: {name}"] = margin(found[name], recorded)
    record_property("records", len(RECORDS[function]))
    record_property("worst_margin", max(margins.values()))
    assert margins
    assert {key: value for key, value in margins.items() if not value <= 1.0} == {}


@pytest.mark.golden
@pytest.mark.parametrize("case", range(5))
def test_rmsprop_meets_recordings(case):
    """Six steps of the recorded float32 optimizer, within the rounding float32 can collect."""
    records = [record for record in goldens.records() if record.function == "RMSProp"]
    arrays = next(record for record in records if record.entry["case"] == str(case)).arrays()
    var = arrays["in"]["x0"]
    ms, mom = np.ones(var.shape), np.zeros(var.shape)
    for step, grad in enumerate(arrays["in"]["grads"]):
        var, ms, mom = oracles.core.rmsprop.rmsprop_update(
            var, grad, ms, mom, float(arrays["in"]["lr"]), epsilon=float(arrays["in"]["eps"])
        )
        for name, found in (("var", var), ("rms", ms), ("momentum", mom)):
            recorded = arrays["out"][name][step]
            # Four roundings a step, each half a unit of the largest value.
            bound = 4 * (step + 1) * 2.0**-24 * np.abs(recorded).max()
            assert np.abs(found - recorded).max() <= bound, (step, name)


def _small_models() -> list[goldens.Golden]:
    """Models with float64 taps and a canvas that a Python loop can fill."""
    found = [golden for golden in goldens.constellations() if golden.has("forward64_noise.npz")]
    for golden in goldens.models():
        if _arguments(golden)["canvas"] <= 32 and golden.has("forward64_noise.npz"):
            found.append(golden)
    return found


def _arguments(golden: goldens.Golden) -> dict:
    """Class arguments from the manifest, or from the flags it names."""
    manifest = golden.manifest
    if "arguments" in manifest:
        return manifest["arguments"]
    if goldens.is_constellation(golden):
        return oracles.settings.constellation_arguments(manifest["flags"])
    return oracles.settings.arguments_from_flags(manifest["flags"])


def _variables(golden: goldens.Golden) -> dict[str, np.ndarray]:
    """Variables of the checkpoint by name, without slots and averages."""
    arrays = oracles.checkpoint.read_checkpoint(golden.folder / golden.manifest["checkpoint"])
    return {
        name: value
        for name, value in arrays.items()
        if "RMSProp" not in name and "ExponentialMovingAverage" not in name
    }


@pytest.mark.golden
@pytest.mark.parametrize("golden", _small_models(), ids=lambda golden: golden.name)
def test_whole_model_meets_recordings(golden, record_property):
    """Every tap of a recorded forward pass with noise."""
    recorded = golden.load("forward64_noise.npz")
    noise = [recorded.pop(f"noise/raw_{i}") for i in range(len(golden.manifest["noise"]))]
    # A noisy forward file may leave out what the noise does not touch, the batch among it.
    batches = golden.load("batches.npz")
    if goldens.is_constellation(golden):
        taps = oracles.constellation.model.constellation_autoencoder(
            _arguments(golden),
            _variables(golden),
            batches["corners"][0],
            batches["presence"][0],
            noise,
        )
        check_taps(golden, taps, recorded, record_property)
        return
    image = recorded.get("input/image", batches["image"][0])
    label = recorded.get("input/label", batches["label"][0])
    taps = oracles.scae.model.image_autoencoder(
        _arguments(golden),
        _variables(golden),
        image,
        label,
        noise,
        # The slowest taps, once: they pair capsules and examples the same way everywhere.
        per_capsule=golden.name.endswith("vote_soft"),
    )
    check_taps(golden, taps, recorded, record_property)


def check_taps(golden, taps, recorded, record_property):
    """Every recorded tap that the oracle has; the others are said aloud."""
    margins = {name: margin(taps[name], value) for name, value in recorded.items() if name in taps}
    left_out = ("per_caps_rec/", "input/pattern_")
    unknown = [n for n in recorded if n not in taps and not n.startswith(left_out)]
    if unknown:
        warnings.warn(f"{golden.name}: no oracle for the taps {unknown}", stacklevel=1)
    record_property("taps", len(margins))
    record_property("worst_margin", max(margins.values()))
    assert {name: value for name, value in margins.items() if not value <= 1.0} == {}
