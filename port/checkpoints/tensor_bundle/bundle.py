"""Format V2: `prefix.index`, a table of what each tensor is and where it lies, and `prefix.data-i-of-n`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from port.checkpoints.tensor_bundle.crc32c import crc32c, masked
from port.checkpoints.tensor_bundle.dtypes import DType, decode
from port.checkpoints.tensor_bundle.errors import CheckpointError, Malformed, printable
from port.checkpoints.tensor_bundle.messages import Entry, entry_of, header_of
from port.checkpoints.tensor_bundle.ordered import slice_key
from port.checkpoints.tensor_bundle.source import Source
from port.checkpoints.tensor_bundle.table import Table
from port.checkpoints.tensor_bundle.wire import varint

PAGE = 4096  # what may lie unused between two tensors, which some writers align
INDEX = ".index"
MOST_INDEX = 1 << 28  # bytes; one entry of a tensor takes a hundred


class Extent(NamedTuple):
    """Bytes of a shard that are a tensor's, or those of one slice of it.

    Attributes:
        offset: of them.
        size: how many.
        name: the tensor's.
        part: number of the slice.
    """

    offset: int
    size: int
    name: bytes
    part: int


def shard_name(prefix: Path, number: int, count: int) -> Path:
    """Where a shard lies."""
    return Path(f"{prefix}.data-{number:05d}-of-{count:05d}")


class Bundle:
    """A checkpoint of format V2.

    Attributes:
        prefix: of its files.
        entries: name → what the index says.
        files: index and shards, as `Source`.
    """

    def __init__(self, prefix: Path) -> None:
        """
        Raises:
            CheckpointError: a file is missing, damaged, or says what cannot be.
        """
        self.prefix = prefix
        self._index = Source(f"{prefix}{INDEX}")
        self._parts: dict[bytes, list[Entry]] = {}
        if self._index.size > MOST_INDEX:  # before it is read whole
            raise CheckpointError(unreadable(self._index.path, Malformed(
                f"it has {self._index.size} bytes; an index of more than {MOST_INDEX} is none")))
        self._digest = self._index.load()
        try:
            count = self._read_index()
        except Malformed as error:
            raise CheckpointError(unreadable(self._index.path, error)) from None
        self._index.forget()
        # Shards may be many; only those that something lies in are asked for.
        numbers = sorted({part.shard for parts in self._parts.values() for part in parts})
        self._shards = {number: self._shard(number, count) for number in numbers}
        self._extents = {number: self._lie(number) for number in numbers}
        self.files = [self._index, *self._shards.values()]

    def _read_index(self) -> int:
        """Entries and their slices; number of shards."""
        raw = dict(Table(self._index))
        count = header_of(raw.pop(b"", None))
        self.entries: dict[bytes, Entry] = {}
        slices: dict[bytes, bytes] = {}
        for key, value in raw.items():
            if key.startswith(b"\0"):
                slices[key] = value
                continue
            try:
                self.entries[key] = entry_of(value)
            except Malformed as error:
                raise Malformed(f"{printable(key)} {error}") from None
        for name, entry in self.entries.items():
            try:
                self._parts[name] = [entry] if not entry.slices else [
                    self._slice(name, entry, number, slices) for number in range(len(entry.slices))]
                for part in self._parts[name]:
                    if part.shard >= count:
                        raise Malformed(f"lies in shard {part.shard} of {count}")
            except Malformed as error:
                raise Malformed(f"{printable(name)} {error}") from None
        if slices:
            raise Malformed(f"{printable(next(iter(slices)))} is a slice of no tensor")
        return count

    @staticmethod
    def _slice(name: bytes, entry: Entry, number: int, slices: dict[bytes, bytes]) -> Entry:
        part = entry.slices[number]
        raw = slices.pop(slice_key(name, part.extents), None)
        if raw is None:
            raise Malformed(f"has no slice from {list(part.start)}, or has it twice")
        found = entry_of(raw)
        if found.slices or found.dtype != entry.dtype or found.shape != part.shape:
            raise Malformed(f"has a slice of {found.dtype.name} {list(found.shape)} where "
                            f"{entry.dtype.name} {list(part.shape)} belongs")
        return found

    def _shard(self, number: int, count: int) -> Source:
        path = shard_name(self.prefix, number, count)
        if not path.is_file():
            raise CheckpointError(f"{printable(str(self.prefix))}: cannot be read ({printable(path.name)} "
                                  "is missing); copy the checkpoint again, all its files")
        return Source(path)

    def _lie(self, number: int) -> list[Extent]:
        """What lies in a shard, in order.

        Raises:
            CheckpointError: outside it, over each other, or the shard is mostly something else.
        """
        shard = self._shards[number]
        extents = sorted(Extent(part.offset, part.size, name, i) for name, parts in self._parts.items()
                         for i, part in enumerate(parts) if part.shard == number)
        at, before = 0, b""
        for extent in extents:
            if extent.offset + extent.size > shard.size:
                raise CheckpointError(unreadable(shard.path, (
                    f"{printable(extent.name)} lies at {extent.offset} to {extent.offset + extent.size}, "
                    f"the file has {shard.size} bytes: it is cut off, or of another checkpoint")))
            if extent.size and extent.offset < at:
                raise CheckpointError(unreadable(self._index.path, (
                    f"{printable(before)} and {printable(extent.name)} overlap")))
            if extent.size:
                at, before = extent.offset + extent.size, extent.name
        used = sum(extent.size for extent in extents)
        if shard.size - used > PAGE * (len(extents) + 1):
            raise CheckpointError(unreadable(shard.path, (
                f"it has {shard.size} bytes, of which the tensors are {used}: it is not of this index")))
        return extents

    @property
    def described(self) -> dict[bytes, tuple[tuple[int, ...], DType]]:
        """Name → shape and type."""
        return {name: (entry.shape, entry.dtype) for name, entry in self.entries.items()}

    def read(self, name: bytes) -> np.ndarray:
        """One tensor.

        Raises:
            CheckpointError: its bytes are damaged, or changed since the index was read.
        """
        parts = self._parts[name]
        raws = [self._shards[part.shard].read(part.offset, part.size) for part in parts]
        return self._whole(name, [self._decode(name, i, raw) for i, raw in enumerate(raws)])

    def load(self) -> tuple[dict[bytes, np.ndarray], dict[Path, str]]:
        """Every tensor, and SHA-256 of the very bytes they came from by file; each file is read once.

        Raises:
            CheckpointError: as `read`.
        """
        digests = {self._index.path: self._digest}
        found: dict[bytes, list] = {name: [None] * len(parts) for name, parts in self._parts.items()}
        for number, shard in self._shards.items():
            extents = self._extents[number]
            pieces = shard.in_order([(extent.offset, extent.size) for extent in extents])
            for extent, raw in zip(extents, pieces, strict=False):
                found[extent.name][extent.part] = self._decode(extent.name, extent.part, raw)
            digests[shard.path] = str(next(pieces))
        return {name: self._whole(name, pieces) for name, pieces in found.items()}, digests

    def _decode(self, name: bytes, number: int, raw: bytearray) -> np.ndarray:
        part = self._parts[name][number]
        try:
            if part.dtype.stored is None:
                return strings(raw, part)
            if masked(crc32c(raw)) != part.crc:
                raise Malformed("has a wrong checksum")
            return decode(raw, part.dtype, part.shape)
        except Malformed as error:
            where = self._shards[part.shard].path
            raise CheckpointError(unreadable(where, f"{printable(name)} {error}")) from None

    def _whole(self, name: bytes, pieces: list[np.ndarray]) -> np.ndarray:
        entry = self.entries[name]
        if not entry.slices:
            return pieces[0]
        try:
            return join(entry.shape, [(part.place, piece) for part, piece
                                      in zip(entry.slices, pieces, strict=True)])
        except Malformed as error:
            raise CheckpointError(unreadable(self._index.path, f"{printable(name)} {error}")) from None


def join(shape: tuple[int, ...], pieces: list[tuple[tuple[slice, ...], np.ndarray]]) -> np.ndarray:
    """A tensor from its slices, which together have as many numbers as it.

    Raises:
        Malformed: they overlap.
    """
    whole = np.empty(shape, pieces[0][1].dtype)
    seen = np.zeros(shape, bool)
    for place, piece in pieces:
        if seen[place].any():
            raise Malformed("has slices that overlap")
        seen[place] = True
        whole[place] = piece
    return whole


def strings(raw: bytearray, entry: Entry) -> np.ndarray:
    """A tensor of strings: their lengths, a checksum of these, and the strings one after the other.

    Raises:
        Malformed: lengths and bytes do not agree, or a checksum is wrong.
    """
    data, at, lengths = bytes(raw), 0, []
    for _ in range(math.prod(entry.shape)):
        length, at = varint(data, at)
        lengths.append(length)
    if any(length >= 1 << 32 for length in lengths) or at + 4 + sum(lengths) != len(data):
        raise Malformed("has strings whose lengths do not fit its bytes")
    # Both checksums are over the lengths as four bytes each, however they are stored.
    plain = np.array(lengths, "<u4").tobytes()
    if masked(crc32c(plain)) != int.from_bytes(data[at:at + 4], "little") or (
            masked(crc32c(plain + data[at:])) != entry.crc):
        raise Malformed("has a wrong checksum")
    array = np.empty(len(lengths), object)
    at += 4
    for i, length in enumerate(lengths):
        array[i] = data[at:at + length]
        at += length
    return array.reshape(entry.shape)


def unreadable(path: Path, why: object) -> str:
    """The line for a file that cannot be read."""
    return (f"{printable(str(path))}: cannot be read ({why}); the file is damaged or not what it is named, "
            "copy the checkpoint again")
