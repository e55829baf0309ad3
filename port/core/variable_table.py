"""Tables from a program's variables to the port's parameters, and back: rows are data, not code.

Every name has at most one row in a table; `port_name` and `original_name` are each other's inverse.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class ConversionError(ValueError):
    """Names or shapes that do not fit; the message lists the first of each kind."""


class Layout(NamedTuple):
    """A layout change that no order of axes describes.

    `to_port(array, shape)` gets the parameter's shape, `to_original(array)` the parameter's values.
    """

    to_port: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]
    to_original: Callable[[np.ndarray], np.ndarray]


class Row(NamedTuple):
    """One line of the mapping: original name (with `{i}` for an index), port name, layout change."""

    original: str
    port: str
    transform: str | Layout = "same"


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


def port_name(original: str, table: tuple[Row, ...]) -> tuple[str, str | Layout] | None:
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


def original_name(name: str, table: tuple[Row, ...], induced: bool = False) -> tuple[str, str | Layout]:
    """Original name and transform of a port parameter: `port_name` backwards.

    Args:
        name: a key of the model's state dict.
        table: the rows of the model family.
        induced: the model uses induced self-attention, whose scopes are named otherwise.

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


def to_port(array: np.ndarray, transform: str | Layout, shape: tuple[int, ...] = ()) -> np.ndarray:
    """A copy of an original array in the port's layout; a `Layout` needs the parameter's shape."""
    if isinstance(transform, Layout):
        return np.array(transform.to_port(array, shape), order="C")
    order = TRANSFORMS[transform]
    return np.array(array if order is None else array.transpose(order), order="C")


def to_original(array: np.ndarray, transform: str | Layout) -> np.ndarray:
    """A copy of a port array in the original's layout: training on does not change it."""
    if isinstance(transform, Layout):
        return np.array(transform.to_original(array), order="C")
    order = TRANSFORMS[transform]
    return np.array(array if order is None else array.transpose(np.argsort(order)), order="C")
