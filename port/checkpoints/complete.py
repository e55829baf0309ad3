"""A checkpoint's configuration: what its shapes show, joined with what the user says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from port import config as configuration
from port.checkpoints import infer_routing
from port.checkpoints import strides as grids
from port.checkpoints.infer import Inference, either, shown
from port.config import FLAT, SECTIONS, AnyConfig, ConfigError
from port.constellation import config as config_constellation


def complete(inference: Inference, given: Mapping[str, Any], default: bool = False) -> AnyConfig:
    """The configuration from what the checkpoint shows and what the user says.

    Args:
        inference: from `infer`.
        given: flat settings as `config.explicit` reads them.
        default: what nobody says has the original's default (a preset, a recorded command line);
            otherwise it is stored as unset.

    Raises:
        ConfigError: a setting that contradicts the checkpoint, or required ones that are missing.
    """
    n_layers = len(inference.known.get("output_channels", ()))
    wrong = [f"{key} is {shown(given[key])}, the checkpoint has {shown(value)}"
             for key, value in inference.known.items()
             if key in given and not same(key, given[key], value, n_layers)]
    if wrong:
        raise ConfigError("the configuration contradicts the checkpoint: " + "; ".join(wrong))
    settings = inference.assumed | inference.known | dict(given)
    if inference.model in infer_routing.INFERENCES:
        _refuse_missing({key: values for key, values in inference.needed.items() if key not in given})
        return configuration.from_flat({"model": inference.model} | settings)
    if inference.model != "scae":
        return configuration.from_flat({"model": inference.model} | settings | (
            {} if default else _unset(settings, config_constellation.FLAT, config_constellation.SECTIONS)))
    required, strides = inference.required, given.get("strides")
    if strides is not None:
        strides = grids.each(strides, len(inference.kernels))
        if len(strides) != len(inference.kernels):
            raise ConfigError(f"strides {shown(strides)}: the checkpoint has {len(inference.kernels)} "
                              "convolutions")
        sizes = grids.canvases(inference.grid, inference.kernels, strides)
        required["canvas_size"] = either(sizes)
        if len(sizes) == 1:
            settings.setdefault("canvas_size", sizes[0])
    missing = {key: values for key, values in required.items() if key not in settings and not (
        default and key != "canvas_size")}
    _refuse_missing(missing)
    fits = _strides(inference, settings["canvas_size"], strides)
    settings["strides"] = given.get("strides", fits)
    return configuration.from_flat(settings | ({} if default else _unset(settings, FLAT, SECTIONS)))


def _refuse_missing(missing: Mapping[str, str]) -> None:
    """Raise for required settings that nobody gave."""
    if missing:
        raise ConfigError("the checkpoint does not tell " + ", ".join(
            f"{key} ({values})" for key, values in missing.items()) + ": give "
            + ("it" if len(missing) == 1 else "them")
            + " (config=…; on the command line --config FILE or --preset NAME)")


def _unset(settings: Mapping[str, Any], flat: Mapping[str, Any], sections: Mapping[str, type]
           ) -> dict[str, str]:
    """`section.name` → "unset" for every argument that the settings leave open."""
    told = {place for key in settings for place in flat[key]}
    places = [(section, name) for section, cls in sections.items() for name in cls.__dataclass_fields__]
    return {f"{section}.{name}": configuration.UNSET for section, name in places
            if (section, name) not in told}


def _strides(inference: Inference, canvas: int, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """The strides that bring the canvas to the embedding grid; others than the original's are given."""
    grid, kernels = inference.grid, inference.kernels
    candidates = grids.strides_possible(len(kernels)) if given is None else [given]
    fits = grids.fitting(grid, kernels, canvas, candidates)
    if not fits:
        sizes = sorted({size for s in candidates for size in grids.canvases(grid, kernels, s)})
        other = grids.fitting(grid, kernels, canvas, grids.any_of_two(len(kernels)))
        words = f" with strides {shown(candidates[0])}" if len(candidates) == 1 else ""
        hint = f"; if its strides are others, give strides ({either(other)} would fit)" if other else ""
        raise ConfigError(f"canvas_size {canvas} contradicts the checkpoint: its {grid}×{grid} "
                          f"embedding comes from a canvas of {either(sizes)}{words}{hint}")
    if len(fits) > 1:
        raise ConfigError(f"canvas_size {canvas} and the {grid}×{grid} embedding fit several strides: "
                          f"give strides ({either(fits)})")
    return fits[0]


def same(key: str, one: Any, other: Any, n_layers: int) -> bool:
    """Whether two values of a setting mean the same.

    A single kernel or stride serves all `n_layers` convolutions, one hidden size may be a list.
    """
    def spelled(value: Any) -> Any:
        if key in ("kernel_shapes", "strides"):
            return grids.each(value, n_layers)
        if key == "n_hiddens" and not isinstance(value, int) and len(value) == 1:
            return value[0]
        return value

    return spelled(one) == spelled(other)
