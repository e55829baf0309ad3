"""Format V1: one file, or shards of it, each a table of slices and their values."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from port.checkpoints.tensor_bundle.bundle import join, unreadable
from port.checkpoints.tensor_bundle.dtypes import DType, decode
from port.checkpoints.tensor_bundle.errors import CheckpointError, Malformed, printable
from port.checkpoints.tensor_bundle.messages import (
    SavedTensor,
    Slice,
    check_cover,
    saved_tensors,
    saved_values,
)
from port.checkpoints.tensor_bundle.ordered import slice_key
from port.checkpoints.tensor_bundle.source import Source
from port.checkpoints.tensor_bundle.table import Table
from port.checkpoints.tensor_bundle.wire import varints


class SliceTables:
    """A checkpoint of format V1.

    Attributes:
        files: its shards, as `Source`.
        tensors: name → what its tables say, with the slices of all.
    """

    def __init__(self, paths: list[Path]) -> None:
        """
        Raises:
            CheckpointError: a file is missing, damaged, or says what cannot be.
        """
        self.files = [Source(path) for path in paths]
        self._open()

    def _open(self) -> None:
        self.tensors: dict[bytes, SavedTensor] = {}
        self._tables: dict[tuple[bytes, Slice], Table] = {}
        for source in self.files:
            try:
                table = Table(source)
                for saved in saved_tensors(table.get(b"")):
                    self._add(saved, table)
            except Malformed as error:
                raise CheckpointError(unreadable(source.path, error)) from None
        for name, tensor in self.tensors.items():
            try:
                check_cover(tensor.slices, math.prod(tensor.shape))
            except Malformed as error:
                raise CheckpointError(unreadable(
                    self.files[0].path, f"{printable(name)} {error}")) from None

    def _add(self, saved: SavedTensor, table: Table) -> None:
        known = self.tensors.get(saved.name)
        if known is not None and (known.dtype != saved.dtype or known.shape != saved.shape):
            raise Malformed(f"{printable(saved.name)} has another type or shape than in another shard")
        slices = known.slices if known else ()
        for part in saved.slices:
            if (saved.name, part) in self._tables:
                raise Malformed(f"{printable(saved.name)} has a slice twice")
            self._tables[saved.name, part] = table
        self.tensors[saved.name] = saved._replace(slices=slices + saved.slices)

    @property
    def described(self) -> dict[bytes, tuple[tuple[int, ...], DType]]:
        """Name → shape and type."""
        return {name: (tensor.shape, tensor.dtype) for name, tensor in self.tensors.items()}

    def read(self, name: bytes) -> np.ndarray:
        """One tensor.

        Raises:
            CheckpointError: its slices are damaged, missing, or changed since the file was opened.
        """
        tensor, pieces = self.tensors[name], []
        for part in tensor.slices:
            table = self._tables[name, part]
            try:
                value = table.get(slice_key(name, part.extents))
                packed = saved_values(value, name, part, tensor.dtype, tensor.shape)
                pieces.append((part.place, values(packed, tensor.dtype, part.shape)))
            except Malformed as error:
                raise CheckpointError(unreadable(table.source.path, f"{printable(name)} {error}")) from None
        if not pieces:
            return np.empty(tensor.shape, tensor.dtype.numpy)
        try:
            return pieces[0][1] if pieces[0][1].shape == tensor.shape else join(tensor.shape, pieces)
        except Malformed as error:
            raise CheckpointError(unreadable(self.files[0].path, f"{printable(name)} {error}")) from None

    def load(self) -> tuple[dict[bytes, np.ndarray], dict[Path, str]]:
        """Every tensor, and SHA-256 of the very bytes they came from by file; each file is read once.

        Raises:
            CheckpointError: as `read`.
        """
        digests = {source.path: source.load() for source in self.files}
        self._open()
        found = {name: self.read(name) for name in self.tensors}
        for source in self.files:
            source.forget()
        return found, digests


def values(packed: bytes | list[bytes], dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """Packed values of a slice as an array.

    Raises:
        Malformed: another number of values than the shape has, or one that the type has not.
    """
    count = math.prod(shape)
    if isinstance(packed, list):
        if len(packed) != count:
            raise Malformed(f"has {len(packed)} strings, its shape {list(shape)} needs {count}")
        array = np.empty(count, object)
        array[:] = packed
        return array.reshape(shape)
    if dtype.values[1] == "varints":
        numbers = varints(packed, count).view(np.int64)
        kept = numbers.astype({"bool": "|u1", "float16": "<u2"}.get(dtype.name, dtype.stored))
        if (kept.astype(np.int64) != numbers).any():
            raise Malformed(f"has a value that {dtype.name} has not")
        packed = kept.tobytes()
    if len(packed) != count * np.dtype(dtype.stored).itemsize:
        raise Malformed(f"has values for another shape than {list(shape)}")
    return decode(bytearray(packed), dtype, shape)
