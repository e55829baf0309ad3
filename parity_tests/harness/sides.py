"""Run one recipe on either side and bring outputs and gradients back as NumPy arrays.

Everything outside this file speaks the reference's layout (channels last, TensorFlow variable
names); the port's side is transposed on the way in and out. Functions are looked up by name at call
time, so that a mutated module takes effect.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
# Modules whose initial values are constants.
NOTHING_TO_DRAW = ("core.layers.LayerNorm", "constellation.likelihood.OrderInvariantCapsuleLikelihood")
_places = ["cpu"]


@contextlib.contextmanager
def placed(device: str) -> Iterator[None]:
    """Within the block the port's side runs on this device (the device tier's)."""
    _places.append(device)
    try:
        yield
    finally:
        _places.pop()


def place() -> str:
    """The device of the port's side."""
    return _places[-1]


@dataclass(frozen=True)
class Recipe:
    """How to run something on either side.

    Attributes:
        call: `(lib, x, a, module) -> tensor, tuple, mapping or object`; x holds tensors in the
            side's own layout, a the plain arguments.
        outputs: names of what `call` returns, in order, by key or by attribute.
        layouts: input or output name → axis where the port holds the last (channel) axis, or the
            permutation that brings the port's layout to the reference's.
        constants: inputs that are never differentiated.
        build: `(lib, a) -> module`, or None for a function.
        scope: the module's scope in an original checkpoint of the whole model, with which its
            variables are named here; "" for functions.
        torch_scope: the module's place in `port.ImageAutoencoder`.
        table: the port's module with the family's `MAPPING`, when it is not that of `convert`, as
            `module` or `module:NAME`; a function of the attributes where they decide the family,
            which may give the rows themselves.
    """

    call: Callable[..., Any]
    outputs: Sequence[str] = ("out",)
    layouts: Mapping[str, int | tuple[int, ...]] = field(default_factory=dict)
    constants: Sequence[str] = ()
    build: Callable[..., Any] | None = None
    scope: str = ""
    torch_scope: str = ""
    table: str | Callable[[Mapping[str, Any]], str | tuple] = "checkpoints.convert"

    def mapping(self, attributes: Mapping[str, Any]) -> tuple:
        """The family's conversion table, looked up at call time."""
        table = self.table(attributes) if callable(self.table) else self.table
        if isinstance(table, tuple):
            return table
        room, _, name = table.partition(":")
        return getattr(importlib.import_module(f"port.{room}"), name or "MAPPING")


@dataclass
class Outcome:
    """What a run gave: outputs by name, `grad/<input>` and `vargrad/<variable>`; None = no path."""

    outputs: Arrays
    gradients: dict[str, np.ndarray | None]
    cotangents: Arrays = field(default_factory=dict)


class Folder:
    """A package whose modules are imported when they are asked for: `Folder("port.core").warp`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, module: str) -> ModuleType:
        if module.startswith("_"):
            raise AttributeError(module)
        return importlib.import_module(f"{self._name}.{module}")


class Lib:
    """One side's rooms by attribute: `lib.core.warp` is `port.core.warp` or `reference.core.warp`."""

    def __init__(self, side: str, dtype: str) -> None:
        self.side, self.dtype = side, dtype

    def __getattr__(self, name: str) -> Folder | ModuleType:
        if name.startswith("_"):
            raise AttributeError(name)
        found = importlib.import_module(f"{self.side}.{name}")
        return Folder(found.__name__) if hasattr(found, "__path__") else found

    def get(self, op: str) -> Any:
        """The function or class behind `folder.module.name`, as it is now."""
        module, _, name = op.rpartition(".")
        return getattr(importlib.import_module(f"{self.side}.{module}"), name)

    def section(self, name: str, values: Mapping[str, Any]) -> Any:
        """A configuration section: the plain mapping, or the port's frozen dataclass."""
        if self.side == "reference":
            return dict(values)
        values = {key: tuple(value) if isinstance(value, list) else value
                  for key, value in values.items() if key != "output_size"}  # the canvas, said twice
        return getattr(self.config, name)(**values)

    def module(self, op: str, scope: str, *arguments: Any, **keywords: Any) -> Any:
        """An instance of a class that both sides have, in this side's dtype."""
        cls = self.get(op)
        if op not in NOTHING_TO_DRAW:
            keywords = keywords | {"rng": np.random.default_rng(0)}
        if self.side == "reference":
            tf = importlib.import_module("tensorflow")
            return cls(scope, *arguments, **keywords, dtype=getattr(tf, self.dtype))
        module = cls(*arguments, **keywords)
        return (module.double() if self.dtype == "float64" else module).to(place())


