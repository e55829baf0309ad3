"""`port.checkpoints` beside TensorFlow's own reader and writer: the same bits, recorded or drawn."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import port
import reference
from parity_tests import goldens
from port.checkpoints.tensor_bundle import dtypes, ordered, snappy, table, wire, writer
from port.checkpoints.tensor_bundle.crc32c import crc32c, masked
from port.checkpoints.tensor_bundle.source import Source

RECORDED = sorted({path.resolve() for root in goldens.roots() for path in root.rglob("*.index")})
TYPES = ("float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "bfloat16",
         "uint16", "complex128", "float16", "uint32", "uint64", "string")
# What `tf.raw_ops.Save` takes; its Python reader gives back only some of them, its `Restore` all.
V1_TYPES = ("float32", "float64", "int32", "uint8", "int16", "int8", "complex64", "int64", "bool", "uint16",
            "complex128", "float16", "string")
UNSLICED = (tf.uint16, tf.uint32, tf.uint64, tf.float16)


def same(ours: np.ndarray, theirs) -> bool:
    """Equal in every bit; bfloat16 comes widened, which is exact; strings are bytes."""
    theirs = np.asarray(theirs)
    if theirs.dtype.name == "bfloat16":
        return ours.dtype == np.float32 and ours.shape == theirs.shape and (
            ours.tobytes() == theirs.astype(np.float32).tobytes())
    if ours.dtype == object:
        return ours.shape == theirs.shape and ours.ravel().tolist() == theirs.ravel().tolist()
    return (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())


@pytest.mark.golden
@pytest.mark.parametrize("index", RECORDED, ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_recorded(index: Path, tmp_path: Path) -> None:
    """Names, shapes, types and bits of every recorded checkpoint; written again, the same two files."""
    theirs, ours = reference.read_checkpoint(index), port.read_checkpoint(index)
    assert list(ours) == sorted(theirs)
    arrays, digest = ours.load()
    for name, value in theirs.items():
        assert same(ours[name], value) and same(arrays[name], value), name
        assert (ours.shapes[name], ours.dtypes[name]) == (value.shape, value.dtype.name)
    assert len(digest) == 64 and digest == port.read_checkpoint(index.with_suffix("")).load()[1]
    port.write_checkpoint(tmp_path / "ours", arrays)
    reference.write_checkpoint(tmp_path / "theirs", theirs)
    for end in (".index", ".data-00000-of-00001"):
        assert (tmp_path / f"ours{end}").read_bytes() == (tmp_path / f"theirs{end}").read_bytes()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=24).filter(
    lambda name: name[0] != "\0") | st.sampled_from(["a/b", "a/b/RMSProp", "a/b_1", "z" * 300])


def drawn(seed: int, dtype: str, shape: tuple[int, ...]) -> tf.Tensor:
    """Any bits that the type has, NaN and infinities included."""
    rng = np.random.default_rng(seed)
    if dtype == "string":
        array = np.empty(int(np.prod(shape)), object)
        array[:] = [rng.bytes(int(n)) for n in rng.integers(0, 200, array.size)]
        return tf.constant(array.reshape(shape), tf.string)
    if dtype == "bool":
        return tf.constant(rng.integers(0, 2, shape).astype(bool))
    kind = tf.as_dtype(dtype)
    raw = np.frombuffer(rng.bytes(int(np.prod(shape)) * kind.size), kind.as_numpy_dtype)
    return tf.constant(raw.reshape(shape))


Parts = list[tuple[str, tf.Tensor]]  # specification, which is empty for a whole tensor, and value


@st.composite
def tensors(draw: st.DrawFn, types: tuple[str, ...]) -> dict[str, tuple[tf.Tensor, Parts]]:
    """Name → a tensor, and its slices."""
    found = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=8, unique=True)):
        shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
        dtype = draw(st.sampled_from(types))
        value = drawn(draw(st.integers(0, 2**32 - 1)), dtype, shape)
        parts = [("", value)]
        if shape and dtype != "string" and draw(st.booleans()):
            parts = partition(value, draw(st.integers(0, len(shape) - 1)), draw(st.integers(1, 3)))
        found[name] = (value, parts)
    return found


def partition(value: tf.Tensor, axis: int, step: int) -> Parts:
    """Slices along an axis, as a partitioned variable is saved."""
    shape, parts = value.shape.as_list(), []
    for at in range(0, shape[axis], step):
        count = min(step, shape[axis] - at)
        spec = ":".join(f"{at},{count}" if i == axis else "-" for i in range(len(shape)))
        place = tuple(slice(at, at + count) if i == axis else slice(None) for i in range(len(shape)))
        parts.append((f"{' '.join(map(str, shape))} {spec}", value[place]))
    return parts if len(parts) > 1 else [("", value)]


@functools.cache
def folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="scae-drawn-"))
    import atexit
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def rows(found: dict) -> Iterator[tuple[str, str, tf.Tensor]]:
    """Name, specification and value of every slice."""
    return ((name, spec, part) for name, (_, parts) in found.items() for spec, part in parts)


@hypothesis.given(tensors(TYPES), st.integers(1, 3))
def test_drawn_v2(found: dict, n_shards: int) -> None:
    """What TensorFlow writes from drawn names, shapes, types, partitions and shards is what is read."""
    prefix, saved = folder() / "drawn", list(rows(found))
    for path in folder().glob("drawn*"):
        path.unlink()
    shards = [f"{prefix}_{k}" for k in range(min(n_shards, len(saved)))]
    for k, shard in enumerate(shards):
        names, specs, values = zip(*saved[k::len(shards)], strict=True)
        tf.raw_ops.SaveV2(prefix=shard, tensor_names=names, shape_and_slices=specs, tensors=values)
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=shards, destination_prefix=str(prefix))
    ours, reader = port.read_checkpoint(prefix), tf.train.load_checkpoint(str(prefix))
    loaded, _ = ours.load()
    assert set(ours) == set(reader.get_variable_to_shape_map()) == set(found)
    for name, (value, _) in found.items():
        # TensorFlow writes slices of every type, and puts those of some together again.
        unsupported = len(found[name][1]) > 1 and value.dtype in UNSLICED
        theirs = value.numpy() if unsupported else reader.get_tensor(name)
        assert same(ours[name], theirs) and same(loaded[name], theirs) and same(ours[name], value.numpy())
        assert ours.dtypes[name] == value.dtype.name and ours.shapes[name] == tuple(value.shape)


@hypothesis.given(tensors(V1_TYPES))
def test_drawn_v1(found: dict) -> None:
    """The same of the older format, as `Restore` gives it, which takes more than the Python reader."""
    prefix, saved = str(folder() / "older"), list(rows(found))
    names, specs, values = zip(*saved, strict=True)
    tf.raw_ops.SaveSlices(filename=prefix, tensor_names=names, shapes_and_slices=specs, data=values)
    ours = port.read_checkpoint(prefix)
    loaded, _ = ours.load()
    assert set(ours) == set(found)
    for name, (value, parts) in found.items():
        shape = value.shape.as_list()
        spec = parts[0][0] and f"{' '.join(map(str, shape))} {':'.join('-' * len(shape))}"
        theirs = tf.raw_ops.RestoreSlice(file_pattern=prefix, tensor_name=name, shape_and_slice=spec,
                                         dt=value.dtype).numpy()
        assert same(ours[name], theirs) and same(loaded[name], theirs) and same(ours[name], value.numpy())


@hypothesis.given(tensors(tuple(name for name in TYPES if name not in ("bfloat16", "string"))))
def test_drawn_written(found: dict) -> None:
    """The writer makes TensorFlow's two files, byte for byte, and both read them."""
    arrays = {name: value.numpy() for name, (value, _) in found.items()}
    port.write_checkpoint(folder() / "ours", arrays)
    names = sorted(arrays, key=str.encode)
    tf.raw_ops.SaveV2(prefix=str(folder() / "theirs"), tensor_names=names,
                      shape_and_slices=[""] * len(names), tensors=[arrays[name] for name in names])
    for end in (".index", ".data-00000-of-00001"):
        assert (folder() / f"ours{end}").read_bytes() == (folder() / f"theirs{end}").read_bytes()
    reader, ours = tf.train.load_checkpoint(str(folder() / "ours")), port.read_checkpoint(folder() / "ours")
    for name, value in arrays.items():
        assert same(value, reader.get_tensor(name)) and same(ours[name], value)


