"""Run a whole model on either side: every tap, scalar and gradient as NumPy arrays.

Of an image model the inputs are images and labels, of a constellation model points and presences.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity_tests.harness import routing_models
from parity_tests.harness.sides import Arrays, place

# Taps whose gradients the recordings hold, and the token templates (decoded anew in the loss).
INTER = ("part_enc/img_embedding", "part_enc/caps_params", "part_enc/pose", "part_enc/presence",
         "part_enc/pres_logit", "part_enc/feature", "templates/colorized", "obj_enc/output",
         "obj_enc/input", "obj_enc/layer0_out", "obj_dec/all_params", "res/scale",
         "res/raw_caps_params", "res/vote")


@dataclass
class ModelOutcome:
    """Taps and scalars by golden name, gradients by `var/<variable>` and `inter/<tap>`."""

    taps: Arrays
    gradients: dict[str, np.ndarray | None]

    @property
    def largest(self) -> float:
        """G: the largest entry of any variable gradient."""
        return max((float(np.abs(g).max()) for name, g in self.gradients.items()
                    if g is not None and g.size and name.startswith("var/")), default=0.0)


def copied(arrays: Arrays) -> Arrays:
    """The same with memory of its own, which no later update of the model changes."""
    return {name: None if value is None else np.array(value) for name, value in arrays.items()}


# Names of a model's two inputs in a recording: what it sees, and labels or presences.
INPUTS = {"scae": ("image", "label"), "constellation": ("corners", "presence")}
UPPER_INTER = ("upper/pose", "upper_enc/input", "upper_enc/output", "res/parent_vote", "res/upper_vote")
CONSTELLATION_INTER = ("obj_enc/output", "obj_enc/input", "obj_enc/layer0_out", "obj_dec/all_params",
                       "res/vote")


def inter_of(arguments: Mapping[str, Any]) -> list[str]:
    """Taps with respect to which the loss of this model is differentiated too."""
    if is_constellation(arguments):
        return list(CONSTELLATION_INTER)
    names = INTER + UPPER_INTER * ("upper" in arguments)
    if arguments.get("model") == "pcae":
        names = [name for name in INTER if name.startswith(("part_enc", "templates"))]
    without = set() if arguments["part_encoder"]["n_features"] else {"part_enc/feature"}
    if arguments["autoencoder"].get("object_encoder") == "mlp":
        without.add("obj_enc/layer0_out")
    return [name for name in names if name not in without]


def inputs_of(batches: Arrays, step: int) -> tuple[np.ndarray, np.ndarray | None]:
    """One batch of a recording: images and labels, or points and presences; None where there are none."""
    names = INPUTS["constellation" if "corners" in batches else "scae"]
    return batches[names[0]][step], batches[names[1]][step] if names[1] in batches else None


def build(side: str, arguments: Mapping[str, Any], dtype: str, seed: int = 0) -> Any:
    """The whole model of one side in one dtype, with its initial weights."""
    if side == "reference":
        import tensorflow as tf
        if arguments.get("model") in routing_models.MODELS:
            return routing_models.MODELS[arguments["model"]](arguments, seed, dtype)
        reference = importlib.import_module("reference")
        kinds = {"constellation": reference.ConstellationAutoencoder, "pcae": reference.PartAutoencoder,
                 "hierarchy": reference.HierarchyAutoencoder}
        kind = kinds.get(arguments.get("model"), reference.ImageAutoencoder)
        return kind(arguments, seed=seed, dtype=getattr(tf, dtype))
    config = importlib.import_module("port.config").from_arguments(arguments)
    model = importlib.import_module("port.families").build(config, seed)
    return (model.double() if dtype == "float64" else model).to(place())


def is_constellation(arguments: Mapping[str, Any]) -> bool:
    """Whether nested class arguments are those of the constellation autoencoder."""
    return arguments.get("model") == "constellation"


def load(side: str, model: Any, variables: Arrays) -> None:
    """Fill every variable from arrays under the original's names."""
    if side == "reference":
        model.load_variables(variables)
    else:
        table = importlib.import_module("port.checkpoints.programs").origin_of_config(model.config).table
        importlib.import_module("port.checkpoints.convert").load_module(model, variables, table=table)


