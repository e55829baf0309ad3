"""A TensorFlow checkpoint as a mapping from names to arrays, without TensorFlow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from port.checkpoints.tensor_bundle.bundle import Bundle
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable
from port.checkpoints.tensor_bundle.locate import find
from port.checkpoints.tensor_bundle.slice_tables import SliceTables


class Checkpoint(Mapping):
    """Every tensor of a checkpoint by name: variables, slots, averages, step.

    Names, shapes and types come from the index; a tensor is read when it is asked for, checked against its
    checksum, and not kept. (As a `Mapping` without types: to check those would read a tensor.)

    Attributes:
        prefix: of its files.
        shapes: name → shape, sorted by name.
        dtypes: name → TensorFlow's name of the type; what NumPy lacks comes widened (`tensor_bundle.dtypes`).
    """

    def __init__(self, path: str | os.PathLike) -> None:
        """
        Args:
            path: prefix, folder, one of the files, or the text file `checkpoint`; taken literally.

        Raises:
            CheckpointError: missing, incomplete, damaged, or something else.
        """
        place = find(path)
        self.prefix = place.prefix
        self._store = SliceTables(list(place.tables)) if place.tables else Bundle(place.prefix)
        self._names: dict[str, bytes] = {}
        described = self._store.described
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for name in sorted(described):
            try:
                text = name.decode("utf-8")
            except UnicodeDecodeError:
                raise CheckpointError(f"{printable(str(self.prefix))}: the name {printable(name)} is no "
                                      "UTF-8") from None
            self._names[text] = name
            self.shapes[text], self.dtypes[text] = described[name][0], described[name][1].name

    @property
    def files(self) -> list[Path]:
        """Those that hold its tensors; the graph (`.meta`) is none of them."""
        return [source.path for source in self._store.files]

    def __getitem__(self, name: str) -> np.ndarray:
        return self._store.read(self._names[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def load(self) -> tuple[dict[str, np.ndarray], str]:
        """Every tensor at once, and the digest of the very bytes that they were made of.

        Returns:
            name → array, sorted by name; SHA-256 over name and SHA-256 of each file, sorted.

        Raises:
            CheckpointError: a file is damaged, or changed since the checkpoint was opened.
        """
        arrays, files = self._store.load()
        digest = hashlib.sha256()
        for path in sorted(files):
            digest.update(os.fsencode(path.name) + b"\0" + bytes.fromhex(files[path]))
        return {name: arrays[key] for name, key in self._names.items()}, digest.hexdigest()


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Open a TensorFlow checkpoint (`tf.train.Saver`, formats V2 and V1); needs no TensorFlow.

    Args:
        path: prefix (`…/model.ckpt-300001`), folder, one of its files, or the text file `checkpoint`; taken
            literally.

    Returns:
        name → array, for `port.from_tf` or alone; a tensor is read when it is asked for.

    Raises:
        CheckpointError: missing, incomplete, damaged, or something else, which is named.
    """
    return Checkpoint(path)
