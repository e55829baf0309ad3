"""A file that is read in parts and must stay the same meanwhile."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from port.checkpoints.tensor_bundle.errors import CheckpointError, Malformed, printable

CHUNK = 1 << 20


class Source:
    """A regular file as it was when it was first looked at.

    Attributes:
        path: where it lies.
        size: bytes.
    """

    def __init__(self, path: str | Path) -> None:
        """
        Raises:
            CheckpointError: it is not there, no regular file, or cannot be opened.
        """
        self.path = Path(path)
        self._content: bytearray | None = None
        with self._opened() as file:
            self._identity = self._identify(file)
        self.size = self._identity[2]

    def _opened(self) -> io.FileIO:
        try:
            # A pipe would wait for its other end; a device has no end.
            if not stat.S_ISREG(os.stat(self.path).st_mode):
                raise CheckpointError(f"{printable(str(self.path))}: no regular file")
            return open(self.path, "rb", buffering=0)
        except OSError as error:
            raise CheckpointError(f"{printable(str(self.path))}: cannot be read "
                                  f"({error.strerror or error})") from None

    @staticmethod
    def _identify(file: io.FileIO) -> tuple[int, int, int, int]:
        found = os.fstat(file.fileno())
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def read(self, offset: int, size: int) -> bytearray:
        """Some bytes.

        Raises:
            Malformed: they are not all in the file.
            CheckpointError: the file changed since it was first looked at, or cannot be read.
        """
        if not (0 <= offset <= self.size and 0 <= size <= self.size - offset):
            raise Malformed(f"{size} bytes from {offset} on are not in the file, which has {self.size}")
        if self._content is not None:
            return self._content[offset:offset + size]
        with self._opened() as file:
            self._check(file)
            file.seek(offset)
            result = self._exactly(file, size)
            self._check(file)
        return result

    def load(self) -> str:
        """Read the file whole and keep it; SHA-256 of what `read` gives from now on."""
        self._content = self.read(0, self.size)
        return hashlib.sha256(self._content).hexdigest()

    def forget(self) -> None:
        """Give back what `load` keeps."""
        self._content = None

    def in_order(self, extents: list[tuple[int, int]]) -> Iterator[bytearray | str]:
        """The bytes of extents, one after the other, and at the end the SHA-256 of the whole file.

        What was handed out is what was hashed: nothing is read twice.

        Args:
            extents: (offset, size), sorted, not overlapping, inside the file.

        Raises:
            CheckpointError: as `read`.
        """
        digest, at = hashlib.sha256(), 0
        with self._opened() as file:
            self._check(file)
            for offset, size in extents:
                self._pass(file, at, offset, digest)
                found = self._exactly(file, size)
                digest.update(found)
                at = offset + size
                yield found
            self._pass(file, at, self.size, digest)
            self._check(file)
        yield digest.hexdigest()

    def _pass(self, file: io.FileIO, at: int, end: int, digest: Any) -> None:
        """Hash what lies between two extents."""
        while at < end:
            gap = self._exactly(file, min(CHUNK, end - at))
            digest.update(gap)
            at += len(gap)

    def _exactly(self, file: io.FileIO, size: int) -> bytearray:
        result = bytearray(size)
        view, at = memoryview(result), 0
        try:
            while at < size:
                count = file.readinto(view[at:])
                if not count:
                    raise CheckpointError(f"{printable(str(self.path))}: became shorter while it was read")
                at += count
        except OSError as error:
            raise CheckpointError(f"{printable(str(self.path))}: cannot be read "
                                  f"({error.strerror or error})") from None
        return result

    def _check(self, file: io.FileIO) -> None:
        if self._identify(file) != self._identity:
            raise CheckpointError(f"{printable(str(self.path))}: changed while it was read; try again when "
                                  "nothing writes to it")
