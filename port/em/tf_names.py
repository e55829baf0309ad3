"""Names and layouts of matrix-capsule checkpoints: the tables that `port.convert`'s functions read.

`MAPPING` is IBM's program and the presets `ibm` and `paper`; `OFFICIAL` the official program. Names
do not tell the two apart in every row, so `table_of` chooses by a model's settings and `family_of` by
a checkpoint's names. An IBM layer keeps kernel places and child types on one axis: the kernel's size
is the settings', not the shape's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from port.core.variable_table import Layout, Row
from port.em.settings import Network

# Both programs have two convolutional capsule layers; a table holds as many rows as anyone stacks.
_LAYERS = 8


def _official_conv_to_port(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[I, K, L, m, a·J + j] → [K, L, I, J, m, a]."""
    return array.reshape(*array.shape[:4], 4, -1).transpose(1, 2, 0, 5, 3, 4)


def _official_conv_to_original(array: np.ndarray) -> np.ndarray:
    rows, columns, types_in, types_out = array.shape[:4]
    return array.transpose(2, 0, 1, 4, 5, 3).reshape(types_in, rows, columns, 4, 4 * types_out)


def _official_class_to_port(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[I, m, a·J + j] → [I, J, m, a]."""
    return array.reshape(*array.shape[:2], 4, -1).transpose(0, 3, 1, 2)


def _official_class_to_original(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1).reshape(array.shape[0], 4, 4 * array.shape[1])


def _ibm_conv_to_port(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[1, (u·L + v)·I + i, J, m, a] → [K, L, I, J, m, a]."""
    fits = array.ndim == 5 and array.shape == (1, math.prod(shape[:3]), *shape[3:])
    return array.reshape(shape) if fits else array


def _ibm_conv_to_original(array: np.ndarray) -> np.ndarray:
    return array.reshape(1, -1, *array.shape[3:])


def _among(rank: int, axis: int) -> Layout:
    """[J] among axes of size 1, at `axis` of `rank`."""
    def to_original(array: np.ndarray) -> np.ndarray:
        return array.reshape([len(array) if i == axis else 1 for i in range(rank)])

    def to_port(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        fits = array.ndim == rank and array.size == array.shape[axis]
        return array.reshape(-1) if fits else array

    return Layout(to_port, to_original)


OFFICIAL_CONV = Layout(_official_conv_to_port, _official_conv_to_original)
OFFICIAL_CLASS = Layout(_official_class_to_port, _official_class_to_original)
IBM_CONV = Layout(_ibm_conv_to_port, _ibm_conv_to_original)
IBM_CLASS = Layout(lambda array, shape: array.reshape(array.shape[1:]) if len(array) == 1 else array,
                   lambda array: array[None])
OFFICIAL_BETA, OFFICIAL_CLASS_BETA, IBM_BETA = _among(8, 2), _among(6, 2), _among(6, 4)

MAPPING: tuple[Row, ...] = (
    Row("relu_conv1/weights", "conv.weight", "hwio_oihw"),
    Row("relu_conv1/biases", "conv.bias"),
    Row("primary_caps/pose/weights", "primary.pose_weight", "hwio_oihw"),
    Row("primary_caps/pose/biases", "primary.pose_bias"),
    Row("primary_caps/activation/weights", "primary.activation_weight", "hwio_oihw"),
    Row("primary_caps/activation/biases", "primary.activation_bias"),
    *(row for i in range(_LAYERS) for row in (
        Row(f"lyr.conv_caps{i + 1}/votes/w", f"capsules.{i}.weight", IBM_CONV),
        Row(f"lyr.conv_caps{i + 1}/routing/beta_v", f"capsules.{i}.beta_u", IBM_BETA),
        Row(f"lyr.conv_caps{i + 1}/routing/beta_a", f"capsules.{i}.beta_a", IBM_BETA))),
    Row("class_caps/v/w", "class_capsules.weight", IBM_CLASS),
    Row("class_caps/routing/beta_v", "class_capsules.beta_u", IBM_BETA),
    Row("class_caps/routing/beta_a", "class_capsules.beta_a", IBM_BETA),
)

OFFICIAL: tuple[Row, ...] = (
    Row("conv1/weights", "conv.weight", "hwio_oihw"),
    Row("conv1/biases", "conv.bias"),
    Row("conv_capsule1/weights", "primary.pose_weight", "hwio_oihw"),
    Row("conv_capsule1/conv_capsule1_act/weights", "primary.activation_weight", "hwio_oihw"),
    *(row for i in range(_LAYERS) for row in (
        Row(f"convCaps{i}/weights", f"capsules.{i}.weight", OFFICIAL_CONV),
        Row(f"convCaps{i}/sigma_biases", f"capsules.{i}.beta_u", OFFICIAL_BETA),
        Row(f"convCaps{i}/activation_biases", f"capsules.{i}.beta_a", OFFICIAL_BETA))),
    Row("capsule2/weights", "class_capsules.weight", OFFICIAL_CLASS),
    Row("capsule2/sigma_biases", "class_capsules.beta_u", OFFICIAL_CLASS_BETA),
    Row("capsule2/activation_biases", "class_capsules.beta_a", OFFICIAL_CLASS_BETA),
)


def table_of(settings: Network) -> tuple[Row, ...]:
    """The table of a network's program, by what its betas mean."""
    return OFFICIAL if settings.routing.betas == "official" else MAPPING


def family_of(names: Iterable[str]) -> str | None:
    """`official` or `ibm` from the variable names of a checkpoint; None for neither."""
    names = set(names)
    for family, table in (("ibm", MAPPING), ("official", OFFICIAL)):
        first = {row.original for row in table if row.port in ("class_capsules.beta_u",
                                                               "capsules.0.beta_u")}
        if first & names:
            return family
    return None
