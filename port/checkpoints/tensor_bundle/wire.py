"""Protocol buffer messages by hand: a strict reader of the wire format, and what a writer needs.

Unknown fields are passed over, as the format wants. Anything else that TensorFlow does not write is
refused: a known field of another type or given twice, a number longer than 64 bits, a length past the end.
What is called for every number has no types checked in test runs, which would take most of their time.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, no_type_check

import numpy as np

from port.checkpoints.tensor_bundle.errors import Malformed

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
STRETCH = 1 << 18  # bytes
_WIDTH = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        name: key of the result.
        kind: `uint`, `int` (two's complement, 64 bits), `int?` (the same, None where it is absent),
            `fixed32`, `bytes`, or what is packed: `varints`, `fixed32s`, `fixed64s`, kept as bytes.
        repeated: a list of values; packed numbers are repeated by nature and come as one string.
    """

    name: str
    kind: str
    repeated: bool = False


_WIRES = {"uint": VARINT, "int": VARINT, "int?": VARINT, "fixed32": FIXED32, "bytes": BYTES}
_PACKED = {"varints": VARINT, "fixed32s": FIXED32, "fixed64s": FIXED64}
Spec = Mapping[int, Field]


@no_type_check
def varint(data: bytes, at: int, end: int | None = None) -> tuple[int, int]:
    """A number of base 128, lowest first, and the position after it.

    Raises:
        Malformed: it does not end before `end`, or has more than 64 bits.
    """
    end = len(data) if end is None else end
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            if value >> 64:
                break
            return value, at
    raise Malformed("a number does not end, or has more than 64 bits")


@no_type_check
def signed(value: int) -> int:
    """64 bits as a signed number."""
    return value - (1 << 64) if value >> 63 else value


@no_type_check
def fields(data: bytes) -> Iterator[tuple[int, int, Any, bytes]]:
    """Number, wire type, value and raw value of each field of a message.

    Raises:
        Malformed: no message.
    """
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, wire = tag >> 3, tag & 7
        start = at
        if wire == VARINT:
            value, at = varint(data, at)
        elif wire == BYTES:
            length, start = varint(data, at)
            at = start + length
        elif wire in _WIDTH:
            at += _WIDTH[wire]
        else:
            raise Malformed(f"a field of wire type {wire}")
        if at > len(data) or not 0 < number < 1 << 29:
            raise Malformed("a field reaches past the end of its message")
        raw = data[start:at]
        yield number, wire, (value if wire == VARINT else raw), raw


@no_type_check
def parse(data: bytes, spec: Spec) -> dict[str, Any]:
    """The known fields of a message by name; absent numbers are 0, absent strings None, absent lists empty.

    Raises:
        Malformed: no message, or a field is not as the specification says.
    """
    found: dict[str, Any] = {}
    for field in spec.values():
        found[field.name] = ([] if field.repeated or field.kind in _PACKED
                             else None if field.kind in ("bytes", "int?") else 0)
    seen = set()
    for number, wire, value, raw in fields(data):
        field = spec.get(number)
        if field is None:
            continue
        if field.kind in _PACKED:
            if wire not in (BYTES, _PACKED[field.kind]):
                raise Malformed(f"field {field.name} is of wire type {wire}")
            found[field.name].append(raw)
            continue
        if wire != _WIRES[field.kind]:
            raise Malformed(f"field {field.name} is of wire type {wire}")
        value = (signed(value) if field.kind in ("int", "int?")
                 else int.from_bytes(value, "little") if field.kind == "fixed32" else value)
        if field.repeated:
            found[field.name].append(value)
        elif number in seen:
            raise Malformed(f"field {field.name} is given twice")
        else:
            found[field.name] = value
        seen.add(number)
    for field in spec.values():
        if field.kind in _PACKED:
            found[field.name] = b"".join(found[field.name])
    return found


def varints(data: bytes, count: int) -> np.ndarray:
    """Packed numbers of base 128 as uint64, many at once.

    Args:
        data: the numbers.
        count: how many they are to be; nothing is made for another number.

    Raises:
        Malformed: they are more or fewer, the last one does not end, or one has more than 64 bits.
    """
    raw = np.frombuffer(data, np.uint8)
    if np.count_nonzero(raw < 0x80) != count or (raw.size and raw[-1] >= 0x80):
        raise Malformed(f"has other than {count} packed numbers")
    values, done, at = np.zeros(count, np.uint64), 0, 0
    while at < raw.size:  # a stretch at a time, since what lies between is many times as large
        stretch = raw[at:at + STRETCH]
        ends = np.flatnonzero(stretch < 0x80)
        if not ends.size:
            raise Malformed("a packed number has more than 64 bits")
        starts = np.concatenate((np.zeros(1, ends.dtype), ends[:-1] + 1))
        lengths = ends - starts + 1
        if lengths.max() > 10 or (stretch[ends[lengths == 10]] > 1).any():
            raise Malformed("a packed number has more than 64 bits")
        found = np.zeros(ends.size, np.uint64)
        for place in range(int(lengths.max())):
            there = lengths > place
            byte = (stretch[starts[there] + place] & 0x7F).astype(np.uint64)
            found[there] |= byte << np.uint64(7 * place)
        values[done:done + ends.size] = found
        done, at = done + ends.size, at + int(ends[-1]) + 1
    return values


@no_type_check
def put_varint(value: int) -> bytes:
    """A number from 0 to 2^64 - 1 in base 128."""
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def put_number(field: int, value: int) -> bytes:
    """A field that is a number; 0 is not written."""
    return put_varint(field << 3 | VARINT) + put_varint(value & (1 << 64) - 1) if value else b""


def put_bytes(field: int, value: bytes) -> bytes:
    """A field that is a string or a message."""
    return put_varint(field << 3 | BYTES) + put_varint(len(value)) + value


def put_fixed32(field: int, value: int) -> bytes:
    """A field of four bytes; 0 is not written."""
    return put_varint(field << 3 | FIXED32) + value.to_bytes(4, "little") if value else b""
