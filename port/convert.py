"""Named NumPy arrays of an original checkpoint to a state dict and back, by one table.

No TensorFlow here: `reference.read_checkpoint` and this module compose, neither imports the other.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from port.config import Config, ConfigError, read
from port.scae import ImageAutoencoder


class ConversionError(ValueError):
    """Names or shapes that do not fit; the message lists the first of each kind."""


class Row(NamedTuple):
    """One line of the mapping: original name (with `{i}` for an index), port name, layout change."""

    original: str
    port: str
    transform: str = "same"


# `{i}` matches `_3` (or nothing, for 0) after the original's name, and is the number in the port's.
MAPPING: tuple[Row, ...] = (
    Row("conv_net_2d/conv_2d{i}/w", "part_encoder.cnn.conv.{i}.weight", "hwio_oihw"),
    Row("conv_net_2d/conv_2d{i}/b", "part_encoder.cnn.conv.{i}.bias"),
    Row("capsule_image_encoder/add/b", "part_encoder.spatial_bias", "hwc_chw"),
    Row("capsule_image_encoder/conv_2d/w", "part_encoder.conv.weight", "hwio_oihw"),
    Row("capsule_image_encoder/conv_2d/b", "part_encoder.conv.bias"),
    Row("capsule_image_encoder/linear/w", "part_encoder.linear.weight", "transpose"),
    Row("capsule_image_encoder/linear/b", "part_encoder.linear.bias"),
    Row("template_based_image_decoder/templates", "part_decoder.templates", "kttc_kctt"),
    Row("template_based_image_decoder/templates_alpha", "part_decoder.templates_alpha", "kttc_kctt"),
    Row("template_based_image_decoder/mlp/linear{i}/w", "part_decoder.mlp.linear.{i}.weight",
        "transpose"),
    Row("template_based_image_decoder/mlp/linear{i}/b", "part_decoder.mlp.linear.{i}.bias"),
    Row("template_based_image_decoder/bg_value", "part_decoder.bg_value"),
    Row("template_based_image_decoder/bg_mixing_logit", "part_decoder.bg_mixing_logit"),
    Row("template_based_image_decoder/temperature_logit", "part_decoder.temperature_logit"),
    Row("template_based_image_decoder/scale", "part_decoder.scale"),
    Row("set_transformer/linear{i}/w", "object_encoder.linear.{i}.weight", "transpose"),
    Row("set_transformer/linear{i}/b", "object_encoder.linear.{i}.bias"),
    Row("set_transformer/inducing_points", "object_encoder.inducing_points"),
    Row("set_transformer/multi_head_qkv_attention/linear{i}/w",
        "object_encoder.attention.linear.{i}.weight", "transpose"),
    Row("set_transformer/multi_head_qkv_attention/linear{i}/b",
        "object_encoder.attention.linear.{i}.bias"),
    Row("set_transformer/induced_self_attention{i}/inducing_points",
        "object_encoder.self_attention.{i}.inducing_points"),
    *(Row(f"set_transformer/{kind}{{i}}/{before}", f"object_encoder.self_attention.{{i}}.{after}", how)
      for kind in ("self_attention", "induced_self_attention")
      for before, after, how in (
          ("multi_head_qkv_attention/linear{j}/w", "attention.linear.{j}.weight", "transpose"),
          ("multi_head_qkv_attention/linear{j}/b", "attention.linear.{j}.bias", "same"),
          ("layer_norm{j}/gamma", "layer_norm.{j}.weight", "same"),
          ("layer_norm{j}/beta", "layer_norm.{j}.bias", "same"),
          ("mlp/linear{j}/w", "mlp.linear.{j}.weight", "transpose"),
          ("mlp/linear{j}/b", "mlp.linear.{j}.bias", "same"))),
    Row("image_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/weights",
        "object_decoder.capsule_layer.batch_mlp.{i}.batch_linear.{j}.weight"),
    Row("image_capsule/capsule_layer/batch_mlp{i}/batch_linear{j}/add/b",
        "object_decoder.capsule_layer.batch_mlp.{i}.batch_linear.{j}.bias"),
    Row("image_capsule/capsule_layer/add{i}/b", "object_decoder.capsule_layer.biases.{i}"),
    Row("image_capsule/capsule_layer/cpr_static", "object_decoder.capsule_layer.cpr_static"),
    Row("image_capsule/capsule_likelihood/dummy_vote",
        "object_decoder.capsule_likelihood.dummy_vote"),
    Row("image_autoencoder/classification_probe{i}/linear/w", "probes.{i}.linear.weight", "transpose"),
    Row("image_autoencoder/classification_probe{i}/linear/b", "probes.{i}.linear.bias"),
)

# Axis orders from the original's layout to the port's.
TRANSFORMS: dict[str, tuple[int, ...] | None] = {
    "same": None, "transpose": (1, 0), "hwio_oihw": (3, 2, 0, 1), "hwc_chw": (2, 0, 1),
    "kttc_kctt": (0, 1, 4, 2, 3)}

# Sonnet numbers these from `_0`; everything else has no number for the first.
_NUMBERED_FROM_ZERO = ("conv_net_2d/conv_2d", "mlp/linear")


def _pattern(row: Row) -> re.Pattern[str]:
    text = re.escape(row.original)
    for name in "ij":
        text = text.replace(rf"\{{{name}\}}", rf"(?P<{name}>(?:_\d+)?)")
    return re.compile(text + r"\Z")


@functools.cache
def _patterns(table: tuple[Row, ...]) -> list[tuple[re.Pattern[str], Row]]:
    return [(_pattern(row), row) for row in table]


def port_name(original: str, table: tuple[Row, ...] = MAPPING) -> tuple[str, str] | None:
    """Port name and transform of an original variable; None if the table has no row for it.

    Args:
        original: the variable's name in the original's checkpoint.
        table: the rows of one model family; every family has its own, as names repeat.
    """
    for pattern, row in _patterns(table):
        match = pattern.match(original)
        if match is None:
            continue
        numbers = {key: (value.removeprefix("_") or "0") for key, value in match.groupdict().items()}
        return row.port.format(**numbers), row.transform
    return None


def original_name(name: str, induced: bool = False, table: tuple[Row, ...] = MAPPING
                  ) -> tuple[str, str]:
    """Original name and transform of a port parameter: `port_name` backwards.

    Args:
        name: a key of the model's state dict.
        induced: the model uses induced self-attention, whose scopes are named otherwise.
        table: the rows of the model family.

    Raises:
        KeyError: the table has no row for it.
    """
    for row in table:
        if row.original.startswith("set_transformer/" + "induced_" * (not induced) + "self_attention"):
            continue
        pattern = re.escape(row.port)
        for key in "ij":
            pattern = pattern.replace(rf"\{{{key}\}}", rf"(?P<{key}>\d+)")
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        original = row.original
        for key, number in match.groupdict().items():
            before = original[:original.index(f"{{{key}}}")]
            from_zero = before.endswith(_NUMBERED_FROM_ZERO)
            original = original.replace(f"{{{key}}}", f"_{number}" if from_zero or number != "0" else "")
        return original, row.transform
    raise KeyError(name)


def to_port(array: np.ndarray, transform: str) -> np.ndarray:
    """An original array in the port's axis order."""
    order = TRANSFORMS[transform]
    return np.ascontiguousarray(array if order is None else array.transpose(order))


