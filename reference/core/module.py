"""The base of every reference module: variables carry the original's checkpoint names."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

_trainable = contextvars.ContextVar("trainable", default=True)


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Variables made inside are not trained: no tape watches them, no gradient reaches them."""
    before = _trainable.set(False)
    try:
        yield
    finally:
        _trainable.reset(before)


class NamedModule(tf.Module):
    """A `tf.Module` whose variables are named `<scope>/<name>` exactly as in original checkpoints.

    Args:
        scope: the original's variable scope, without a trailing slash; may be empty.
        dtype: `tf.float32` or `tf.float64`.
    """

    def __init__(self, scope: str, dtype: tf.DType = tf.float32) -> None:
        super().__init__(name=(scope.split("/")[-1] or "model").replace("-", "_").replace(".", "_"))
        self.scope = scope
        self.dtype = dtype

    def add_variable(self, name: str, value: np.ndarray) -> tf.Variable:
        """A variable `<scope>/<name>` with this initial value, in the module's dtype; see `frozen`."""
        full = f"{self.scope}/{name}" if self.scope else name
        return tf.Variable(tf.cast(value, self.dtype), name=full, trainable=_trainable.get())

    @property
    def variables_by_name(self) -> dict[str, tf.Variable]:
        """Every variable of the module and its parts under the original's name."""
        return {variable.name.removesuffix(":0"): variable for variable in self.variables}

    def load_variables(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Assign every variable from the array of its name; further names are ignored.

        Args:
            arrays: name → value, as `read_checkpoint` gives them.

        Raises:
            KeyError: a variable has no array.
            ValueError: a shape differs; nothing is reshaped silently.
        """
        variables = self.variables_by_name
        missing = sorted(set(variables) - set(arrays))
        if missing:
            raise KeyError(f"no value for {len(missing)} variables, first {missing[0]!r}; "
                           "is this a checkpoint of another configuration?")
        for name, variable in variables.items():
            value = np.asarray(arrays[name])
            if value.shape != tuple(variable.shape):
                raise ValueError(f"{name}: shape {value.shape}, expected {tuple(variable.shape)}")
            variable.assign(tf.cast(value, self.dtype))


class Taps(dict):
    """Name → tensor of a forward pass; with a tape, constants can be watched for gradients too."""

    def __init__(self, tape: tf.GradientTape | None = None) -> None:
        super().__init__()
        self.tape = tape

    def watch(self, tensor: tf.Tensor) -> tf.Tensor:
        """Let the tape take a gradient at a tensor that no variable reaches."""
        if self.tape is not None:
            self.tape.watch(tensor)
        return tensor


def join(scope: str, name: str) -> str:
    """`scope/name`, or `name` when the scope is empty."""
    return f"{scope}/{name}" if scope else name