class ProgramError(TypeError):
    """A program does not offer what the harness asks it for; the message says what is missing."""


# What a module has to have on either side.
OFFERED = {"reference": {"variables_by_name": "a property: the original's name → tf.Variable",
                         "load_variables": "a method that assigns {name: array}"},
           "port": {"named_parameters": "of torch.nn.Module"}}


def built(recipe: Recipe, lib: Lib, attributes: Mapping[str, Any]) -> Any:
    """The recipe's module on one side.

    Raises:
        ProgramError: it lacks what its side has to have.
    """
    module = recipe.build(lib, attributes)
    missing = [f"`{name}` ({what})" for name, what in OFFERED[lib.side].items() if not hasattr(module, name)]
    if missing:
        base = "reference.core.module.NamedModule" if lib.side == "reference" else "torch.nn.Module"
        kind = type(module)
        raise ProgramError(f"{kind.__module__}.{kind.__qualname__}, which the recipe builds on the {lib.side} side, "
                           f"lacks {' and '.join(missing)}; derive it from {base}")
    return module


def run(side: str, recipe: Recipe, inputs: Arrays, attributes: Mapping[str, Any], dtype: str,
        cotangents: Arrays | Callable[[Arrays], Arrays] | None = None,
        variables: Arrays | None = None) -> Outcome:
    """Outputs and gradients of Σ output·cotangent on one side.

    Args:
        side: `reference` or `port`.
        recipe: what to run.
        inputs: arrays in the reference's layout; floating ones are cast to `dtype`.
        attributes: plain arguments.
        dtype: `float32` or `float64`.
        cotangents: one array per floating output that counts, or a function that makes them from
            the outputs; None differentiates nothing.
        variables: values by original name, for modules; None keeps the initial ones.
    """
    runner = _run_reference if side == "reference" else _run_port
    return runner(recipe, inputs, attributes, dtype, cotangents or {}, variables)


def draw_variables(recipe: Recipe, attributes: Mapping[str, Any], seed: int) -> Arrays | None:
    """Random values for every variable of a recipe's module, biases included; None for functions."""
    if recipe.build is None:
        return None
    rng = np.random.default_rng(seed)
    module = built(recipe, Lib("reference", "float32"), attributes)
    return {name: (1.0 if name.endswith("gamma") else 0.0)
            + 0.4 * rng.standard_normal(variable.shape.as_list())
            for name, variable in module.variables_by_name.items()}


