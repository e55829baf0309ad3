"""Files that are damaged, hostile or something else: one clear error, bounded memory, no other numbers.

Every index here has valid checksums, so that what is refused is refused for what it says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import port
from parity_tests import goldens
from port.checkpoints.tensor_bundle import table as tables
from port.checkpoints.tensor_bundle import wire, writer
from port.checkpoints.tensor_bundle.crc32c import crc32c, masked
from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.checkpoints.tensor_bundle.ordered import slice_key
from port.checkpoints.tensor_bundle.source import Source
from port.checkpoints.tensor_bundle.wire import put_bytes, put_fixed32, put_number, put_varint

KILLED = """
import os, sys
import numpy as np
from port.checkpoints.tensor_bundle import writer
os.fsync = lambda handle: None
made, rename = [], os.replace
def replace(*given):
    if len(made) == int(sys.argv[2]):
        os._exit(0)
    made.append(rename(*given))
writer.os.replace = replace
writer.write_checkpoint(sys.argv[1], {"a": np.ones(4, np.float32)})
"""
MEGABYTE = 1 << 20
DATA = np.arange(64, dtype=np.float32)
VALUE = DATA[:6].tobytes()


def entry(shape: tuple[int, ...] = (2, 3), dtype: int = 1, offset: int = 0, size: int = 24, shard: int = 0,
          crc: int | None = None, more: bytes = b"", data: bytes = DATA.tobytes()) -> bytes:
    """A BundleEntryProto, by default of a right tensor."""
    dims = b"".join(put_bytes(2, put_number(1, length)) for length in shape)
    crc = masked(crc32c(data[max(offset, 0):][:max(size, 0)])) if crc is None else crc
    return (put_number(1, dtype) + put_bytes(2, dims) + put_number(3, shard) + put_number(4, offset)
            + put_number(5, size) + put_fixed32(6, crc) + more)


def part(*extents: tuple[int, int]) -> bytes:
    """A slice in an entry."""
    return put_bytes(7, b"".join(put_bytes(1, put_number(1, at) + wire.put_varint(16) + put_varint(n))
                                 for at, n in extents))


def write(prefix: Path, entries: dict[bytes, bytes], header: bytes = writer.HEADER,
          data: bytes = DATA.tobytes()) -> Path:
    """Both files of a checkpoint."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    Path(f"{prefix}.index").write_bytes(b"".join(writer.table(sorted({b"": header, **entries}.items()))))
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)
    return prefix


def refused(path: Path, most: int = 2 * MEGABYTE) -> str:
    """The message of the one error; it is one line, without control characters, within memory."""
    crc32c(bytes(MEGABYTE))  # its tables are kept
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError) as caught:
            port.read_checkpoint(path).load()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000
    return message


HALF = entry((1, 3), size=12)
OTHER = entry((1, 3), offset=12, size=12)
WHOLE = put_number(1, 1) + put_bytes(2, put_bytes(2, put_number(1, 2)) + put_bytes(2, put_number(1, 3)))
ROWS = (part((0, 1), (0, 3)), part((1, 1), (0, 3)))
KEYS = (slice_key(b"w", ((0, 1), (0, 3))), slice_key(b"w", ((1, 1), (0, 3))))