def variables_of(side: str, model: Any) -> Arrays:
    """Every variable under the original's name and layout."""
    if side == "reference":
        return {name: v.numpy() for name, v in model.variables_by_name.items()}
    return importlib.import_module("port.checkpoints.convert").to_tf(model)


def forward(side: str, model: Any, image: np.ndarray, label: np.ndarray | None,
            noise: Sequence[np.ndarray] | None, dtype: str, inter: Sequence[str] = (),
            taps: bool = True, gradients: bool = True) -> ModelOutcome:
    """One forward and backward pass.

    Args:
        side: `reference` or `port`.
        model: from `build`.
        image: `[B, S, S, C]`, or points `[B, M, 2]`.
        label: `[B]` or None, or presences `[B, M]` or None.
        noise: raw draws in the original's order, or None.
        dtype: of the model.
        inter: taps with respect to which the loss is differentiated too.
        taps: record every tap.
        gradients: differentiate at all.
    """
    run = _forward_reference if side == "reference" else _forward_port
    return run(model, image, label, noise, dtype, list(inter), taps, gradients)


def _forward_reference(model: Any, image: np.ndarray, label: np.ndarray | None,
                       noise: Sequence[np.ndarray] | None, dtype: str, inter: list[str], taps: bool,
                       gradients: bool) -> ModelOutcome:
    import tensorflow as tf
    variables = model.variables_by_name
    if label is not None and is_constellation(model.arguments):
        label = label.astype(dtype)
    # A tape keeps every intermediate for as long as it is there: gigabytes at full size.
    with tf.GradientTape() if gradients else contextlib.nullcontext() as tape:
        result = model(tf.constant(image.astype(dtype)),
                       None if label is None else tf.constant(label),
                       None if noise is None else [tf.constant(raw) for raw in noise],
                       taps=taps or bool(inter), tape=tape)
    found: dict[str, np.ndarray | None] = {}
    if gradients:
        sources = list(variables.values()) + [result.taps[name] for name in inter]
        grads = tape.gradient(result.loss, sources)
        names = [f"var/{name}" for name in variables] + [f"inter/{name}" for name in inter]
        found = {name: None if grad is None else np.asarray(tf.convert_to_tensor(grad))
                 for name, grad in zip(names, grads)}
    return ModelOutcome(_taps(result, lambda value: np.asarray(value)), found)


def _forward_port(model: Any, image: np.ndarray, label: np.ndarray | None,
                  noise: Sequence[np.ndarray] | None, dtype: str, inter: list[str], taps: bool,
                  gradients: bool) -> ModelOutcome:
    import torch
    port = importlib.import_module("port")
    model.zero_grad(set_to_none=True)
    draws = None if noise is None else port.Noise(
        **{f"raw_{i}": torch.tensor(raw, device=place()) for i, raw in enumerate(noise)})
    image = image.astype(dtype)
    if model.config.kind == "constellation":
        label = None if label is None else label.astype(dtype)
    else:
        image = np.ascontiguousarray(np.moveaxis(image, -1, 1))
    # Without taps a pass is the one of training, whose kernels keep what a backward pass needs.
    with torch.set_grad_enabled(gradients or not taps):
        result = model(torch.tensor(image, device=place()),
                       None if label is None else torch.tensor(label, device=place()), draws, taps=taps)
    found: dict[str, np.ndarray | None] = {}
    if gradients:
        if inter:
            found = {f"inter/{name}": None if grad is None else grad.cpu().numpy()
                     for name, grad in result.taps.gradients(result.loss, inter).items()}
        result.loss.backward()
        convert = importlib.import_module("port.checkpoints.convert")
        induced = convert.is_induced(model)
        found |= {f"var/{name}": grad for name, grad in
                  convert.module_gradients(model, induced=induced).items()}
    return ModelOutcome(_taps(result, lambda value: value.detach().cpu().numpy()), found)


