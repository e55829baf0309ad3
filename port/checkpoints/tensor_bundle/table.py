"""A sorted table of strings in a file, LevelDB's format as TensorFlow has it, read block by block.

    [data block]…  [metaindex block]  [index block]  [footer of 48 bytes]

A block is entries (each key shares a beginning with the one before it), the offsets where keys are written
out whole, and a trailer: a byte for the compression and the masked CRC-32C of all that. The index block
has for each data block a key no smaller than its last one, and where it lies.
Source: tensorflow/core/lib/io/table_format.txt, github.com/google/leveldb, doc/table_format.md.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from port.checkpoints.tensor_bundle import snappy
from port.checkpoints.tensor_bundle.crc32c import crc32c, masked
from port.checkpoints.tensor_bundle.errors import Malformed, printable
from port.checkpoints.tensor_bundle.source import Source
from port.checkpoints.tensor_bundle.wire import varint

MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5
PLAIN, SNAPPY = 0, 1
# A key is written out whole every 16 entries, so honest keys are no longer than 16 times their block.
MOST_KEYS = 32

Entries = list[tuple[bytes, bytes]]


def is_table(source: Source) -> bool:
    """Whether the file ends as a table does."""
    return source.size >= FOOTER and int.from_bytes(source.read(source.size - 8, 8), "little") == MAGIC


class Table:
    """Entries of a file by key; only the index is kept."""

    def __init__(self, source: Source) -> None:
        """
        Raises:
            Malformed: no table, or its index is damaged.
        """
        self.source = source
        if not is_table(source):
            raise Malformed("it does not end as a TensorFlow table does: cut off, or another kind of file")
        footer = bytes(source.read(source.size - FOOTER, FOOTER))
        _, at = _handle(footer, 0)
        (offset, size), at = _handle(footer, at)
        if at > FOOTER - 8 or any(footer[at:FOOTER - 8]):
            raise Malformed("its footer is damaged")
        self._keys: list[bytes] = []
        self._handles: list[tuple[int, int]] = []
        end = 0
        for key, value in self._block(offset, size):
            handle, at = _handle(value, 0)
            if at != len(value) or handle[0] < end:
                raise Malformed("its index is damaged: blocks overlap or are out of order")
            end = handle[0] + handle[1] + TRAILER
            if end > source.size - FOOTER:
                raise Malformed("its index is damaged: a block reaches past the end of the file")
            self._keys.append(key)
            self._handles.append(handle)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Every entry in order, a block at a time.

        Raises:
            Malformed: a damaged block, keys that are not sorted or not where the index has them.
        """
        for number in range(len(self._handles)):
            yield from self._entries(number)

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where the table has none.

        Raises:
            Malformed: the block that would have it is damaged.
        """
        number = bisect.bisect_left(self._keys, key)
        if number == len(self._keys):
            return None
        entries = self._entries(number)
        at = bisect.bisect_left(entries, key, key=lambda entry: entry[0])
        return entries[at][1] if at < len(entries) and entries[at][0] == key else None

    def _entries(self, number: int) -> Entries:
        entries = self._block(*self._handles[number])
        before = self._keys[number - 1] if number else None
        if not entries or (before is not None and entries[0][0] <= before) or (
                entries[-1][0] > self._keys[number]):
            raise Malformed("keys of a block are not where the index has them")
        return entries

    def _block(self, offset: int, size: int) -> Entries:
        raw = bytes(self.source.read(offset, size + TRAILER))
        if masked(crc32c(raw[:size + 1])) != int.from_bytes(raw[size + 1:], "little"):
            raise Malformed(f"the checksum of the block at {offset} is wrong")
        if raw[size] not in (PLAIN, SNAPPY):
            raise Malformed(f"the block at {offset} has the unknown compression {raw[size]}")
        return entries_of(snappy.decompress(raw[:size]) if raw[size] == SNAPPY else raw[:size])


def entries_of(block: bytes) -> Entries:
    """Keys and values of a block without its trailer.

    Raises:
        Malformed: keys are not strictly increasing, or anything reaches past the end.
    """
    count = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (count + 1)
    if len(block) < 4 or end < 0 or (count == 0 and end > 0):
        raise Malformed("a block's list of restarts is damaged")
    restarts = {int.from_bytes(block[at:at + 4], "little") for at in range(end, len(block) - 4, 4)}
    entries: Entries = []
    at, key, total, whole = 0, b"", 0, {0} if not end else set()
    while at < end:
        start = at
        shared, at = varint(block, at, end)
        own, at = varint(block, at, end)
        length, at = varint(block, at, end)
        if shared > len(key) or at + own + length > end:
            raise Malformed("an entry of a block reaches past its end")
        if not shared:
            whole.add(start)
        following = key[:shared] + block[at:at + own]
        if entries and following <= key:
            raise Malformed(f"the key {printable(following)} is given twice" if following == key else
                            f"the keys {printable(key)} and {printable(following)} are not sorted")
        key, total = following, total + len(following)
        if total > MOST_KEYS * len(block):
            raise Malformed("the keys of a block are longer than the block can hold")
        entries.append((key, block[at + own:at + own + length]))
        at += own + length
    if not restarts <= whole:
        raise Malformed("a block's list of restarts is damaged")
    return entries


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the position after them."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at