def to_original(array: np.ndarray, transform: str) -> np.ndarray:
    """A port array in the original's axis order."""
    order = TRANSFORMS[transform]
    return np.ascontiguousarray(array if order is None else array.transpose(np.argsort(order)))


def load_module(module: nn.Module, arrays: Mapping[str, np.ndarray], tf_scope: str = "",
                torch_scope: str = "", table: tuple[Row, ...] = MAPPING) -> None:
    """Fill a module from original arrays; every parameter exactly once, shapes as they are.

    Args:
        module: the whole model or a part of it.
        arrays: original name → value, every one a variable of the module.
        tf_scope: prepended to every name.
        torch_scope: the module's place in the whole model, with its final dot.
        table: the rows of the model family.

    Raises:
        ConversionError: a name without a row or a parameter, a parameter left over, another shape.
    """
    state = dict(module.named_parameters())
    wanted, unknown = dict(state), []
    for name, array in arrays.items():
        found = port_name(tf_scope + name, table)
        key = None if found is None else found[0].removeprefix(torch_scope)
        if found is None or key not in wanted or not found[0].startswith(torch_scope):
            unknown.append(name)
            continue
        parameter, value = wanted.pop(key), to_port(np.asarray(array), found[1])
        if tuple(parameter.shape) != value.shape:
            raise ConversionError(f"{name}: shape {np.shape(array)} becomes {value.shape}, but "
                                  f"{torch_scope + key} is {tuple(parameter.shape)}; the configuration "
                                  "is another one")
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(value))
    if unknown or wanted:
        raise ConversionError(
            f"{len(unknown)} variables fit no parameter (first {unknown[:3]}), {len(wanted)} parameters "
            f"got no value (first {list(wanted)[:3]}); the configuration is another one")