ENTRIES: list[tuple[str, dict[bytes, bytes], str]] = [
    ("a negative length", {b"w": entry((-1, 3))}, "negative length"),
    ("a huge length", {b"w": entry((1 << 62,))}, "more numbers than a file"),
    ("lengths whose product overflows", {b"w": entry((1 << 32, 1 << 32, 0))}, "more numbers than a file"),
    ("200 axes", {b"w": entry((1,) * 200, size=4)}, "200 axes"),
    ("a large shape of little data", {b"w": entry((1 << 30,))}, "has 24 bytes, its shape"),
    ("a large size that is not there", {b"w": entry((1 << 30,), size=1 << 32)}, "the file has 256 bytes"),
    ("an unknown type", {b"w": entry(dtype=99)}, "unknown type 99"),
    ("no type", {b"w": entry(dtype=0)}, "unknown type 0"),
    ("a resource", {b"w": entry(dtype=20)}, "type resource"),
    ("another size", {b"w": entry(dtype=2)}, "needs 48"),
    ("a negative offset", {b"w": entry(offset=-8)}, "no place"),
    ("a negative size", {b"w": entry((), size=-4)}, "no place"),
    ("an offset outside", {b"w": entry(offset=250)}, "the file has 256 bytes"),
    ("an offset that overflows", {b"w": entry(offset=2**63 - 1)}, "the file has 256 bytes"),
    ("another shard", {b"w": entry(shard=1)}, "shard 1 of 1"),
    ("overlapping", {b"w": entry(), b"v": entry(offset=12)}, "overlap"),
    ("a wrong checksum", {b"w": entry(crc=7)}, "wrong checksum"),
    ("a truth value of 2", {b"w": entry((24,), dtype=10, crc=masked(crc32c(VALUE)))}, "truth values"),
    ("a field twice", {b"w": entry() + put_number(1, 1)}, "given twice"),
    ("a field of another kind", {b"w": entry(more=put_bytes(5, b"x"))}, "wire type"),
    ("a group", {b"w": entry(more=bytes([8 << 3 | 3]))}, "wire type 3"),
    ("a number without end", {b"w": entry(more=b"\x40" + b"\xff" * 12)}, "does not end"),
    ("a length past the end", {b"w": entry(more=b"\x42\xff\x01ab")}, "past the end"),
    ("an unknown rank", {b"w": put_number(1, 1) + put_bytes(2, put_number(3, 1))}, "no known shape"),
    ("control characters", {b"w\x1b[2J\n": entry(dtype=99)}, r"w\x1b[2J\n has"),
    ("a name that is no text", {b"w\xff": entry()}, "no UTF-8"),
    ("a slice of no tensor", {b"w": entry(), KEYS[0]: HALF}, "slice of no tensor"),
    ("a missing slice", {b"w": WHOLE + ROWS[0] + ROWS[1], KEYS[0]: HALF}, "no slice from [1, 0]"),
    ("slices that are too few", {b"w": WHOLE + ROWS[0], KEYS[0]: HALF}, "its slices 3"),
    ("a slice twice", {b"w": WHOLE + ROWS[0] + ROWS[0], KEYS[0]: HALF}, "or has it twice"),
    ("slices that overlap", {
        b"w": WHOLE + part((0, 2), (0, 2)) + part((0, 2), (1, 1)),
        slice_key(b"w", ((0, 2), (0, 2))): entry((2, 2), size=16),
        slice_key(b"w", ((0, 2), (1, 1))): entry((2, 1), offset=16, size=8)}, "slices that overlap"),
    ("a slice outside", {b"w": WHOLE + part((1, 2), (0, 3)), KEYS[0]: HALF}, "outside its shape"),
    ("a slice of another rank", {b"w": WHOLE + part((0, 1)), KEYS[0]: HALF}, "1 axes"),
    ("a slice of another type", {b"w": WHOLE + ROWS[0] + ROWS[1], KEYS[0]: HALF,
                                 KEYS[1]: entry((1, 3), dtype=3, offset=12, size=12)}, "a slice of int32"),
    ("a slice in slices", {b"w": WHOLE + ROWS[0] + ROWS[1], KEYS[0]: HALF,
                           KEYS[1]: OTHER + ROWS[0]}, "in slices and as a whole"),
    ("more strings than bytes", {b"w": entry((1 << 20,), dtype=7)}, "needs 1048576 or more"),
    ("strings of other lengths", {b"w": entry((2, 3), dtype=7)}, "lengths do not fit"),
]


@pytest.mark.parametrize(("entries", "says"), [row[1:] for row in ENTRIES], ids=[row[0] for row in ENTRIES])
def test_entries(entries: dict[bytes, bytes], says: str, tmp_path: Path) -> None:
    """An index that says what cannot be."""
    assert says in refused(write(tmp_path / "c", entries))


