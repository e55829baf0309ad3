"""What an original checkpoint holds: model variables, optimizer slots, the step, and the rest.

Every array has exactly one place; one without a place, or of a dtype or shape that its place does
not have, is an error that names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from port.checkpoints.programs import Origin, origin_of
from port.checkpoints.tensor_bundle.errors import printable
from port.core.variable_table import ConversionError, Row, original_name, port_name
from port.scae.tf_names import MAPPING

# Three for each reported scalar; the number varies from run to run.
_AVERAGE = re.compile(r".+/ExponentialMovingAverage(_\d+)?(/(biased|local_step))?")
_INDUCED = "set_transformer/induced_self_attention"
AVERAGE = "average of a reported scalar"
STEP_TYPES = ("int64", "int32")  # a program that keeps its own step has it as int32


class Strangers(ConversionError):
    """Arrays that no model of the original has.

    Attributes:
        names: of them.
    """

    def __init__(self, names: list[str], total: int) -> None:
        super().__init__(f"{len(names)} of {total} variables are none of the original's: {listed(names)}")
        self.names = names


@dataclass(frozen=True)
class Contents:
    """A checkpoint, sorted.

    Attributes:
        variables: the model's, by original name.
        slots: the optimizer's, as `<variable>/RMSProp` and `<variable>/RMSProp_1`, or of Adam.
        step: `global_step`; None where there is none.
        skipped: name → why it is left out.
    """

    variables: dict[str, np.ndarray]
    slots: dict[str, np.ndarray]
    step: int | None
    skipped: dict[str, str]

    @property
    def origin(self) -> Origin:
        """The program that wrote it."""
        return origin_of(self.variables)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(array.size for array in self.variables.values())

    def nonfinite(self) -> dict[str, int]:
        """Variables and slots with NaN or infinite entries, and how many."""
        counts = {name: int(array.size - np.isfinite(array).sum())
                  for name, array in (self.variables | self.slots).items()}
        return {name: count for name, count in counts.items() if count}


def split_checkpoint(arrays: Mapping[str, np.ndarray]
                     ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, str]]:
    """A checkpoint's model variables, optimizer slots, and what is skipped with the reason."""
    model, slots, skipped = {}, {}, {}
    origin = origin_of(arrays)
    for name, array in arrays.items():
        owner, _, last = name.rpartition("/")
        if last in origin.slots and owner in arrays:
            slots[name] = array
        elif _AVERAGE.fullmatch(name) and np.ndim(array) == 0:
            skipped[name] = AVERAGE
        elif name == "global_step":
            skipped[name] = "training step"
        elif name in origin.counters:
            skipped[name] = "follows from the step"
        else:
            model[name] = array
    return model, slots, skipped


def is_original(name: str, table: tuple[Row, ...] = MAPPING) -> bool:
    """Whether a model of the original has a variable spelled exactly so."""
    found = port_name(name, table)
    return found is not None and original_name(found[0], table, name.startswith(_INDUCED))[0] == name


def sort_out(arrays: Mapping[str, np.ndarray]) -> Contents:
    """Put every array of a checkpoint in its place.

    Args:
        arrays: name → value, as `port.read_checkpoint` gives them.

    Raises:
        ConversionError: a variable that the original does not have, another dtype, slots that do not
            fit their variables or are not all there, no proper step.
    """
    variables, slots, skipped = split_checkpoint(arrays)
    table = origin_of(variables).table
    unknown = [name for name in variables if not is_original(name, table)]
    if unknown:
        raise Strangers(unknown, len(arrays))
    if not variables:
        raise ConversionError("no model variables in it")
    for name, array in (variables | slots).items():
        if array.dtype != np.float32:
            raise ConversionError(f"{name} is {array.dtype}, the original's are float32")
    _check_slots(variables, slots)
    step = _step(arrays)
    if slots and step is None:
        raise ConversionError("optimizer slots but no global_step; save all variables of the run")
    skipped.pop("global_step", None)
    return Contents(variables, slots, step, skipped)


def _check_slots(variables: Mapping[str, np.ndarray], slots: Mapping[str, np.ndarray]) -> None:
    """Each slot has its variable's shape; a variable has both or neither; only a few may have none."""
    for name, array in slots.items():
        owner = name.rpartition("/")[0]
        if array.shape != variables[owner].shape:
            raise ConversionError(f"{name}: shape {list(array.shape)}, its variable has "
                                  f"{list(variables[owner].shape)}")
    if not slots:
        return
    origin = origin_of(variables)
    for name in variables:
        missing = [f"{name}/{suffix}" for suffix in origin.slots if f"{name}/{suffix}" not in slots]
        if len(missing) == 1 or (missing and name not in origin.may_lack_slots):
            raise ConversionError(f"the optimizer slot {missing[0]} is missing")


def _step(arrays: Mapping[str, np.ndarray]) -> int | None:
    if "global_step" not in arrays:
        return None
    step = np.asarray(arrays["global_step"])
    refused = step_refusal(step)
    if refused:
        raise ConversionError(refused)
    return int(step)


def step_refusal(step: Any) -> str:
    """Why a value is no number of steps made so far; "" where it is one.

    Args:
        step: an array or a tensor.
    """
    kind = str(step.dtype).removeprefix("torch.")
    if kind in STEP_TYPES and not step.ndim and step >= 0:
        return ""
    return (f"global_step is {kind} of shape {list(step.shape)}" + (f", {step.item()}" if not step.ndim else "")
            + f"; expected one {' or '.join(STEP_TYPES)} from 0 up")


def listed(names: list[str], most: int = 3) -> str:
    """The first few of many names, fit for a terminal."""
    rest = len(names) - most
    return ", ".join(map(printable, names[:most])) + (f" and {rest} more" if rest > 0 else "")
