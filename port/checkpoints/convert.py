"""Named NumPy arrays of an original checkpoint to a model and back, by the table in `port.scae.tf_names`.

No TensorFlow here: `port.read_checkpoint` reads what this module converts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from port.checkpoints import infer
from port.checkpoints.complete import complete
from port.checkpoints.contents import Contents, sort_out, split_checkpoint
from port.checkpoints.programs import origin_of, origin_of_config
from port.config import AnyConfig, explicit, is_complete
from port.core.variable_table import ConversionError, Layout, Row, original_name, port_name, to_original, to_port
from port.families import Model, build
from port.scae.tf_names import MAPPING

__all__ = ["MAPPING", "ConversionError", "Layout", "Row", "configuration_of", "from_tf", "load_module",
           "module_arrays", "module_gradients", "original_name", "port_name", "slots_from_tf",
           "slots_to_tf", "split_checkpoint", "to_original", "to_port", "to_tf"]


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
        parameter = wanted.pop(key)
        value = to_port(np.asarray(array), found[1], tuple(parameter.shape))
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
                  ) -> dict[str, tuple[nn.Parameter, str | Layout]]:
    """Original name → (parameter, transform) of every parameter of a module."""
    result = {}
    for name, parameter in module.named_parameters():
        original, transform = original_name(torch_scope + name, table, induced)
        result[original.removeprefix(tf_scope)] = (parameter, transform)
    return result


def module_gradients(module: nn.Module, tf_scope: str = "", torch_scope: str = "",
                     induced: bool = False, table: tuple[Row, ...] = MAPPING
                     ) -> dict[str, np.ndarray | None]:
    """Gradients of a module's parameters under original names and layouts; None where there is none."""
    return {name: None if p.grad is None else to_original(p.grad.detach().cpu().numpy(), transform)
            for name, (p, transform) in module_arrays(
                module, tf_scope, torch_scope, induced, table).items()}


def configuration_of(contents: Contents, config: AnyConfig | Mapping | str | Path | None = None,
                     default: bool | None = None) -> AnyConfig:
    """The configuration of a checkpoint: what names and shapes show, and what `config` says.

    Args:
        contents: of the checkpoint.
        config: configuration, nested or flat settings, a manifest or its path; only what the
            checkpoint does not tell is needed.
        default: what nobody says has the original's default; False stores it as unset. By default
            so for a whole configuration and for a recording, which leave nothing open.

    Raises:
        ConfigError: required settings are missing, or a given one contradicts the checkpoint.
        InferenceError: the variables are no model of the original.
    """
    found = infer.infer({name: array.shape for name, array in contents.variables.items()},
                        {name.rpartition("/")[0] for name in contents.slots})
    given = explicit(config, found.model)
    if default is None:
        default = is_complete(config)
    return complete(found, given, default)


def from_tf(arrays: Mapping[str, np.ndarray], config: AnyConfig | Mapping | str | Path | None = None
            ) -> Model:
    """A model with the weights of an original checkpoint.

    Args:
        arrays: name → value, as `port.read_checkpoint` gives them.
        config: configuration, nested or flat settings, a manifest or its path; needed only for what
            names and shapes do not show (`port.checkpoints.infer`).

    Returns:
        The model in eval mode, float32.

    Raises:
        ConfigError: required settings are missing, or a given one contradicts the checkpoint.
        ConversionError, InferenceError: the checkpoint is no model of the original.
    """
    contents = sort_out(arrays)
    model = build(configuration_of(contents, config))
    load_module(model, contents.variables, table=contents.origin.table)
    return model.eval()


def to_tf(model: Model) -> dict[str, np.ndarray]:
    """A model's weights under original names and layouts: `from_tf` backwards, bit for bit."""
    found = module_arrays(model, induced=is_induced(model), table=origin_of_config(model.config).table)
    return {name: to_original(p.detach().cpu().numpy(), transform)
            for name, (p, transform) in found.items()}


def is_induced(model: Model) -> bool:
    """Whether the model has induced self-attention, whose scopes are named otherwise."""
    encoder = getattr(model.config, "obj_encoder", None)
    return encoder is not None and encoder.n_inducing_points > 0


def slots_from_tf(model: Model, arrays: Mapping[str, np.ndarray]
                  ) -> dict[str, dict[str, Tensor]]:
    """Optimizer slots of a checkpoint by port parameter name, such as {name: {"ms": …, "mom": …}}.

    Args:
        model: gives dtype and shapes; parameters without slots (`dummy_vote`) are absent from the result.
        arrays: as `port.read_checkpoint` gives them.
    """
    origin, shapes = origin_of(arrays), {name: tuple(p.shape) for name, p in model.named_parameters()}
    result: dict[str, dict[str, Tensor]] = {}
    for name, array in split_checkpoint(arrays)[1].items():
        owner, _, suffix = name.rpartition("/")
        key, transform = port_name(owner, origin.table)
        value = torch.from_numpy(to_port(np.asarray(array), transform, shapes[key])).to(model.dtype)
        result.setdefault(key, {})[origin.slots[suffix]] = value
    return result


def slots_to_tf(model: Model, slots: Mapping[str, Mapping[str, Tensor]]
                ) -> dict[str, np.ndarray]:
    """`slots_from_tf` backwards, bit for bit."""
    origin, result = origin_of_config(model.config), {}
    for suffix, slot in origin.slots.items():
        for key, values in slots.items():
            name, transform = original_name(key, origin.table, is_induced(model))
            result[f"{name}/{suffix}"] = to_original(values[slot].detach().cpu().numpy(), transform)
    return result