def test_the_right_ones_are_right(tmp_path: Path) -> None:
    """What the table above damages is read when it is whole, and the alignment of some writers too."""
    read = port.read_checkpoint(write(tmp_path / "a", {b"w": entry(), b"v": entry(offset=128)}))
    assert (read["w"] == DATA[:6].reshape(2, 3)).all() and read["v"][0, 0] == 32
    read = port.read_checkpoint(write(tmp_path / "b", {b"w": WHOLE + ROWS[0] + ROWS[1], KEYS[0]: HALF,
                                                       KEYS[1]: OTHER}))
    assert (read["w"] == DATA[:6].reshape(2, 3)).all() and read.shapes == {"w": (2, 3)}


@pytest.mark.parametrize(("header", "says"), [
    (put_number(1, 1) + put_number(2, 1), "big-endian"), (b"", "0 shards"),
    (put_number(1, -1), "-1 shards"),
    (put_number(1, 10**9), "1000000000 shards"), (put_number(1, 2), "00000-of-00002 is missing"),
    (put_number(1, 1) + put_bytes(3, put_number(1, 3) + put_number(2, 2)), "newer format"),
    (put_number(1, 1) + put_bytes(3, put_bytes(3, b"\x01")), "newer format")])
def test_headers(header: bytes, says: str, tmp_path: Path) -> None:
    assert says in refused(write(tmp_path / "c", {b"w": entry()}, header))


def framed(block: bytes, kind: int = 0) -> bytes:
    """A block with its trailer."""
    return block + bytes([kind]) + masked(crc32c(block + bytes([kind]))).to_bytes(4, "little")


def index(blocks: list[bytes], handles: list[tuple[bytes, int, int]], footer: bytes | None = None) -> bytes:
    """A table of given data blocks, with an index of one's own."""
    out = b"".join(blocks)
    last = writer.Block(1)
    for key, offset, size in handles:
        last.add(key, put_varint(offset) + put_varint(size))
    block = last.whole()
    if footer is None:
        footer = put_varint(0) * 2 + put_varint(len(out)) + put_varint(len(block))
    return out + framed(block) + footer.ljust(40, b"\0") + tables.MAGIC.to_bytes(8, "little")


def block_of(*entries: tuple[bytes, bytes], interval: int = 16) -> bytes:
    made = writer.Block(interval)
    for key, value in entries:
        made.add(key, value)
    return made.whole()


GOOD = block_of((b"", writer.HEADER), (b"w", entry()))
SIZE = len(GOOD)


