"""Files are written aside and renamed, and looked at for their size before they are read.

There is the old one, or the whole new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def read_bytes(path: str | os.PathLike, most: int = 2**30) -> bytes:
    """A file's content; a file of more bytes than such a file has is not read, a sparse terabyte neither.

    Raises:
        OSError: it cannot be read, or is too large (EFBIG).
    """
    size = os.stat(path).st_size
    if size > most:
        raise OSError(errno.EFBIG, f"{size / 2**30:,.1f} GB are more than such a file has", os.fspath(path))
    return Path(path).read_bytes()


@contextlib.contextmanager
def whole(path: str | os.PathLike, suffix: str = "") -> Iterator[Path]:
    """Where to write a file that takes its place once the block has ended well.

    The folder is made. Whatever ends the block otherwise, an interruption too, leaves what was there before
    and nothing beside it. Several processes may write the same file at once, as two seeds prepare the same
    data; the last one's stays.

    Args:
        path: of the file; a link is replaced, not followed.
        suffix: of the name to write to, for a writer or reader that goes by it.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write that fails does not say where
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """A file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