def module_arrays(module: nn.Module, tf_scope: str = "", torch_scope: str = "",
                  induced: bool = False, table: tuple[Row, ...] = MAPPING
                  ) -> dict[str, tuple[nn.Parameter, str]]:
    """Original name → (parameter, transform) of every parameter of a module."""
    result = {}
    for name, parameter in module.named_parameters():
        original, transform = original_name(torch_scope + name, induced, table)
        result[original.removeprefix(tf_scope)] = (parameter, transform)
    return result


def module_gradients(module: nn.Module, tf_scope: str = "", torch_scope: str = "",
                     induced: bool = False, table: tuple[Row, ...] = MAPPING
                     ) -> dict[str, np.ndarray | None]:
    """Gradients of a module's parameters under original names and layouts; None where there is none."""
    return {name: None if p.grad is None else to_original(p.grad.detach().cpu().numpy(), transform)
            for name, (p, transform) in module_arrays(
                module, tf_scope, torch_scope, induced, table).items()}


SLOT_SUFFIXES = {"RMSProp": "ms", "RMSProp_1": "mom"}


def split_checkpoint(arrays: Mapping[str, np.ndarray]
                     ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]:
    """A checkpoint's model variables, optimizer slots, and what is skipped with the reason."""
    model, slots, skipped = {}, {}, {}
    for name, array in arrays.items():
        owner, _, last = name.rpartition("/")
        if last in SLOT_SUFFIXES and owner in arrays:
            slots[name] = array
        elif "/ExponentialMovingAverage" in name:
            skipped[name] = "average of a reported scalar"
        elif name == "global_step":
            skipped[name] = "training step"
        else:
            model[name] = array
    return model, slots, skipped


def from_tf(arrays: Mapping[str, np.ndarray], config: Config | Mapping | str | Path | None = None
            ) -> ImageAutoencoder:
    """A model with the weights of an original checkpoint.

    Args:
        arrays: name → value, as `reference.read_checkpoint` gives them.
        config: configuration, nested or flat settings, a manifest or its path; required (inference
            from shapes is not built yet).

    Returns:
        The model in eval mode, float32.

    Raises:
        ConfigError: no configuration.
        ConversionError: the checkpoint does not fit the configuration.
    """
    config = read(config)
    if config is None:
        raise ConfigError("a configuration is needed: give config= a manifest, flat or nested settings")
    variables, _, _ = split_checkpoint(arrays)
    model = ImageAutoencoder(config)
    load_module(model, variables)
    return model.eval()


def to_tf(model: ImageAutoencoder) -> dict[str, np.ndarray]:
    """A model's weights under original names and layouts: `from_tf` backwards, bit for bit."""
    induced = model.config.obj_encoder.n_inducing_points > 0
    return {name: to_original(p.detach().cpu().numpy(), transform)
            for name, (p, transform) in module_arrays(model, induced=induced).items()}


def slots_from_tf(model: ImageAutoencoder, arrays: Mapping[str, np.ndarray]
                  ) -> dict[str, dict[str, Tensor]]:
    """RMSProp slots of a checkpoint by port parameter name: {name: {"ms": …, "mom": …}}.

    Args:
        model: gives the dtype; parameters without slots (`dummy_vote`) are absent from the result.
        arrays: as `reference.read_checkpoint` gives them.
    """
    result: dict[str, dict[str, Tensor]] = {}
    for name, array in split_checkpoint(arrays)[1].items():
        owner, _, suffix = name.rpartition("/")
        key, transform = port_name(owner)
        value = torch.from_numpy(to_port(np.asarray(array), transform)).to(model.dtype)
        result.setdefault(key, {})[SLOT_SUFFIXES[suffix]] = value
    return result