def draw_cotangents(outputs: Arrays, seed: int) -> Arrays:
    """A standard normal cotangent for every floating output."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(value.shape) for name, value in outputs.items()
            if np.issubdtype(value.dtype, np.floating)}


def _cast(value: np.ndarray, dtype: str) -> np.ndarray:
    value = np.asarray(value)
    return value.astype(dtype) if np.issubdtype(value.dtype, np.floating) else value


def _named(recipe: Recipe, result: Any) -> dict[str, Any]:
    names = recipe.outputs
    if isinstance(result, Mapping):
        return {name: result[name] for name in names}
    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields"):
        return dict(zip(names, result))
    if hasattr(result, "_fields"):
        return {name: getattr(result, name) for name in names}
    return {names[0]: result}


def _differentiable(name: str, value: np.ndarray, recipe: Recipe) -> bool:
    return name not in recipe.constants and np.issubdtype(value.dtype, np.floating)


def _run_reference(recipe: Recipe, inputs: Arrays, attributes: Mapping[str, Any], dtype: str,
                   cotangents: Arrays | Callable[[Arrays], Arrays], variables: Arrays | None
                   ) -> Outcome:
    tf = importlib.import_module("tensorflow")
    lib = Lib("reference", dtype)
    module = built(recipe, lib, attributes) if recipe.build else None
    if module is not None and variables is not None:
        module.load_variables(variables)
    x = {name: tf.constant(_cast(value, dtype)) for name, value in inputs.items()}
    wanted = [name for name, value in inputs.items() if _differentiable(name, value, recipe)]
    trained = module.variables_by_name if module is not None else {}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch([x[name] for name in wanted])
        tape.watch(list(trained.values()))
        results = _named(recipe, recipe.call(lib, x, attributes, module))
        outputs = {name: np.asarray(value) for name, value in results.items()}
        if callable(cotangents):
            cotangents = cotangents(outputs)
        terms = [tf.reduce_sum(results[name] * tf.constant(_cast(cotangent, dtype)))
                 for name, cotangent in cotangents.items() if tf.is_tensor(results[name])]
        total = tf.add_n(terms) if terms else None
    found: dict[str, np.ndarray | None] = {}
    if total is not None:
        grads = tape.gradient(total, [x[name] for name in wanted] + list(trained.values()))
        keys = [f"grad/{name}" for name in wanted] + [f"vargrad/{name}" for name in trained]
        found = {key: None if grad is None else np.asarray(tf.convert_to_tensor(grad))
                 for key, grad in zip(keys, grads)}
    return Outcome(outputs, found, cotangents)


def _run_port(recipe: Recipe, inputs: Arrays, attributes: Mapping[str, Any], dtype: str,
              cotangents: Arrays | Callable[[Arrays], Arrays], variables: Arrays | None) -> Outcome:
    torch = importlib.import_module("torch")
    lib = Lib("port", dtype)
    module = built(recipe, lib, attributes) if recipe.build else None
    if module is not None and variables is not None:
        load_port(lib, module, recipe, variables, attributes)
    x = {}
    for name, value in inputs.items():
        value = to_port(_cast(value, dtype), recipe.layouts.get(name))
        x[name] = torch.tensor(value, requires_grad=_differentiable(name, value, recipe),
                               device=place())
    results = _named(recipe, recipe.call(lib, x, attributes, module))
    outputs = {}
    for name, value in results.items():
        value = value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)
        outputs[name] = from_port(value, recipe.layouts.get(name))
    if callable(cotangents):
        cotangents = cotangents(outputs)
    terms = []
    for name, cotangent in cotangents.items():
        if torch.is_tensor(results[name]) and results[name].requires_grad:
            moved = to_port(_cast(cotangent, dtype), recipe.layouts.get(name))
            terms.append((results[name] * torch.tensor(moved, device=place())).sum())
    if terms:
        sum(terms).backward()
    found: dict[str, np.ndarray | None] = {}
    for name, value in x.items():
        if value.requires_grad:
            grad = None if value.grad is None else value.grad.cpu().numpy()
            found[f"grad/{name}"] = None if grad is None else from_port(grad, recipe.layouts.get(name))
    if module is not None:
        induced = any("induced" in name for name in variables or ())
        found |= {f"vargrad/{name}": grad for name, grad in lib.checkpoints.convert.module_gradients(
            module, "", recipe.torch_scope, induced, recipe.mapping(attributes)).items()}
    return Outcome(outputs, found, cotangents)


def load_port(lib: Lib, module: Any, recipe: Recipe, variables: Arrays,
              attributes: Mapping[str, Any]) -> None:
    """Fill a port module from arrays under the original's names."""
    arrays = {name: _cast(value, lib.dtype) for name, value in variables.items()}
    lib.checkpoints.convert.load_module(module, arrays, tf_scope="", torch_scope=recipe.torch_scope,
                            table=recipe.mapping(attributes))


def to_port(value: np.ndarray, order: int | tuple[int, ...] | None) -> np.ndarray:
    """From the reference's layout to the port's; ranks that broadcast stay as they are."""
    order = _order(value, order)
    return value if order is None else np.ascontiguousarray(value.transpose(np.argsort(order)))


def from_port(value: np.ndarray, order: int | tuple[int, ...] | None) -> np.ndarray:
    """Undo `to_port`."""
    order = _order(value, order)
    return value if order is None else value.transpose(order)


def _order(value: np.ndarray, order: int | tuple[int, ...] | None) -> tuple[int, ...] | None:
    if order is None:
        return None
    if isinstance(order, int):
        if value.ndim <= order:
            return None
        return (*(axis for axis in range(value.ndim) if axis != order), order)
    return order


def permute(lib: Any, x: Any, *order: int) -> Any:
    """Axes in another order, on either side."""
    if lib.side == "port":
        return x.permute(order)
    import tensorflow as tf
    return tf.transpose(x, order)


def reshape(lib: Any, x: Any, *shape: int) -> Any:
    """The same values in another shape, on either side."""
    if lib.side == "port":
        return x.reshape(shape)
    import tensorflow as tf
    return tf.reshape(x, shape)


def broadcast(lib: Any, x: Any, shape: tuple[int, ...]) -> Any:
    """Repeated along axes of size 1, on either side."""
    if lib.side == "port":
        return x.expand(shape)
    import tensorflow as tf
    return tf.broadcast_to(x, shape)