def test_many_blocks(tmp_path: Path) -> None:
    """An index of several blocks; blocks of format V1 compressed, as older versions did."""
    arrays = {f"{i * 7919 % 4000:x}{'scope/' * 10}{i}": np.float32(i) for i in range(4000)}
    port.write_checkpoint(tmp_path / "ours", arrays)
    reference.write_checkpoint(tmp_path / "theirs", dict(sorted(arrays.items())))
    assert (tmp_path / "ours.index").read_bytes() == (tmp_path / "theirs.index").read_bytes()
    assert (tmp_path / "ours.index").stat().st_size > 256 * 1024
    ours = port.read_checkpoint(tmp_path / "ours")
    assert all(ours[name] == arrays[name] for name in list(arrays)[::500]) and len(ours) == 4000
    value = np.zeros((500, 900), np.float32)
    value[::7, 0] = 3.5
    numbers = np.arange(-9000, 9000, dtype=np.int64) ** 3
    tf.raw_ops.Save(filename=str(tmp_path / "older"), tensor_names=["a", "b"], data=[value, numbers])
    compress(tmp_path / "older", tmp_path / "older.packed")
    assert (tmp_path / "older.packed").stat().st_size < value.nbytes / 4
    for path in (tmp_path / "older", tmp_path / "older.packed"):
        ours, theirs = port.read_checkpoint(path), tf.train.load_checkpoint(str(path))
        for name, expected in (("a", value), ("b", numbers)):
            assert same(ours[name], expected) and same(ours[name], theirs.get_tensor(name))


