"""Types of tensors as checkpoints number them, and what NumPy makes of each.

NumPy has no bfloat16 and no float of 8 bits. Their values are exact in a wider float, so they are widened:
bfloat16 and float8 to float32. Quantized integers are given as the integers they are stored as. Strings
become an array of `bytes` objects.
Source: tensorflow/core/framework/types.proto.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from port.checkpoints.tensor_bundle.errors import Malformed


class DType(NamedTuple):
    """A type.

    Attributes:
        name: TensorFlow's.
        stored: NumPy's of the bytes in the file; None for strings.
        values: field of V1's message with the values, and how they are packed; None where V1
            has no place for them.
    """

    name: str
    stored: str | None
    values: tuple[str, str] | None

    @property
    def size(self) -> int:
        """Bytes of an element in a bundle; of a string, that of its length: at least one."""
        return 1 if self.stored is None else np.dtype(self.stored).itemsize

    @property
    def widened(self) -> bool:
        """Whether NumPy lacks it, so that its values come in a wider type."""
        return self.name in _WIDENED

    @property
    def numpy(self) -> np.dtype:
        """What an array of it has."""
        return np.dtype(_WIDENED.get(self.name, self.stored or object)).newbyteorder("=")


_INT, _LONG = ("int_val", "varints"), ("int64_val", "varints")
_WIDENED = {"bfloat16": "<f4", "float8_e5m2": "<f4", "float8_e4m3fn": "<f4"}
DTYPES: dict[int, DType] = {
    1: DType("float32", "<f4", ("float_val", "fixed32s")),
    2: DType("float64", "<f8", ("double_val", "fixed64s")),
    3: DType("int32", "<i4", _INT), 4: DType("uint8", "|u1", _INT), 5: DType("int16", "<i2", _INT),
    6: DType("int8", "|i1", _INT), 7: DType("string", None, ("string_val", "bytes")),
    8: DType("complex64", "<c8", ("scomplex_val", "fixed32s")), 9: DType("int64", "<i8", _LONG),
    10: DType("bool", "|b1", ("bool_val", "varints")), 11: DType("qint8", "|i1", _INT),
    12: DType("quint8", "|u1", _INT), 13: DType("qint32", "<i4", _INT),
    14: DType("bfloat16", "<u2", ("half_val", "varints")), 15: DType("qint16", "<i2", _INT),
    16: DType("quint16", "<u2", _INT), 17: DType("uint16", "<u2", _INT),
    18: DType("complex128", "<c16", ("dcomplex_val", "fixed64s")),
    19: DType("float16", "<f2", ("half_val", "varints")),
    22: DType("uint32", "<u4", ("uint32_val", "varints")),
    23: DType("uint64", "<u8", ("uint64_val", "varints")),
    24: DType("float8_e5m2", "|u1", None),
    25: DType("float8_e4m3fn", "|u1", None),
}
# Known, but nothing that a variable's values could be given as.
REFUSED = {20: "resource", 21: "variant", 29: "int4", 30: "uint4"}
CODES = {dtype.name: code for code, dtype in DTYPES.items()}


def dtype_of(code: int) -> DType:
    """The type of a number.

    Raises:
        Malformed: none is known, or it is none of a variable.
    """
    if code in REFUSED:
        raise Malformed(f"is of type {REFUSED[code]}, which has no numbers that could be read")
    if code not in DTYPES:
        raise Malformed(f"has the unknown type {code}")
    return DTYPES[code]


def decode(raw: bytes | bytearray | np.ndarray, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """An array from the bytes of a bundle, whose number is right.

    Raises:
        Malformed: a truth value that is neither 0 nor 1.
    """
    if dtype.name == "bool" and (np.frombuffer(raw, np.uint8) > 1).any():
        raise Malformed("has truth values that are neither 0 nor 1")
    array = np.frombuffer(raw, dtype.stored)
    if dtype.name == "bfloat16":
        array = (array.astype("<u4") << np.uint32(16)).view("<f4")
    elif dtype.name == "float8_e5m2":  # the upper half of a float16
        array = (array.astype("<u2") << np.uint16(8)).view("<f2").astype("<f4")
    elif dtype.name == "float8_e4m3fn":
        array = _e4m3fn()[array]
    return array.astype(dtype.numpy, copy=False).reshape(shape)


def _e4m3fn() -> np.ndarray:
    """The 256 values: four bits of exponent from 2^-6 on, three of fraction, one NaN and no infinity."""
    code = np.arange(256)
    exponent, fraction = code >> 3 & 15, code & 7
    value = np.where(exponent > 0, np.ldexp(8.0 + fraction, exponent - 10), np.ldexp(fraction, -9))
    value[code & 0x7F == 0x7F] = np.nan
    return np.where(code >> 7, -value, value).astype(np.float32)
