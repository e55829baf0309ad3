"""Which recorded function of the original is which recipe here.

One row per function name in the op manifests. `ELSEWHERE` names the rows that another test answers
for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity_tests.harness.sides import Arrays, Recipe

ELSEWHERE = dict.fromkeys(("bipartite_match", "bipartite_match_auto", "eval_segmentation",
                           "cluster_classify"), "test_evaluate.py")

# Scopes of modules: (in an original checkpoint, in port.ImageAutoencoder).
SCOPES = {
    "Linear": ("set_transformer/linear", "object_encoder.linear.0."),
    "MLP": ("set_transformer/self_attention/mlp", "object_encoder.self_attention.0.mlp."),
    "ConvEncoder": ("conv_net_2d", "part_encoder.cnn."),
    "ResidualBlock": ("conv_net_2d/residual", "part_encoder.cnn.residual.0."),
    "Conv2D": ("conv_net_2d/conv_2d_0", "part_encoder.cnn.conv.0."),
    "LayerNorm": ("set_transformer/self_attention/layer_norm",
                  "object_encoder.self_attention.0.layer_norm.0."),
    "MultiHeadQKVAttention": ("set_transformer/multi_head_qkv_attention", "object_encoder.attention."),
    "MLPEncoder": ("mlp_encoder", "object_encoder."),
    "SelfAttention": ("set_transformer/self_attention", "object_encoder.self_attention.0."),
    "InducedSelfAttention": ("set_transformer/induced_self_attention",
                             "object_encoder.self_attention.0."),
    "SetTransformer": ("set_transformer", "object_encoder."),
    "BatchLinear": ("image_capsule/capsule_layer/batch_mlp/batch_linear",
                    "object_decoder.capsule_layer.batch_mlp.0.batch_linear.0."),
    "BatchMLP": ("image_capsule/capsule_layer/batch_mlp",
                 "object_decoder.capsule_layer.batch_mlp.0."),
    "CapsuleLayer": ("image_capsule/capsule_layer", "object_decoder.capsule_layer."),
    "CapsuleLikelihood": ("image_capsule/capsule_likelihood", "object_decoder.capsule_likelihood."),
    "ClassificationProbe": ("image_autoencoder/classification_probe", "probes.0."),
    "PartDecoder": ("template_based_image_decoder", "part_decoder."),
    "OrderInvariantCapsuleLikelihood": (
        "constellation_capsule/order_invariant_capsule_likelihood",
        "constellation_capsule.order_invariant_capsule_likelihood."),
}


@dataclass(frozen=True)
class GoldenRecipe:
    """A recorded function as something both sides can run.

    Attributes:
        recipe: how to run it.
        adapt: `(inputs, attributes) -> (inputs, attributes)` from recorded to our arguments.
        variable_prefix: scope of recorded variable names, replaced by the recipe's scope.
    """

    recipe: Recipe
    adapt: Callable[[Arrays, dict[str, Any]], tuple[Arrays, dict[str, Any]]] = lambda x, a: (x, a)
    variable_prefix: str = ""


def function(op: str, outputs: tuple[str, ...] = ("out",), **keywords: Any) -> Recipe:
    """A recipe that calls one public function with the inputs and attributes by name."""
    return Recipe(lambda lib, x, a, _: lib.get(op)(**x, **a), outputs, **keywords)


def module(op: str, outputs: tuple[str, ...], build: Callable[..., Any], call: Callable[..., Any],
           **keywords: Any) -> Recipe:
    """A recipe for a module; `build(a)` gives the constructor's keywords after the scope."""
    name = op.rpartition(".")[2]
    scope, torch_scope = SCOPES[name]
    return Recipe(call, outputs, build=lambda lib, a: lib.module(op, scope, **build(a)),
                  scope=scope, torch_scope=torch_scope, **keywords)


def _drop(*names: str) -> Callable[..., Any]:
    return lambda x, a: (x, {k: v for k, v in a.items() if k not in names})


def _last(array: np.ndarray) -> int:
    return int(array.shape[-1])