def _taps(result: Any, array: Any) -> Arrays:
    found = {} if result.taps is None else {name: array(value) for name, value in result.taps.items()}
    found |= {f"res/{name}": array(value) for name, value in result.scalars.items()}
    return found | {"loss/total": array(result.loss)}


def sampler_cells(outcome: ModelOutcome, canvas: int, template: Sequence[int], side: str = "reference"
                  ) -> np.ndarray | None:
    """Cell of the bilinear sampler for every (part, pixel) of the loss decoder, from its taps."""
    inverse = outcome.taps.get("part_dec/inverse_pose")
    if inverse is None:
        return None
    warp = importlib.import_module(f"{side}.core.warp")
    tensor = importlib.import_module("tensorflow").constant if side == "reference" else \
        importlib.import_module("torch").tensor
    grid = warp.affine_grid(tensor(inverse), (canvas, canvas), tuple(template))
    with np.errstate(invalid="ignore"):
        return np.floor(np.asarray(grid))


def same_pieces(one: ModelOutcome, other: ModelOutcome, arguments: Mapping[str, Any],
                side: str = "reference") -> str:
    """Name of the first discontinuity that parts two runs, or an empty string.

    Sampler cells, signs before each ReLU of the encoder, capsule winners and object presences: where
    float32 rounds to the other side of one, gradients jump and are not comparable. `side` computes
    the cells.
    """
    if not is_constellation(arguments):
        canvas, size = arguments["canvas"], arguments["part_decoder"]["template_size"]
        cells = [sampler_cells(outcome, canvas, size, side) for outcome in (one, other)]
        if cells[0] is not None and not np.array_equal(*cells, equal_nan=True):
            return "sampler cell"
    before_relu = [name for name in one.taps if name.endswith("_preact")
                   and name.startswith(("part_enc/conv", "part_enc/residual"))
                   and name in other.taps]
    if not all(np.array_equal(one.taps[n] > 0, other.taps[n] > 0) for n in before_relu):
        return "ReLU of the encoder"
    soft = "Q04" in arguments.get("repairs", ())  # then the presence of votes is no 0 or 1
    for name in ("res/is_from_capsule", "res/upper_is_from_capsule",
                 *(() if soft else ("res/vote_presence",))):
        if name in one.taps and not np.array_equal(one.taps[name], other.taps[name]):
            return "winning capsule"
    return ""


def optimizer_step(side: str, model: Any, lr: float, rmsprop: Mapping[str, Any], slots: Arrays
                   ) -> Callable[[ModelOutcome], None]:
    """A function that applies one RMSProp step with the gradients of the last `forward`.

    Args:
        side: `reference` or `port`.
        model: from `build`.
        lr: learning rate.
        rmsprop: decay, momentum and epsilon, as in a manifest.
        slots: `<variable>/RMSProp{,_1}`; empty starts from ones and zeros.
    """
    constants = {key: rmsprop[key] for key in ("decay", "momentum", "epsilon")}
    if side == "reference":
        import tensorflow as tf
        optimizer = importlib.import_module("reference.core.rmsprop").RMSProp(
            model.variables_by_name, lr, **constants)
        optimizer.load_slots(slots)

        def step(outcome: ModelOutcome) -> None:
            optimizer.step({name: None if outcome.gradients[f"var/{name}"] is None
                            else tf.constant(outcome.gradients[f"var/{name}"])
                            for name in model.variables_by_name})
        return step
    named = dict(model.named_parameters())
    port_optimizer = importlib.import_module("port.core.rmsprop").RMSProp(named.items(), lr=lr, **constants)
    for name, values in importlib.import_module("port.checkpoints.convert").slots_from_tf(model, slots_with_owner(
            slots, variables_of(side, model))).items():
        port_optimizer.state[named[name]].update(
            {slot: value.to(place()) for slot, value in values.items()})

    def port_step(outcome: ModelOutcome) -> None:
        port_optimizer.step()
    return port_step


def slots_with_owner(slots: Arrays, variables: Arrays) -> Arrays:
    """Slots beside their variables, as they stand in a checkpoint."""
    return {**variables, **slots} if slots else {}
