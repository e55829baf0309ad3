"""Snappy's raw format, decompressed with a bound on what may come out.

Source: github.com/google/snappy, format_description.txt.
"""

from __future__ import annotations

from port.checkpoints.tensor_bundle.errors import Malformed
from port.checkpoints.tensor_bundle.wire import varint

# A copy of up to 64 bytes takes at least 3: no honest block grows by more.
MOST_GROWTH = 22


def decompress(data: bytes) -> bytes:
    """The bytes that were compressed.

    Raises:
        Malformed: not Snappy, another length than it says, or more than the format can reach.
    """
    length, at = varint(data, 0)
    if length > MOST_GROWTH * len(data):
        raise Malformed(f"a compressed block of {len(data)} bytes says it holds {length}")
    out, end = bytearray(), len(data)
    while at < end:
        tag = data[at]
        at += 1
        kind = tag & 3
        if kind == 0:
            size = (tag >> 2) + 1
            if size > 60:
                width = size - 60
                size = int.from_bytes(data[at:at + width], "little") + 1
                at += width
            if at + size > end or len(out) + size > length:
                raise Malformed("a compressed block's literal reaches past its end")
            out += data[at:at + size]
            at += size
            continue
        if kind == 1:
            size, width = (tag >> 2 & 7) + 4, 1
            back = tag >> 5 << 8
        else:
            size, width, back = (tag >> 2) + 1, 2 * kind - 2, 0
        if at + width > end:
            raise Malformed("a compressed block ends in a copy")
        back |= int.from_bytes(data[at:at + width], "little")
        at += width
        if not 0 < back <= len(out) or len(out) + size > length:
            raise Malformed("a compressed block copies from outside itself")
        if back >= size:
            out += out[-back:len(out) - back + size]
        else:  # the copy runs into what it writes
            out += (bytes(out[-back:]) * (size // back + 1))[:size]
    if len(out) != length:
        raise Malformed("a compressed block holds another number of bytes than it says")
    return bytes(out)