def _softmax(lib: Any, x: Any, axis: int) -> Any:
    if lib.side == "port":
        import torch
        return torch.softmax(x, axis)
    import tensorflow as tf
    return tf.nn.softmax(x, axis)


def _with_presence(lib: Any, x: dict[str, Any]) -> Any:
    logits = x["mixing_logits"]
    if "presence" not in x:
        return logits
    logged = lib.core.ops.safe_log(x["presence"])
    return logits + lib.core.ops.make_broadcastable(logged, logits)


def _mixture(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    logits, mean = _with_presence(lib, x), x["mean"]
    return {"mixing_log_prob": lib.core.mixture.mixing_log_prob(logits),
            "mixing_prob": _softmax(lib, logits, 1),
            "log_prob": lib.core.mixture.mixture_log_prob(x["x"], logits, mean, x["scale"]),
            "mean": lib.core.mixture.mixture_mean(logits, mean),
            "mode": lib.core.mixture.mixture_mode(logits, mean, x["scale"], x.get("presence"))}


_IMAGES = {"x": 1, "out": 1, "log_prob": 1, "mode": 1, "mixing_logits": 2, "scale": 2,
           "mixing_log_prob": 2, "mixing_prob": 2}


def _mixture_layouts(mean_is_output: bool) -> dict[str, int]:
    # `mean` is the components' [B, K, H, W, C] as an input and the mixture's [B, H, W, C] as an
    # output: the output is returned under its own name below.
    return _IMAGES | {"mean": 2, "mixture_mean": 1} if mean_is_output else _IMAGES | {"mean": 2}


def _rename_mean(outputs: dict[str, Any]) -> dict[str, Any]:
    outputs["mixture_mean"] = outputs.pop("mean")
    return outputs


def _attention(x: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in x.items() if k in ("queries", "keys", "values", "presence")}


def _masks(x: dict[str, Any]) -> list[Any] | None:
    masks = [x[key] for key in sorted(x) if key.startswith("mask_")]
    return masks or None


def _rmsprop(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    var = x["x0"]
    ms, mom = var * 0.0 + 1.0, var * 0.0
    steps: list[tuple[Any, Any, Any]] = []
    for grad in x["grads"]:
        var, ms, mom = lib.core.rmsprop.rmsprop_update(var, grad, ms, mom, a["lr"], a["decay"],
                                                a["momentum"], a["epsilon"])
        steps.append((var, ms, mom))
    stack = _stack(lib)
    return dict(zip(("var", "rms", "momentum"), (stack(list(part)) for part in zip(*steps))))


def _stack(lib: Any) -> Callable[[list[Any]], Any]:
    if lib.side == "port":
        import torch
        return torch.stack
    import tensorflow as tf
    return tf.stack


def _adapt_rmsprop(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    return ({"x0": x["x0"], "grads": x["grads"]},
            {"lr": float(x["lr"]), "epsilon": float(x["eps"]), "decay": a["decay"],
             "momentum": a["momentum"]})


def _pad_and_shift(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    return ({"image": x["img"][None], "x": x["x"][None], "y": x["y"][None]},
            {"output_size": int(a["output_size"])})


LIKELIHOOD_OUT = ("log_prob", "vote_presence", "winner", "winner_pres", "is_from_capsule",
                   "mixing_logits", "mixing_log_prob", "soft_winner", "soft_winner_pres",
                   "posterior_mixing_probs")
_LIKELIHOOD_IN = ("votes", "scales", "vote_presence_prob", "x", "presence")
LAYER_OUT = ("vote", "scale", "vote_presence", "pres_logit_per_caps", "pres_logit_per_vote",
              "dynamic_weights_l2", "raw_caps_params", "raw_caps_features")


def _likelihood_sizes(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    return x, {"n_points": x["votes"].shape[2], "n_dims": _last(x["votes"])} | a


_LAYER_NAMES = {"mask": "caps_mask", "noise_caps": "caps_noise", "noise_vote": "vote_noise"}
_LAYER_DEFAULTS = {"n_caps_dims": 2, "learn_vote_scale": False, "deformations": True,
                   "noise_type": None, "noise_scale": 0.0, "similarity_transform": True,
                   "caps_dropout_rate": 0.0}


def _capsule_layer(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    return ({_LAYER_NAMES.get(name, name): value for name, value in x.items()},
            {"n_features": _last(x["features"]), "settings": _LAYER_DEFAULTS | a})


# Slots that the original calls by a word; a list has one pattern for each slot.
_WHICH_PATTERNS = {"basic": (0, 1), "all": (0, 1, 2, 3)}


def _slots(which: str | list[list[int]]) -> tuple[int, ...]:
    return _WHICH_PATTERNS[which] if isinstance(which, str) else tuple(slot for slot, in which)


def _constellation(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    assert a.pop("shuffle_corners")  # recorded with points shuffled only
    return {}, {"seed": int(x["np_random_seed"]), "size": a.pop("size_n"),
                "slots": _slots(a.pop("which_patterns")), "settings": a}


def _decoder_sizes(x: Arrays, a: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    settings = {"learn_output_scale": False, "colorize_templates": False, "color_nonlin": "relu1"}
    return x, {"canvas_size": a["output_size"][0], "n_parts": x["pose"].shape[1], "n_features": 0,
               "settings": settings | a}


def _background_decoder(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    decoded = m(x["pose"], x["presence"], m.make_templates(), x["bg_image"])
    return {"transformed_templates": decoded.transformed_templates,
            "mixing_logits": decoded.mixing_logits[:, :-1],
            "mean": lib.core.mixture.mixture_mean(decoded.mixing_logits, decoded.means),
            "log_prob": lib.core.mixture.mixture_log_prob(x["img"], decoded.mixing_logits, decoded.means,
                                                     decoded.scale)}


def _warp(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    grid = lib.core.warp.affine_grid(lib.core.warp.inverse_affine(x["pose"]), tuple(a["source_shape"]),
                                tuple(a["output_shape"]))
    return lib.core.warp.resampler(x["data"], grid) if "data" in x else grid


GOLDEN_RECIPES: dict[str, GoldenRecipe] = {
    "relu1": GoldenRecipe(function("core.ops.relu1")),
    "safe_log": GoldenRecipe(function("core.ops.safe_log")),
    "safe_ce": GoldenRecipe(function("core.ops.safe_ce")),
    "flat_reduce": GoldenRecipe(function("core.ops.flat_reduce")),
    "to_homogenous": GoldenRecipe(function("core.ops.to_homogeneous")),
    "from_homogenous": GoldenRecipe(function("core.ops.from_homogeneous")),
    "apply_transform": GoldenRecipe(function("core.ops.apply_transform"), _drop("tensor")),
    "geometric_transform": GoldenRecipe(function("core.ops.geometric_transform")),
    "normalize": GoldenRecipe(function("core.ops.normalize")),
    "make_brodcastable": GoldenRecipe(function("core.ops.make_broadcastable")),
    "expand_dims": GoldenRecipe(function("core.ops.expand_dims")),
    "MixtureDistribution": GoldenRecipe(Recipe(
        lambda *args: _rename_mean(_mixture(*args)),
        ("mixing_log_prob", "mixing_prob", "log_prob", "mixture_mean", "mode"),
        _mixture_layouts(True))),
    "MixtureDistribution.log_prob": GoldenRecipe(Recipe(
        lambda lib, x, a, _: lib.core.mixture.mixture_log_prob(
            x["x"], _with_presence(lib, x), x["mean"], x["scale"]), layouts=_mixture_layouts(False))),
    "MixtureDistribution.mode": GoldenRecipe(Recipe(
        lambda lib, x, a, _: lib.core.mixture.mixture_mode(
            _with_presence(lib, x), x["mean"], x["scale"], x.get("presence"), **a),
        layouts=_mixture_layouts(False))),
    "QKVAttention": GoldenRecipe(function("core.attention.qkv_attention")),
    "MultiHeadQKVAttention": GoldenRecipe(
        module("core.attention.MultiHeadQKVAttention", ("out",),
               lambda a: {k: a[k] for k in ("query_features", "key_features", "value_features",
                                            "n_heads")},
               lambda lib, x, a, m: m(**_attention(x))),
        lambda x, a: (x, a | {"query_features": _last(x["queries"]), "key_features": _last(x["keys"]),
                              "value_features": _last(x["values"])}),
        "multi_head_qkv_attention"),
    "SelfAttention": GoldenRecipe(
        module("core.attention.SelfAttention", ("out",), lambda a: a,
               lambda lib, x, a, m: m(x["x"], x.get("presence"))),
        lambda x, a: (x, a | {"n_features": _last(x["x"])}), "self_attention"),
    "SetTransformer": GoldenRecipe(
        module("core.attention.SetTransformer", ("out",), lambda a: a,
               lambda lib, x, a, m: m(x["x"], x.get("presence"), _masks(x)),
               constants=tuple(f"mask_{i}" for i in range(12))),
        lambda x, a: ({k: v.astype(x["x"].dtype) if k.startswith("mask_") else v for k, v in x.items()},
                      a | {"in_features": _last(x["x"])}), "set_transformer"),
    "BatchLinear": GoldenRecipe(
        module("core.layers.BatchLinear", ("out",), lambda a: a, lambda lib, x, a, m: m(x["x"])),
        lambda x, a: (x, {"n_caps": x["x"].shape[1], "in_features": _last(x["x"]),
                          "out_features": a["n_units"], "use_bias": a.get("use_bias", True)}),
        "batch_linear"),
    "BatchMLP": GoldenRecipe(
        module("core.layers.BatchMLP", ("out",), lambda a: a, lambda lib, x, a, m: m(x["x"])),
        lambda x, a: (x, {"n_caps": x["x"].shape[1], "in_features": _last(x["x"]),
                          "n_hiddens": a["n_hiddens"], "use_bias": a.get("use_bias", True)}),
        "batch_mlp"),
    "_capsule_entropy": GoldenRecipe(function("core.losses.capsule_entropy", ("within", "between")),
                                     _drop("k")),
    "_neg_capsule_kl": GoldenRecipe(function("core.losses.neg_capsule_kl", ("within", "between"))),
    "_caps_pres_l2": GoldenRecipe(function("core.losses.capsule_presence_l2", ("within", "between"))),
    "sparsity_loss": GoldenRecipe(function("core.losses.sparsity_loss", ("within", "between"))),
    "CapsuleLikelihood": GoldenRecipe(
        module("scae.object_decoder.CapsuleLikelihood", LIKELIHOOD_OUT, lambda a: a,
               lambda lib, x, a, m: m(**{k: x.get(k) for k in _LIKELIHOOD_IN})),
        _likelihood_sizes, "capsule_likelihood"),
    "CapsuleLikelihood.log_prob": GoldenRecipe(
        module("scae.object_decoder.CapsuleLikelihood", ("log_prob",), lambda a: a,
               lambda lib, x, a, m: m(**{k: x.get(k) for k in _LIKELIHOOD_IN})),
        _likelihood_sizes, "capsule_likelihood"),
    "CapsuleLikelihood_student": GoldenRecipe(
        module("scae.object_decoder.CapsuleLikelihood", LIKELIHOOD_OUT, lambda a: a,
               lambda lib, x, a, m: m(**{k: x.get(k) for k in _LIKELIHOOD_IN})),
        _likelihood_sizes, "capsule_likelihood"),
    **dict.fromkeys(("OrderInvariantCapsuleLikelihood", "OrderInvariantCapsuleLikelihood_student"),
                    GoldenRecipe(
        module("constellation.likelihood.OrderInvariantCapsuleLikelihood", LIKELIHOOD_OUT,
               lambda a: a, lambda lib, x, a, m: m(**x)),
        variable_prefix="order_invariant_capsule_likelihood")),
    "constellation_create_numpy": GoldenRecipe(
        Recipe(lambda lib, x, a, _: lib.constellation.data.create(
            np.random.RandomState(a["seed"]), a["size"], a["slots"], **a["settings"]),
            ("corners", "presence", "pattern_presence", "pattern_id")), _constellation),
    "CapsuleLayer": GoldenRecipe(
        Recipe(lambda lib, x, a, m: m(**x), LAYER_OUT,
               constants=("caps_mask", "caps_noise", "vote_noise"),
               build=lambda lib, a: lib.module(
                   "scae.object_decoder.CapsuleLayer", SCOPES["CapsuleLayer"][0],
                   n_features=a["n_features"], settings=lib.section("ObjDecoder", a["settings"])),
               scope=SCOPES["CapsuleLayer"][0], torch_scope=SCOPES["CapsuleLayer"][1]),
        _capsule_layer, "capsule_layer"),
    "resampler": GoldenRecipe(function("core.warp.resampler", layouts={"data": 1, "out": 1})),
    "resampler_nonsquare": GoldenRecipe(function("core.warp.resampler", layouts={"data": 1, "out": 1})),
    "AffineGridWarper_inverse": GoldenRecipe(Recipe(_warp)),
    "AffineGridWarper_inverse_40_11": GoldenRecipe(Recipe(_warp)),
    "warp_template": GoldenRecipe(Recipe(_warp, layouts={"data": 1, "out": 1})),
    "LayerNorm": GoldenRecipe(
        module("core.layers.LayerNorm", ("out",), lambda a: a, lambda lib, x, a, m: m(x["x"])),
        lambda x, a: (x, {"n_features": _last(x["x"])}), "layer_norm"),
    "Conv2D_valid": GoldenRecipe(
        module("core.layers.Conv2D", ("out",), lambda a: a, lambda lib, x, a, m: m(x["x"]),
               layouts={"x": 1, "out": 1}),
        lambda x, a: (x, {"in_channels": _last(x["x"]), "out_channels": a["out"],
                          "kernel_size": a["kernel"], "stride": a["stride"]}), "conv_2d"),
    "classification_probe": GoldenRecipe(
        module("core.probe.ClassificationProbe", ("logits", "xe", "acc"), lambda a: a,
               lambda lib, x, a, m: m(**x), constants=("labels", "labeled")),
        lambda x, a: (x, a | {"n_features": _last(x["features"])}), "classification_probe"),
    "RMSProp": GoldenRecipe(Recipe(_rmsprop, ("var", "rms", "momentum"), constants=("x0", "grads")),
                            _adapt_rmsprop),
    "TemplateBasedImageDecoder": GoldenRecipe(
        Recipe(_background_decoder, ("transformed_templates", "mixing_logits", "mean", "log_prob"),
               {"bg_image": 1, "img": 1, "transformed_templates": 2, "mixing_logits": 2, "mean": 1,
                "log_prob": 1},
               build=lambda lib, a: lib.module(
                   "scae.part_decoder.PartDecoder", SCOPES["PartDecoder"][0],
                   **a | {"settings": lib.section("PartDecoder", a["settings"])}),
               scope=SCOPES["PartDecoder"][0], torch_scope=SCOPES["PartDecoder"][1]),
        _decoder_sizes, "template_based_image_decoder"),
    "pad_and_shift": GoldenRecipe(Recipe(
        lambda lib, x, a, _: lib.core.preprocess.pad_and_shift(**x, **a)[0], layouts={"image": 1, "out": 0}),
        _pad_and_shift),
    "pad_and_shift_offsets": GoldenRecipe(Recipe(
        lambda lib, x, a, _: lib.core.preprocess.shift_offset(x["shift"], 12)),
        lambda x, a: (x, {})),
}
# Recorded output name → ours, where they differ.
RENAMED_OUTPUTS = {"MixtureDistribution": {"mean": "mixture_mean"},
                   "CapsuleLikelihood.log_prob": {"out": "log_prob"},
                   "pad_and_shift_offsets": {"top": "out", "left": "out"}}
