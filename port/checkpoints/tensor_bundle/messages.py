"""The messages of both formats, checked: shapes, slices, entries, headers.

Source: tensorflow/core/protobuf/tensor_bundle.proto, tensorflow/core/util/saved_tensor_slice.proto,
tensorflow/core/framework/{tensor_shape,tensor_slice,tensor,versions}.proto.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from port.checkpoints.tensor_bundle.dtypes import DTYPES, DType, dtype_of
from port.checkpoints.tensor_bundle.errors import Malformed, printable
from port.checkpoints.tensor_bundle.ordered import Extent
from port.checkpoints.tensor_bundle.wire import Field, parse

MOST_AXES = 64  # of a NumPy array
MOST_NUMBERS = 1 << 48

_DIM = {1: Field("size", "int")}
_SHAPE = {2: Field("dim", "bytes", True), 3: Field("unknown_rank", "uint")}
_EXTENT = {1: Field("start", "int"), 2: Field("length", "int?")}
_SLICE = {1: Field("extent", "bytes", True)}
_VERSIONS = {1: Field("producer", "int"), 2: Field("min_consumer", "int"),
             3: Field("bad_consumers", "varints")}
_HEADER = {1: Field("num_shards", "int"), 2: Field("endianness", "uint"), 3: Field("version", "bytes")}
_ENTRY = {1: Field("dtype", "uint"), 2: Field("shape", "bytes"), 3: Field("shard", "int"),
          4: Field("offset", "int"), 5: Field("size", "int"), 6: Field("crc32c", "fixed32"),
          7: Field("slices", "bytes", True)}
_SAVED = {1: Field("meta", "bytes"), 2: Field("data", "bytes")}
_META = {1: Field("tensors", "bytes", True), 2: Field("versions", "bytes")}
_SAVED_META = {1: Field("name", "bytes"), 2: Field("shape", "bytes"), 3: Field("type", "uint"),
               4: Field("slices", "bytes", True)}
_SAVED_DATA = {1: Field("name", "bytes"), 2: Field("slice", "bytes"), 3: Field("data", "bytes")}
# Numbers of the fields of a tensor's values.
_VALUES = {"half_val": 13, "float_val": 5, "double_val": 6, "int_val": 7, "string_val": 8,
           "scomplex_val": 9, "int64_val": 10, "bool_val": 11, "dcomplex_val": 12, "uint32_val": 16,
           "uint64_val": 17}
VERSION = 1  # of both formats


class Slice(NamedTuple):
    """A box of a tensor.

    Attributes:
        extents: as stored, part of the key.
        start: first index of each axis.
        shape: lengths.
    """

    extents: tuple[Extent, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def place(self) -> tuple[slice, ...]:
        """For indexing the whole tensor."""
        return tuple(slice(at, at + n) for at, n in zip(self.start, self.shape, strict=True))


class Entry(NamedTuple):
    """A tensor, or a slice of one, in a bundle.

    Attributes:
        dtype: of it.
        shape: of it.
        shard: number of the data file.
        offset: of its bytes.
        size: how many.
        crc: masked CRC-32C of them.
        slices: where the tensor is stored in parts; then it has no bytes of its own.
    """

    dtype: DType
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[Slice, ...]


def shape_of(data: bytes | None) -> tuple[int, ...]:
    """A TensorShapeProto.

    Raises:
        Malformed: a negative or unknown length, too many axes, or more numbers than any file has.
    """
    found = parse(data or b"", _SHAPE)
    if found["unknown_rank"]:
        raise Malformed("has no known shape")
    if len(found["dim"]) > MOST_AXES:
        raise Malformed(f"has {len(found['dim'])} axes; {MOST_AXES} are the most")
    shape = tuple(parse(dim, _DIM)["size"] for dim in found["dim"])
    if min(shape, default=0) < 0:
        raise Malformed(f"has the shape {list(shape)}, with a negative length")
    if math.prod(length for length in shape if length) > MOST_NUMBERS:
        raise Malformed(f"has the shape {list(shape)}, more numbers than a file can have")
    return shape


def slice_of(data: bytes, whole: tuple[int, ...]) -> Slice:
    """A TensorSliceProto inside a tensor of a shape.

    Raises:
        Malformed: another rank, or it is not inside.
    """
    extents: list[Extent] = []
    for message in parse(data, _SLICE)["extent"]:
        extent = parse(message, _EXTENT)
        extents.append(None if extent["length"] is None else (extent["start"], extent["length"]))
    if len(extents) != len(whole):
        raise Malformed(f"has a slice of {len(extents)} axes, its shape has {len(whole)}")
    start = tuple(0 if extent is None else extent[0] for extent in extents)
    shape = tuple(n if extent is None else extent[1] for extent, n in zip(extents, whole, strict=True))
    if any(at < 0 or n < 0 or at + n > most for at, n, most in zip(start, shape, whole, strict=True)):
        raise Malformed(f"has a slice from {list(start)} of shape {list(shape)}, outside its shape "
                        f"{list(whole)}")
    return Slice(tuple(extents), start, shape)


def check_versions(data: bytes | None) -> None:
    """A VersionDef that this reader may read.

    Raises:
        Malformed: it asks for a newer one.
    """
    found = parse(data or b"", _VERSIONS)
    if found["min_consumer"] > VERSION or VERSION in found["bad_consumers"]:
        raise Malformed(f"is of a newer format (it asks for version {found['min_consumer']}; {VERSION} is "
                        "known)")


def header_of(data: bytes | None) -> int:
    """A BundleHeaderProto: number of shards.

    Raises:
        Malformed: it is missing, big-endian, of a newer version or without shards.
    """
    if data is None:
        raise Malformed("the index has no header")
    found = parse(data, _HEADER)
    if found["endianness"]:
        raise Malformed("is big-endian, which is not read")
    check_versions(found["version"])
    if not 0 < found["num_shards"] < 100000:  # five digits of the file's name
        raise Malformed(f"says that it has {found['num_shards']} shards")
    return found["num_shards"]


def entry_of(data: bytes) -> Entry:
    """A BundleEntryProto whose numbers agree with each other; nothing is known of the files yet.

    Raises:
        Malformed: a wrong type, shape, place or size.
    """
    found = parse(data, _ENTRY)
    dtype, shape = dtype_of(found["dtype"]), shape_of(found["shape"])
    size, count = found["size"], math.prod(shape)
    slices = tuple(slice_of(message, shape) for message in found["slices"])
    if found["offset"] < 0 or size < 0 or found["shard"] < 0:
        raise Malformed(f"lies at {found['offset']} of shard {found['shard']} with {size} bytes, which is "
                        "no place")
    if slices:
        check_cover(slices, count)
        if size:
            raise Malformed("is stored in slices and as a whole")
    elif size != count * dtype.size if dtype.stored else size < count:
        raise Malformed(f"has {size} bytes, its shape {list(shape)} of {dtype.name} needs "
                        f"{count * dtype.size}{'' if dtype.stored else ' or more'}")
    return Entry(dtype, shape, found["shard"], found["offset"], size, found["crc32c"], slices)


def check_cover(slices: tuple[Slice, ...], count: int) -> None:
    """Slices together have as many numbers as their tensor, so that memory is bounded by the file.

    Raises:
        Malformed: they have not.
    """
    stored = sum(math.prod(part.shape) for part in slices)
    if stored != count:
        raise Malformed(f"has {count} numbers, its slices {stored}: they overlap, or one is missing")


class SavedTensor(NamedTuple):
    """A tensor that a V1 file says it has, whole or in part."""

    name: bytes
    dtype: DType
    shape: tuple[int, ...]
    slices: tuple[Slice, ...]


def saved_tensors(data: bytes | None) -> list[SavedTensor]:
    """The first entry of a V1 file: SavedTensorSlices with the description of all.

    Raises:
        Malformed: it is missing, or a tensor of it is not possible.
    """
    meta = parse(data or b"", _SAVED)["meta"]
    if meta is None:
        raise Malformed("the table has no description of its tensors")
    found = parse(meta, _META)
    check_versions(found["versions"])
    tensors = []
    for message in found["tensors"]:
        saved = parse(message, _SAVED_META)
        name = saved["name"] or b""
        try:
            dtype, shape = dtype_of(saved["type"]), shape_of(saved["shape"])
            slices = tuple(slice_of(part, shape) for part in saved["slices"])
        except Malformed as error:
            raise Malformed(f"{printable(name)} {error}") from None
        tensors.append(SavedTensor(name, dtype, shape, slices))
    return tensors


def saved_values(data: bytes | None, name: bytes, part: Slice, dtype: DType, whole: tuple[int, ...]) -> Any:
    """The values of one slice in a V1 file, still packed: bytes, or a list of strings.

    Raises:
        Malformed: it is missing, or is another slice's.
    """
    found = parse(data or b"", _SAVED)["data"]
    if found is None:
        raise Malformed("one of its slices is missing")
    saved = parse(found, _SAVED_DATA)
    if (saved["name"] or b"") != name or slice_of(saved["slice"] or b"", whole) != part:
        raise Malformed("one of its slices is another tensor's")
    if dtype.values is None:
        raise Malformed(f"is of type {dtype.name}, which format V1 has no place for")
    field, kind = dtype.values
    spec = {1: Field("dtype", "uint"), 4: Field("tensor_content", "bytes"),
            _VALUES[field]: Field("values", kind, kind == "bytes")}
    tensor = parse(saved["data"] or b"", spec)
    if tensor["tensor_content"] is not None or (tensor["dtype"] and DTYPES.get(tensor["dtype"]) != dtype):
        raise Malformed("one of its slices has its values in another form")
    return tensor["values"]
