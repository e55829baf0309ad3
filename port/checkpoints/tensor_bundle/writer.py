"""Writing a checkpoint of format V2 that `tf.train.Saver` restores, without TensorFlow."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from port.checkpoints.tensor_bundle.bundle import INDEX, shard_name
from port.checkpoints.tensor_bundle.crc32c import crc32c, masked
from port.checkpoints.tensor_bundle.dtypes import CODES, DTYPES
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable
from port.checkpoints.tensor_bundle.messages import MOST_AXES
from port.checkpoints.tensor_bundle.table import FOOTER, MAGIC, PLAIN
from port.checkpoints.tensor_bundle.wire import put_bytes, put_fixed32, put_number, put_varint
from port.core import swap

# Entries between keys written out whole, and bytes of a block, as TensorFlow has them.
RESTARTS, BLOCK = 16, 256 * 1024
HEADER = put_number(1, 1) + put_bytes(3, put_number(1, 1))  # one shard, little-endian, version 1


def write_checkpoint(prefix: str | os.PathLike, arrays: Mapping[str, np.ndarray | np.generic]) -> None:
    """Write named arrays as a V2 checkpoint of one shard: both files, or what was there before.

    What a process that was killed between the two left unreadable, the next one that writes there brings to an end or
    puts back, before it begins.

    Args:
        prefix: written as `<prefix>.index` and `<prefix>.data-00000-of-00001`; the folder is made.
        arrays: name → numbers or truth values; stored in the order of their names.

    Raises:
        CheckpointError: a name or an array that a checkpoint cannot hold.
        OSError: the place cannot be written.
    """
    prefix = Path(prefix)
    items = sorted((_key(name), _stored(name, array)) for name, array in arrays.items())
    prefix.parent.mkdir(parents=True, exist_ok=True)
    places = Path(f"{prefix}{INDEX}"), shard_name(prefix, 0, 1)
    _recover(prefix, places)
    with swap.aside(prefix) as made:
        data, index = (Path(made) / name for name in ("data", "index"))
        entries, offset = [(b"", HEADER)], 0
        with open(data, "wb") as file:
            for name, array in items:
                raw = array.tobytes()
                file.write(raw)
                entries.append((name, _entry(array, offset, masked(crc32c(raw)))))
                offset += len(raw)
            _on_disk(file)
        with open(index, "wb") as file:
            file.writelines(table(entries))
            _on_disk(file)
        # The index goes first and comes last: without it there is no checkpoint, so none is of two.
        with _put_back(places, Path(made)):
            os.replace(data, places[1])
            os.replace(index, places[0])


def _recover(prefix: Path, places: Sequence[Path]) -> None:
    """Finish what a killed process was about to put in place, or put back what it had moved away."""
    for made in swap.left_beside(prefix):
        if os.path.lexists(made / "index") and not os.path.lexists(made / "data"):
            os.replace(made / "index", places[0])
            continue
        for number, place in enumerate(places):
            kept = made / f"old-{number}"
            if os.path.lexists(kept) and not os.path.lexists(place):
                os.replace(kept, place)


@contextlib.contextmanager
def _put_back(places: Sequence[Path], away: Path) -> Iterator[None]:
    """Move files out of the way, in this order; where the block fails, all is as it was."""
    old = [(place, away / f"old-{number}") for number, place in enumerate(places) if os.path.lexists(place)]
    moved = []
    try:
        for place, kept in old:
            os.replace(place, kept)
            moved.append((place, kept))
        yield
    except BaseException:
        for place in set(places) - {place for place, _ in old}:
            with contextlib.suppress(OSError):
                place.unlink()
        for place, kept in reversed(moved):
            os.replace(kept, place)
        raise


def _on_disk(file) -> None:
    file.flush()
    os.fsync(file.fileno())


def _key(name: str) -> bytes:
    key = name.encode("utf-8", "surrogateescape")
    if not key or key.startswith(b"\0"):
        raise CheckpointError(f"the name {printable(name)!r} is none that a checkpoint can hold")
    return key


def _stored(name: str, array: np.ndarray | np.generic) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.name not in CODES or array.ndim > MOST_AXES:
        raise CheckpointError(f"{printable(name)} is {array.dtype} of {array.ndim} axes, which a "
                              "checkpoint cannot hold")
    return np.asarray(array, DTYPES[CODES[array.dtype.name]].stored)


def _entry(array: np.ndarray, offset: int, crc: int) -> bytes:
    """A BundleEntryProto."""
    shape = b"".join(put_bytes(2, put_number(1, length)) for length in array.shape)
    return (put_number(1, CODES[array.dtype.name]) + put_bytes(2, shape) + put_number(4, offset)
            + put_number(5, array.nbytes) + put_fixed32(6, crc))


def table(entries: Iterable[tuple[bytes, bytes]]) -> list[bytes]:
    """A table file, in parts: blocks of sorted entries (one at least), no metaindex, index, footer."""
    parts: list[bytes] = []
    index, offset = Block(1), 0

    def add(block: bytes) -> bytes:
        """Append a block; its handle."""
        nonlocal offset
        trailer = bytes([PLAIN])
        parts.append(block + trailer + masked(crc32c(block + trailer)).to_bytes(4, "little"))
        handle = put_varint(offset) + put_varint(len(block))
        offset += len(parts[-1])
        return handle

    block, last = Block(RESTARTS), b""
    for key, value in entries:
        if block.size >= BLOCK:
            index.add(between(last, key), add(block.whole()))
            block = Block(RESTARTS)
        block.add(key, value)
        last = key
    index.add(after(last), add(block.whole()))
    handles = add(Block(RESTARTS).whole()) + add(index.whole())
    return [*parts, handles.ljust(FOOTER - 8, b"\0") + MAGIC.to_bytes(8, "little")]


class Block:
    """A block in the making, without its trailer.

    Args:
        interval: entries from one key that is written out whole to the next.
    """

    def __init__(self, interval: int) -> None:
        self.interval, self.out, self.restarts, self.count, self.before = interval, bytearray(), [0], 0, b""

    @property
    def size(self) -> int:
        """Bytes so far."""
        return len(self.out) + 4 * len(self.restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        """Append an entry."""
        shared = 0
        if self.count % self.interval:
            shared = len(os.path.commonprefix([self.before, key]))
        elif self.count:
            self.restarts.append(len(self.out))
        self.out += put_varint(shared) + put_varint(len(key) - shared) + put_varint(len(value))
        self.out += key[shared:] + value
        self.before, self.count = key, self.count + 1

    def whole(self) -> bytes:
        """The block."""
        return bytes(self.out) + np.array([*self.restarts, len(self.restarts)], "<u4").tobytes()


def between(key: bytes, following: bytes) -> bytes:
    """A short key from `key` on and before the next block's first."""
    shared = len(os.path.commonprefix([key, following]))
    if shared < min(len(key), len(following)) and key[shared] + 1 < following[shared]:
        return key[:shared] + bytes([key[shared] + 1])
    return key


def after(key: bytes) -> bytes:
    """A short key not before any key."""
    for at, byte in enumerate(key):
        if byte != 0xFF:
            return key[:at] + bytes([byte + 1])
    return key