def long_keys() -> bytes:
    """Keys that each repeat half a megabyte of the one before: 4,000 entries that would be 2 GB."""
    out = bytearray(put_varint(0) + put_varint(MEGABYTE // 2) + put_varint(0) + bytes(MEGABYTE // 2))
    for number in range(4000):
        out += put_varint(MEGABYTE // 2 - 2) + put_varint(2) + put_varint(0)
        out += (number + 1).to_bytes(2, "big")
    return bytes(out) + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def one_block(*keys: bytes) -> bytes:
    """A table of one block with these keys, in this order."""
    block = block_of((b"", writer.HEADER), *((key, entry()) for key in keys))
    return index([framed(block)], [(b"x", 0, len(block))])


BLOCKS: list[tuple[str, Callable[[], bytes], str]] = [
    ("unsorted keys", lambda: one_block(b"w", b"v"), "not sorted"),
    ("a key twice", lambda: one_block(b"w", b"w"), "given twice"),
    ("a block twice", lambda: index([framed(GOOD)], [(b"w", 0, SIZE), (b"x", 0, SIZE)]), "overlap"),
    ("a block that is the index itself", lambda: index([framed(GOOD)], [(b"w", SIZE + 5, 12)]),
     "checksum"),
    ("an index block that is a data block", lambda: index(
        [framed(GOOD)], [], put_varint(0) * 2 + put_varint(0) + put_varint(SIZE)), "damaged"),
    ("a block outside", lambda: index([framed(GOOD)], [(b"w", 2**60, 12)]), "past the end"),
    ("a key beyond its block's", lambda: index([framed(GOOD)], [(b"a", 0, SIZE)]), "not where the index"),
    ("an unknown compression", lambda: index([framed(GOOD, 7)], [(b"w", 0, SIZE)]), "compression 7"),
    ("a bomb", lambda: index([framed(put_varint(1 << 40) + bytes(9), 1)], [(b"w", 0, 15)]), "says it"),
    ("a bomb of keys", lambda: index([framed(long_keys())], [(b"\xff", 0, len(long_keys()))]),
     "longer than the block"),
    ("a damaged footer", lambda: index([framed(GOOD)], [(b"w", 0, SIZE)], b"\xff" * 40), "does not end"),
    ("no restarts", lambda: index([framed(GOOD[:-4] + bytes(4))], [(b"w", 0, SIZE)]), "restarts"),
    ("restarts elsewhere", lambda: index([framed(GOOD[:-8] + b"\x03\0\0\0\x01\0\0\0")], [(b"w", 0, SIZE)]),
     "restarts"),
    ("more restarts than bytes", lambda: index([framed(GOOD[:-4] + b"\xff" * 4)], [(b"w", 0, SIZE)]),
     "restarts"),
    ("nothing", lambda: b"", "does not end as a TensorFlow table"),
]


@pytest.mark.parametrize(("content", "says"), [row[1:] for row in BLOCKS], ids=[row[0] for row in BLOCKS])
def test_blocks(content: Callable[[], bytes], says: str, tmp_path: Path) -> None:
    """A table that is none, of an index or of format V1."""
    write(tmp_path / "c", {b"w": entry()})
    (tmp_path / "c.index").write_bytes(content())
    assert says in refused(tmp_path / "c", 30 * MEGABYTE)
    if content():
        (tmp_path / "c.index").rename(tmp_path / "older")
        assert "cannot be read" in refused(tmp_path / "older", 30 * MEGABYTE)


def test_a_sparse_shard(tmp_path: Path) -> None:
    """A file of 8 GB that holds nothing is not read."""
    write(tmp_path / "c", {b"w": entry()})
    os.truncate(tmp_path / "c.data-00000-of-00001", 8 << 30)
    assert "of which the tensors are 24" in refused(tmp_path / "c")


def test_files_that_change(tmp_path: Path) -> None:
    """A checkpoint that is written anew between opening and reading is not read in part."""
    opened = port.read_checkpoint(write(tmp_path / "c", {b"w": entry()}))
    write(tmp_path / "c", {b"w": entry()}, data=DATA[::-1].tobytes())
    os.utime(tmp_path / "c.data-00000-of-00001", ns=(1, 1))
    for read in (lambda: opened["w"], opened.load):
        with pytest.raises(CheckpointError, match="changed while it was read"):
            read()


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """A message with some bytes changed, taken away, doubled or put in."""
    found = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(found) + 1))
        kind = rng.integers(4)
        if kind == 0 and at < len(found):
            found[at] = rng.integers(256)
        elif kind == 1:
            del found[at:at + int(rng.integers(1, 4))]
        elif kind == 2:
            found[at:at] = found[at:at + int(rng.integers(1, 12))]
        else:
            found[at:at] = [b"\xff" * 9 + b"\x01", b"\x80", b"\x7f", b"\0"][rng.integers(4)]
    return bytes(found)


def test_drawn_damages_of_an_index(tmp_path: Path, tier: str) -> None:
    """Entries and keys with drawn damages and right checksums: an error, or only bytes that were saved."""
    arrays = {"a": DATA[:8].reshape(2, 2, 2), "b/c": np.arange(5, dtype=np.int64), "d": np.float64(3),
              "e": np.array([True, False]), "f": np.zeros((0, 3), np.float32)}
    port.write_checkpoint(tmp_path / "c", arrays)
    entries = dict(tables.Table(Source(tmp_path / "c.index")))
    data = (tmp_path / "c.data-00000-of-00001").read_bytes()
    strings = put_varint(1) + put_varint(2)
    plain = masked(crc32c(np.array([1, 2], "<u4").tobytes())).to_bytes(4, "little") + b"xyz"
    entries[b"s"] = entry((2,), 7, len(data), len(strings + plain), crc=masked(crc32c(
        np.array([1, 2], "<u4").tobytes() + plain)))
    data += strings + plain
    entries[b"w"] = WHOLE + ROWS[0] + ROWS[1]
    for i, key in enumerate(KEYS):
        entries[key] = entry((1, 3), offset=len(data) + 12 * i, size=12, data=data + VALUE)
    write(tmp_path / "c", entries, data=data + VALUE)
    right, _ = port.read_checkpoint(tmp_path / "c").load()
    assert right["s"].tolist() == [b"x", b"yz"] and (right["w"].ravel() == DATA[:6]).all()
    saved = {value.tobytes() for value in right.values() if value.dtype != object}
    outcomes = {"refused": 0, "read": 0}
    for seed in range({"smoke": 100, "default": 400, "deep": 30000}[tier]):
        rng = np.random.default_rng([3, seed])
        key = sorted(entries)[rng.integers(len(entries))]
        changed = dict(entries)
        if rng.integers(4):
            changed[key] = mutated(changed[key], rng)
        else:
            changed[mutated(key, rng)] = changed.pop(key)
        header = changed.pop(b"", None)
        write(tmp_path / "c", changed, header or b"", data + VALUE)
        if seed % 10 == 0:  # tracing is slow
            tracemalloc.start()
        try:
            found, _ = port.read_checkpoint(tmp_path / "c").load()
        except CheckpointError as error:
            assert str(error).isprintable(), (seed, error)
            outcomes["refused"] += 1
            continue
        finally:
            assert tracemalloc.get_traced_memory()[1] < MEGABYTE, seed
            tracemalloc.stop()
        outcomes["read"] += 1
        assert all(value.tobytes() in saved or value.dtype == object for value in found.values()), seed
    print(outcomes)
    assert min(outcomes.values()) > 0


def test_given_cases(tmp_path: Path) -> None:
    """An index with a negative length, which ends TensorFlow's process, beside its recording's data."""
    places = [root.parent / "cases" / "faults" / "23-tf-neg-shape.index" for root in goldens.roots()]
    case = next((place for place in places if place.is_file()), None)
    if case is None:
        pytest.skip("no shared cases here; `a negative length` above is of the same kind")
    data = next((case.parents[2] / "goldens" / "tiny_alpha" / "checkpoint").glob("*.data-*"))
    shutil.copy(case, tmp_path / "model.ckpt-150.index")
    shutil.copy(data, tmp_path / data.name)
    assert "negative length" in refused(tmp_path / "model.ckpt-150")


@pytest.mark.parametrize("renames", range(4))
def test_a_killed_writer_leaves_the_old_or_the_new(renames: int, tmp_path: Path, tier: str) -> None:
    """After so many renames; the next one to write there finds a whole checkpoint, and leaves it where it fails."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    prefix = tmp_path / "m"
    port.write_checkpoint(prefix, {"a": np.zeros(4, np.float32)})
    subprocess.run([sys.executable, "-c", KILLED, str(prefix), str(renames)], check=True, cwd=goldens.REPOSITORY)
    assert list(tmp_path.glob(".m.scae-*")) and Path(f"{prefix}.index").exists() == (renames == 0)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match="full"):
        patch.setattr(writer, "table", lambda entries: (_ for _ in ()).throw(OSError("full")))
        port.write_checkpoint(prefix, {"a": np.full(4, 2, np.float32)})
    found = port.read_checkpoint(prefix)["a"]
    assert found.tolist() == [float(renames == 3)] * 4
    assert len(list(tmp_path.iterdir())) == 2