def compress(source: Path, target: Path) -> None:
    """A table with its blocks written anew, compressed."""
    blocks = [writer.Block(1)]
    for key, value in table.Table(Source(source)):
        blocks.append(writer.Block(16))
        blocks[-1].add(key, value)
        blocks[0].add(key, b"")
    out, handles, index = bytearray(), [], writer.Block(1)
    for block in [*blocks[1:], writer.Block(16)]:
        packed = pack(block.whole())
        handles.append(wire.put_varint(len(out)) + wire.put_varint(len(packed)))
        out += packed + b"\x01" + masked(crc32c(packed + b"\x01")).to_bytes(4, "little")
    for (key, _), handle in zip(table.entries_of(blocks[0].whole()), handles, strict=False):
        index.add(key, handle)
    packed = pack(index.whole())
    footer = handles[-1] + wire.put_varint(len(out)) + wire.put_varint(len(packed))
    out += packed + b"\x01" + masked(crc32c(packed + b"\x01")).to_bytes(4, "little")
    target.write_bytes(out + footer.ljust(40, b"\0") + table.MAGIC.to_bytes(8, "little"))


def pack(data: bytes) -> bytes:
    """Snappy's format: runs of zeros as copies, the rest as literals."""
    out, at = bytearray(wire.put_varint(len(data))), 0
    while at < len(data):
        zeros = len(data[at:at + 65]) - len(data[at:at + 65].lstrip(b"\0"))
        if zeros > 4:
            out += bytes([0, 0]) + bytes([2 | zeros - 2 << 2, 1, 0])
            at += zeros
            continue
        end = data.find(b"\0\0\0\0\0", at, at + 60000)
        end = min(len(data), at + 60000) if end <= at else end
        out += bytes([61 << 2]) + (end - at - 1).to_bytes(2, "little") + data[at:end]
        at = end
    return bytes(out)


