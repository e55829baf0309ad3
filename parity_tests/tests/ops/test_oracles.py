"""Reference and port against plain-loop NumPy oracles, so that the two cannot be wrong together.

`ORACLES` says for each op which oracle call answers for it; the examples are those of the op's row,
with repairs switched off (an oracle knows the original's formula only). Values in float64: the
gradients hang on the recordings and on port = reference.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest

from parity_tests import oracles, registry
from parity_tests.harness import recorder, tolerances
from parity_tests.harness.compare import Where, check
from parity_tests.harness.sides import Arrays, draw_variables, run
from parity_tests.harness.strategies import Case, cases
from parity_tests.oracles import sub_scope
from parity_tests.oracles.em import rows as oracles_em
from parity_tests.registry import OpCase

SIDES = ("reference", "port")
EXAMPLES = {"smoke": 2, "default": 10, "deep": 60}
Oracle = Callable[[Arrays, dict[str, Any], Arrays], Any]


def by_name(room: str, name: str) -> Oracle:
    """An oracle function that takes inputs and attributes by name."""
    return lambda x, a, v: getattr(importlib.import_module(f"parity_tests.oracles.{room}"), name)(**x, **a)


def _masks(x: Arrays) -> list[np.ndarray] | None:
    return [x[name] for name in sorted(x) if name.startswith("mask_")] or None


def _presence(x: Arrays) -> np.ndarray | None:
    return x.get("presence", x.get("tied_presence"))


def _self_attention(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    return oracles.core.attention.self_attention(
        x["x"], _presence(x), v, a["n_heads"], a["layer_norm"], _masks(x), a.get("dropout_rate", 0.0),
        a.get("n_inducing_points", 0))


def _set_transformer(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    return oracles.core.attention.set_transformer(
        x["x"], _presence(x), v, a["n_layers"], a["n_heads"], a["layer_norm"],
        n_inducing_points=a["n_inducing_points"], dropout_masks=_masks(x),
        dropout_rate=a.get("dropout_rate", 0.0))


def _attention_pool(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    part, sizes = oracles.scae.part_encoder, (a["n_caps"], a["n_dims"])
    return {"weights": part.pooling_weights(x["feature_map"], a["n_caps"]),
            "features": part.attention_features(x["feature_map"], *sizes),
            "pooled": part.attention_pooled(x["feature_map"], *sizes),
            "params": part.attention_pool(x["feature_map"], *sizes)}


def _part_encoder(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    taps = oracles.scae.part_encoder.part_encoder(
        x["image"], v, a["cnn"]["strides"], noise=x.get("noise"),
        residual_blocks=a["cnn"].get("residual_blocks", 0), **a["settings"])
    return {"pose": taps["part_enc/pose"], "presence": taps["part_enc/presence"],
            "presence_logit": taps["part_enc/pres_logit"]}


def _part_decoder(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    presence = x.get("presence", np.ones(x["pose"].shape[:2]))  # log 1 = 0, as if not given
    found = oracles.scae.part_decoder.part_decoder(x["pose"], presence, v, feature=x["feature"],
                                              bg_image=x.get("bg_image"), **a["settings"])
    return {"templates": found["templates"], "means": found["means"],
            "transformed_templates": found["transformed_templates"], "mixing_logits": found["logits"],
            "scale": found["scale"]}


_NAMES = {"caps_noise": "noise_caps", "vote_noise": "noise_vote", "caps_mask": "mask"}


def _capsule_layer(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    inputs = {_NAMES.get(name, name): value for name, value in x.items()}
    return oracles.scae.object_decoder.capsule_layer(inputs.pop("features"), v, **a["settings"], **inputs)


def _image_capsule(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    inputs = {_NAMES.get(name, name): value for name, value in x.items()}
    layer = oracles.scae.object_decoder.capsule_layer(
        inputs.pop("features"), sub_scope(v, "capsule_layer"), **a["settings"],
        **{k: value for k, value in inputs.items() if k not in ("x", "presence")})
    flat = layer["vote"][..., :2, :].reshape(*layer["vote"].shape[:3], 6)
    likelihood = oracles.scae.object_decoder.capsule_likelihood(
        flat, layer["scale"], layer["vote_presence"], x["x"], x["presence"],
        v["capsule_likelihood/dummy_vote"])
    return likelihood | {"vote": layer["vote"], "scale": layer["scale"], "vote6": flat,
                         "dynamic_weights_l2": layer["dynamic_weights_l2"],
                         "caps_presence": layer["vote_presence"].max(2)}


def _freedom(v: Arrays) -> float | None:
    return oracles.scae.object_decoder.degrees_of_freedom(v["df"]) if "df" in v else None


def _likelihood(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    return oracles.scae.object_decoder.capsule_likelihood(
        **{"dummy_vote": v.get("dummy_vote"), "df": _freedom(v), **x})


def _unordered(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    return oracles.constellation.likelihood.order_invariant_likelihood(
        **{"df": _freedom(v), **x}, n_votes=a["n_votes"])


def _decoder(name: str) -> Oracle:
    def oracle(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
        inputs = {_NAMES.get(key, key): value for key, value in x.items()}
        return getattr(oracles.constellation.model, name)(
            inputs.pop("features"), inputs.pop("x"), inputs.pop("presence", None), v,
            **{k: value for k, value in a["settings"].items() if k != "klass"}, **inputs)
    return oracle


def _vote_density(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    shape, df = x["scales"].shape, x.get("df")
    return np.array([oracles.scae.object_decoder.vote_log_prob(
        x["x"][b, 0], x["votes"][b, i], x["scales"][b, i], None if df is None else float(df))
        for b, i in np.ndindex(shape)]).reshape(shape)


def _student(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    return np.vectorize(oracles.scalars.student_log_prob)(x["x"], x["df"], x["loc"], x["scale"])


def _noise(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    factor = a["noise_scale"] if a["noise_type"] == "uniform" else 1.0
    return x["logit"] + factor * x.get("raw", 0.0)


def _constellations(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    return oracles.constellation.data.create(a["seed"], a["size"], a["slots"], **a["settings"])


def _probe(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    xe, acc = oracles.core.probe.classification_probe(x["features"], x["labels"], v, x.get("labeled"))
    return {"logits": oracles.core.probe.probe_logits(x["features"], v), "xe": xe, "acc": acc}


def _clip(x: Arrays, a: dict[str, Any], v: Arrays) -> tuple[np.ndarray, np.ndarray]:
    found = oracles.core.rmsprop.clip_gradients([x["first"], None, x["second"]], a["value_clip"],
                                         a["norm_clip"])
    return found[0], found[2]


def _rmsprop(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    steps = [{"var": grad, "still": None} for grad in x["grads"]]
    return oracles.core.rmsprop.rmsprop({"var": x["var"], "still": x["still"]}, steps, a["lr"], a["epsilon"])


def _adam(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    steps = [{"var": grad, "still": None} for grad in x["grads"]]
    return oracles.core.adam.adam({"var": x["var"], "still": x["still"]}, steps, a["rates"])


def _primary_capsules(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    grid = oracles.capsnet.layers.primary_capsules(x["features"], v, a["settings"])
    return {"grid": grid, "flat": oracles.capsnet.layers.flatten_grid(grid)}


def _shift_offset(x: Arrays, a: dict[str, Any], v: Arrays) -> np.ndarray:
    found = [oracles.core.preprocess.shift_offset(int(s), a["padding"]) for s in x["shift"].ravel()]
    return np.reshape(found, x["shift"].shape)


_PAIR = ("within", "between")


def _pair(name: str) -> Oracle:
    return lambda x, a, v: dict(zip(_PAIR, getattr(oracles.core.losses, name)(p=x["p"], **a)))


OPS = ("relu1", "softplus", "safe_log", "safe_ce", "flat_reduce", "log_sum_exp", "normalize",
       "make_broadcastable", "expand_dims", "to_homogeneous", "from_homogeneous", "apply_transform",
       "geometric_transform", "transform_entries")
ORACLES: dict[str, Oracle] = {
    **{f"core.ops.{name}": by_name("core.ops", name) for name in OPS},
    "core.preprocess.shift_offset": _shift_offset,
    "core.preprocess.pad_and_shift": by_name("core.preprocess", "pad_and_shift"),
    "core.preprocess.sobel_edges": lambda x, a, v: oracles.core.preprocess.sobel_edges(x["image"]).sum(-1),
    "core.preprocess.normalized_sobel_edges": by_name("core.preprocess", "normalized_sobel_edges"),
    "core.warp.grid_axis": lambda x, a, v: oracles.core.warp.grid_axis(**a),
    **{f"core.warp.{name}": by_name("core.warp", name) for name in ("inverse_affine", "affine_grid")},
    # The sampler's attribute names the path through the port, not another formula.
    "core.warp.resampler": lambda x, a, v: oracles.core.warp.resampler(x["data"], x["warp"]),
    "core.warp.warp_templates": lambda x, a, v: oracles.core.warp.warp_templates(
        x["templates"], x["pose"], a["canvas_shape"], a["inverse"]),
    "core.layers.Linear": lambda x, a, v: oracles.core.layers.linear(x["x"], v),
    "core.layers.Conv2D": lambda x, a, v: oracles.core.layers.conv_2d(x["image"], v, a["stride"], a["padding"]),
    "core.layers.ResidualBlock": lambda x, a, v: oracles.core.layers.residual_block(x["image"], v),
    "core.layers.LayerNorm": lambda x, a, v: oracles.core.layers.layer_norm(x["x"], v),
    "core.layers.MLP": lambda x, a, v: oracles.core.layers.mlp(x["x"], v),
    "core.layers.ConvEncoder": lambda x, a, v: oracles.core.layers.conv_encoder(
        x["image"], v, a["strides"] * (len(a["output_channels"]) if len(a["strides"]) == 1 else 1),
        a["residual_blocks"]),
    "core.layers.BatchLinear": lambda x, a, v: oracles.core.layers.batch_linear(x["x"], v),
    "core.layers.BatchMLP": lambda x, a, v: oracles.core.layers.batch_mlp(x["x"], v),
    "core.attention.qkv_attention": lambda x, a, v: oracles.core.attention.qkv_attention(**x),
    "core.attention.MultiHeadQKVAttention": lambda x, a, v: oracles.core.attention.multi_head_qkv_attention(
        x["queries"], x["keys"], x["values"], _presence(x), v, a["n_heads"]),
    "core.attention.SelfAttention": _self_attention,
    "core.attention.InducedSelfAttention": _self_attention,
    "core.attention.SetTransformer": _set_transformer,
    "core.attention.MLPEncoder": lambda x, a, v: oracles.core.attention.mlp_encoder(x["x"], v, a["n_outputs"]),
    **{f"core.mixture.{name}": by_name("core.mixture", name) for name in (
        "normal_log_prob", "mixing_log_prob", "mixture_log_prob", "mixture_mean")},
    "core.mixture.mixture_mode": lambda x, a, v: oracles.core.mixture.mixture_mode(**x, **a),
    "scae.part_encoder.attention_pool": _attention_pool,
    "scae.part_encoder.PartEncoder": _part_encoder,
    "scae.part_decoder.PartDecoder": _part_decoder,
    "scae.object_decoder.capsule_likelihood": _likelihood,
    "scae.object_decoder.CapsuleLikelihood": _likelihood,
    "core.mixture.student_log_prob": _student,
    "scae.object_decoder.vote_log_prob": _vote_density,
    "scae.object_decoder.degrees_of_freedom": by_name("scae.object_decoder", "degrees_of_freedom"),
    "scae.object_decoder.add_noise": _noise,
    "scae.object_decoder.CapsuleLayer": _capsule_layer,
    "scae.object_decoder.ImageCapsule": _image_capsule,
    **{f"core.losses.{name}": _pair(name) for name in (
        "capsule_entropy", "neg_capsule_kl", "capsule_presence_l2", "sparsity_loss")},
    "core.losses.l2_loss": by_name("core.losses", "l2_loss"),
    "core.losses.weight_decay_loss": lambda x, a, v: oracles.core.losses.weight_decay_loss(list(x.values())),
    "core.losses.total_loss": lambda x, a, v: oracles.core.losses.total_loss(x, a["weights"]),
    "core.probe.ClassificationProbe": _probe,
    "core.rmsprop.rmsprop_epsilon": lambda x, a, v: oracles.core.rmsprop.rmsprop_epsilon(**a),
    "core.rmsprop.rmsprop_update": lambda x, a, v: dict(zip(
        ("var", "ms", "mom"), oracles.core.rmsprop.rmsprop_update(**x, **a))),
    "core.rmsprop.clip_gradients": _clip,
    "core.rmsprop.RMSProp": _rmsprop,
    "constellation.data.create": _constellations,
    "constellation.likelihood.order_invariant_likelihood": _unordered,
    "constellation.likelihood.OrderInvariantCapsuleLikelihood": _unordered,
    "constellation.likelihood.mixing_kl": by_name("constellation.likelihood", "mixing_kl"),
    "constellation.likelihood.usage_loss": lambda x, a, v: oracles.constellation.likelihood.usage_loss(
        x["is_from_capsule"], x.get("presence"), x["pres_logit"]),
    "constellation.decoder.caps_presence": by_name("constellation.decoder", "caps_presence"),
    "constellation.decoder.ConstellationCapsule": _decoder("constellation_capsule"),
    "constellation.decoder.ConstellationDecoder": _decoder("constellation_decoder"),
    "core.losses.template_l1": lambda x, a, v: oracles.scae.pcae.template_l1(x["templates"]),
    "scae.pcae.total_loss": lambda x, a, v: oracles.scae.pcae.total_loss(x, a["weights"]),
    "scae.hierarchy.upper_loss": lambda x, a, v: oracles.scae.pcae.upper_loss(x, a["weights"]),
    "constellation.model.total_loss": lambda x, a, v: oracles.constellation.model.total_loss(x, a["weights"]),
    "core.adam.exponential_decay": lambda x, a, v: oracles.core.adam.exponential_decay(**a),
    "core.adam.adam_update": lambda x, a, v: dict(zip(
        ("var", "m", "v"), oracles.core.adam.adam_update(**x, **a))),
    "core.adam.Adam": _adam,
    **{f"capsnet.routing.{name}": by_name("capsnet.routing", name) for name in (
        "capsule_lengths", "squash", "capsule_votes", "coupling_coefficients", "dynamic_routing")},
    **{f"capsnet.losses.{name}": by_name("capsnet.losses", name) for name in (
        "margin_terms", "margin_loss", "reconstruction_loss")},
    **{f"capsnet.layers.{name}": by_name("capsnet.layers", name) for name in ("mask_capsules", "flatten_grid")},
    "capsnet.layers.Convolution": lambda x, a, v: oracles.capsnet.layers.convolution(x["image"], v, a["stride"]),
    "capsnet.layers.PrimaryCapsules": _primary_capsules,
    "capsnet.layers.RoutingCapsules": lambda x, a, v: oracles.capsnet.layers.routing_capsules(
        x["capsules"], v, a["sizes"][2], a["settings"]),
    "capsnet.layers.CapsuleDecoder": lambda x, a, v: oracles.capsnet.layers.capsule_decoder(x["masked"], v),
    "capsnet.network.CapsNet": lambda x, a, v: oracles.capsnet.network.caps_net(
        x["image"], v, a["settings"], x.get("label"), a["mask"]),
    **oracles_em.ORACLES,
}
# Options that repair the original: an oracle has its formula without them.
FAITHFUL = {"mask": "faithful", "mixing": "faithful", "pooling": "faithful", "activate_final": True,
            "repairs": (), "with_mixing_kl": False}
ROWS = [row for row in registry.rows().values() if row.op in ORACLES]


def faithful(case: Case) -> Case:
    """The example with every repair off."""
    attributes = {name: FAITHFUL.get(name, value) for name, value in case.attributes.items()}
    if "cnn" in attributes:
        attributes["cnn"] = attributes["cnn"] | {"activate_final": True}
    return Case(case.inputs, attributes, case.seed, case.terms)


def verify_oracle(row: OpCase, case: Case, reproduce: str) -> None:
    """Both sides against the oracle on one example, float64 values."""
    case = faithful(case)
    variables = draw_variables(row.recipe, case.attributes, case.seed + 1)
    inner = {} if variables is None else variables
    if inner and row.recipe.scope and row.op != "scae.part_encoder.PartEncoder":  # it spans two scopes
        inner = sub_scope(variables, row.recipe.scope)
    found = ORACLES[row.op](dict(case.inputs), dict(case.attributes), inner)
    outputs = row.recipe.outputs
    if isinstance(found, tuple):
        found = dict(zip(outputs, found))
    found = found if isinstance(found, dict) else {outputs[0]: found}
    for side in SIDES:
        ours = run(side, row.recipe, case.inputs, case.attributes, "float64", variables=variables)
        for name in (name for name in outputs if name in found):
            expected, actual = (np.asarray(v, np.float64) for v in (found[name], ours.outputs[name]))
            if actual.size == expected.size == 1:  # an oracle's scalar may be a plain number
                actual = actual.reshape(expected.shape)
            place = Where(row.op, name, f"{side} float64", "the oracle", reproduce)
            margin = check(place, actual, expected, tolerances.forward64(expected))
            recorder.golden(row.op, f"oracle {side}", margin, "pass")


@pytest.mark.parametrize("row", ROWS, ids=[row.op for row in ROWS])
def test_oracle(row: OpCase, tier: str) -> None:
    """Random examples of one op."""
    reproduce = f'python -m pytest "parity_tests/tests/ops/test_oracles.py::test_oracle[{row.op}]" --tier={tier}'

    @hypothesis.settings(max_examples=EXAMPLES[tier])
    @hypothesis.given(cases(row.draw))
    def compare(case: Case) -> None:
        verify_oracle(row, case, reproduce)

    compare()


def test_every_row_has_an_oracle_or_says_why_not() -> None:
    """Rows marked with an oracle are exactly those of the table."""
    marked = {row.op for row in registry.rows().values() if row.oracle}
    assert marked == set(ORACLES), sorted(marked ^ set(ORACLES))
