"""Oracle of the checkpoint reader: TensorFlow's V2 format, byte by byte, without TensorFlow.

A checkpoint is `prefix.index`, a sorted string table from variable names to small messages (dtype,
shape, shard, offset, size), and `prefix.data-i-of-n`, the raw bytes. Only what `tf.train.Saver`
writes is read: whole tensors of numbers in uncompressed blocks. Check sums are not looked at.
Source: tensorflow/core/lib/io/table_format.txt, tensorflow/core/protobuf/tensor_bundle.proto.
"""

from pathlib import Path

import numpy as np

DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 9: "<i8", 10: "|b1"}
MAGIC = 0xDB4775248B80FB57
FOOTER_BYTES = 48


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A little-endian base-128 number and the position after it."""
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _block(data: bytes, offset: int, size: int) -> dict[bytes, bytes]:
    """Entries of one block; each key repeats the first bytes of the one before it.

    Raises:
      ValueError: the block is compressed.
    """
    if data[offset + size] != 0:
        raise ValueError("compressed blocks are not written by tf.train.Saver and not read here")
    n_restarts = int.from_bytes(data[offset + size - 4 : offset + size], "little")
    end = offset + size - 4 * (n_restarts + 1)
    entries, key, at = {}, b"", offset
    while at < end:
        shared, at = _varint(data, at)
        own, at = _varint(data, at)
        length, at = _varint(data, at)
        key = key[:shared] + data[at : at + own]
        entries[key] = data[at + own : at + own + length]
        at += own + length
    return entries


def _message(data: bytes) -> dict[int, list]:
    """Fields of a protocol buffer message by number: numbers, or bytes not yet read."""
    fields: dict[int, list] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        else:
            width = {1: 8, 5: 4}[kind]
            value, at = data[at : at + width], at + width
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _shape(message: bytes) -> tuple[int, ...]:
    """Lengths of a TensorShapeProto: field 2 repeats a dimension, whose field 1 is its length."""
    dimensions = _message(message).get(2, [])
    return tuple(_message(dimension).get(1, [0])[0] for dimension in dimensions)


def read_checkpoint(prefix) -> dict[str, np.ndarray]:
    """Reads every variable of a checkpoint by its name, slots and averages included.

    Args: prefix, the path without `.index`.
    Raises:
      ValueError: the index is no sorted string table, or holds a type that is no number.
    """
    prefix = Path(prefix)
    index = Path(f"{prefix}.index").read_bytes()
    footer = index[-FOOTER_BYTES:]
    if int.from_bytes(footer[-8:], "little") != MAGIC:
        raise ValueError(f"{prefix}.index is no TensorFlow V2 checkpoint")
    _, at = _varint(footer, 0)
    _, at = _varint(footer, at)
    offset, at = _varint(footer, at)
    size, _ = _varint(footer, at)
    entries: dict[bytes, bytes] = {}
    for handle in _block(index, offset, size).values():
        block_offset, at = _varint(handle, 0)
        block_size, _ = _varint(handle, at)
        entries.update(_block(index, block_offset, block_size))

    n_shards = _message(entries.pop(b"")).get(1, [1])[0]
    shards = [
        Path(f"{prefix}.data-{i:05d}-of-{n_shards:05d}").read_bytes() for i in range(n_shards)
    ]
    arrays = {}
    for name, message in entries.items():
        fields = _message(message)
        code = fields.get(1, [0])[0]
        if code not in DTYPES:
            raise ValueError(f"{name.decode()} has the type {code}, which is no number")
        start, length = fields.get(4, [0])[0], fields.get(5, [0])[0]
        raw = shards[fields.get(3, [0])[0]][start : start + length]
        shape = _shape(fields[2][0]) if 2 in fields else ()
        arrays[name.decode()] = np.frombuffer(raw, DTYPES[code]).reshape(shape).copy()
    return arrays
