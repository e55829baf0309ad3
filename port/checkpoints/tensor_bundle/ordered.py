"""Keys of slices: encodings whose order as bytes is the order of what they encode.

Source: tensorflow/core/lib/strings/ordered_code.cc, tensorflow/core/util/saved_tensor_slice_util.cc.
"""

from __future__ import annotations

import re

# A dimension of a slice: where it starts and how long it is; None for the whole dimension.
Extent = tuple[int, int] | None


def slice_key(name: bytes, extents: tuple[Extent, ...]) -> bytes:
    """The key of one slice of a tensor: 0, name, rank, and start and length of each dimension."""
    parts = [number(0), string(name), number(len(extents))]
    for extent in extents:
        start, length = (0, -1) if extent is None else extent
        parts += [signed(start), signed(length)]
    return b"".join(parts)


def number(value: int) -> bytes:
    """From 0 up: how many bytes, then these, highest first."""
    size = (value.bit_length() + 7) // 8
    return bytes([size]) + value.to_bytes(size, "big")


def string(value: bytes) -> bytes:
    """Bytes with an end that sorts before everything; 0 and 255 are escaped."""
    escaped = re.sub(rb"[\x00\xff]", lambda found: found[0] + bytes([255 - found[0][0]]), value)
    return escaped + b"\x00\x01"


def signed(value: int) -> bytes:
    """64 bits with a sign: as many leading ones (for a negative number zeros) as there are bytes."""
    magnitude = ~value if value < 0 else value
    size = next(size for size in range(1, 11) if magnitude.bit_length() <= 7 * size - 1)
    header = ((1 << size) - 1) << (8 * size - size)
    return ((value & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")