def test_narrow_floats(tmp_path: Path) -> None:
    """All 256 values of both floats of 8 bits and every bfloat16 that differs, widened exactly."""
    for name in ("float8_e5m2", "float8_e4m3fn", "bfloat16"):
        kind = tf.as_dtype(name)
        raw = np.arange(256, dtype=np.uint8) if kind.size == 1 else np.arange(0, 65536, 7, dtype=np.uint16)
        value = raw.view(kind.as_numpy_dtype)
        tf.raw_ops.SaveV2(prefix=str(tmp_path / name), tensor_names=["x"], shape_and_slices=[""],
                          tensors=[value])
        ours = port.read_checkpoint(tmp_path / name)
        assert ours.dtypes["x"] == name and ours["x"].dtype == np.float32
        np.testing.assert_array_equal(ours["x"], value.astype(np.float32))


@hypothesis.given(st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_checksum(short: bytes, seed: int) -> None:
    """CRC-32C of any length is that of a loop over bits."""
    rng = np.random.default_rng(seed)
    for data in (short, rng.bytes(int(rng.integers(300, 3000)))):
        state = 0xFFFFFFFF
        for byte in data:
            state ^= byte
            for _ in range(8):
                state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
        assert crc32c(data) == state ^ 0xFFFFFFFF


def test_checksum_of_blocks() -> None:
    """Known values, and a message of several blocks against TensorFlow's own checksum."""
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720
    assert masked(crc32c(b"foo")) != crc32c(b"foo")
    data = np.random.default_rng(0).bytes((4 << 20) + 1234)
    # A record of TFRecord has TensorFlow's own checksum of its content.
    path = str(folder() / "record")
    with tf.io.TFRecordWriter(path) as file:
        file.write(data)
    assert Path(path).read_bytes()[-4:] == masked(crc32c(data)).to_bytes(4, "little")


@hypothesis.given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(-2**63, 2**63 - 1))
def test_numbers(values: list[int], one: int) -> None:
    """Numbers of base 128, one at a time and many at once; the order of encoded keys is that of numbers."""
    data = b"".join(map(wire.put_varint, values))
    assert wire.varints(data, len(values)).tolist() == values
    at, again = 0, []
    for _ in values:
        value, at = wire.varint(data, at)
        again.append(value)
    assert again == values and at == len(data)
    ordered_values = sorted([one, *(wire.signed(value) for value in values)])
    assert sorted(map(ordered.signed, ordered_values)) == list(map(ordered.signed, ordered_values))


@hypothesis.given(st.data())
def test_snappy(data: st.DataObject) -> None:
    """Drawn literals and copies of every form against a loop over bytes."""
    out, packed = bytearray(), bytearray()
    for _ in range(data.draw(st.integers(1, 12))):
        back = data.draw(st.integers(1, max(1, len(out))))
        form = data.draw(st.integers(0, 3)) if out else 0
        if form == 0:
            literal = data.draw(st.binary(min_size=1, max_size=300))
            size = len(literal) - 1
            packed += bytes([size << 2]) if size < 60 else (
                bytes([60 << 2, size]) if size < 256 else bytes([61 << 2, size & 255, size >> 8]))
            packed += literal
            out += literal
            continue
        size = data.draw(st.integers(4, 11) if form == 1 else st.integers(1, 64))
        tag, width = (2, 2) if form < 3 else (3, 4)
        packed += (bytes([1 | size - 4 << 2 | back >> 8 << 5, back & 255]) if form == 1 and back < 2048 else
                   bytes([tag | size - 1 << 2]) + back.to_bytes(width, "little"))
        for _ in range(size):
            out.append(out[-back])
    assert snappy.decompress(wire.put_varint(len(out)) + bytes(packed)) == bytes(out)


def test_types_are_tensorflows() -> None:
    """Number and name of every type, those that are refused too."""
    known = {code: kind.name for code, kind in dtypes.DTYPES.items()}
    for code, name in {**known, **dtypes.REFUSED}.items():
        assert tf.as_dtype(code).name == name
