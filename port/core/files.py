"""Files are written aside and renamed, and looked at for kind and size before they are read.

There is the old one, or the whole new one, never half of one. Safetensors files are written by
`port.core.tensor_files`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import select
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 10.0  # seconds for somebody to begin writing into a named pipe that is read
LINKS = 40  # that lead to each other, as many as the system follows


def read_bytes(path: str | os.PathLike, most: int = 2**30) -> bytes:
    """A file's content; a file of more bytes than such a file has is not read, a sparse terabyte neither.

    A pipe is read too, as a shell's `<(command)` is one, up to so many bytes.

    Raises:
        OSError: it cannot be read, is too large (EFBIG), a device or something else that has no end, or a pipe
            that nobody writes into.
    """
    name = os.fspath(path)
    # Opened without waiting: a pipe would else be waited for however long nobody opens its other end.
    handle, begun = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), b""
    with open(handle, "rb") as file:
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if stat.S_ISFIFO(found.st_mode):
            begun = _wait_for_writer(handle, name)
            os.set_blocking(handle, True)
        elif not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "a device or a socket, no file", name)
        # The size is only believed where it forbids to read: files in /proc have none, and one may grow.
        content = b"" if found.st_size > most else begun + file.read(most + 1 - len(begun))
    if max(found.st_size, len(content)) > most:
        many = f"{found.st_size / 2**30:,.1f} GB" if found.st_size > 2**29 else f"more than {most:,} bytes"
        raise OSError(errno.EFBIG, f"{many} are more than such a file has", name)
    return content


def _wait_for_writer(handle: int, name: str) -> bytes:
    """Wait until somebody has opened the other end of a pipe; what was read to find that out.

    Raises:
        OSError: nobody has.
    """
    if select.select([handle], [], [], PATIENCE)[0]:
        return b""
    try:
        found = os.read(handle, 1)
    except BlockingIOError:  # open, and slow: whoever it is, is waited for
        return b""
    if not found:
        raise OSError(errno.ETIMEDOUT, "a pipe that nobody writes into", name)
    return found


def place_of(path: str | os.PathLike) -> Path | None:
    """Where the content of a file to write belongs; None where it is poured into what stands there.

    A link leads to the file it names, which takes the new content, while the link stays. One to a file that is
    protected from writing is itself the place: DVC makes such links into its cache, which must stay as it is.
    A pipe, a terminal, another device, and a file that this process has open already (/dev/stdout) are written
    into and not replaced.

    Raises:
        OSError: a folder stands there, or links lead in a circle.
    """
    path = Path(path)
    if descriptor_of(path) is not None:
        return None
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # a link may lead to where nothing is yet
        if path.name != "..":
            return Path(os.path.realpath(path)) if path.is_symlink() else path
        mode = stat.S_IFDIR
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        return None
    return Path(os.path.realpath(path)) if path.is_symlink() and mode & stat.S_IWUSR else path


def descriptor_of(path: Path) -> int | None:
    """This process's own open file that a path leads to, as /dev/stdout and a shell's `>(command)` do; else None."""
    for _ in range(LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


@contextlib.contextmanager
def whole(path: str | os.PathLike, suffix: str = "") -> Iterator[Path]:
    """Where to write a file that takes its place once the block has ended well.

    The folder is made. Whatever ends the block otherwise, an interruption too, leaves what was there before
    and nothing beside it. Several processes may write the same file at once, as two seeds prepare the same
    data; the last one's stays.

    Args:
        path: of the file; links and what is no file are treated as `place_of` says.
        suffix: of the name to write to, for a writer or reader that goes by it.

    Raises:
        OSError: it cannot be written; it names this path.
    """
    path = Path(path)
    place = place_of(path)
    if place is None:
        with tempfile.TemporaryDirectory(prefix="scae-") as folder:
            temporary = Path(folder) / f"whole{suffix}"
            yield temporary
            with named(path):
                _pour(temporary, path)
        return
    temporary = place.with_name(f".{place.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp{suffix}")
    with named(path, temporary):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def named(path: str | os.PathLike, *aside: Path) -> Iterator[None]:
    """An OSError names the file that was asked for: a write that fails names none, or the one written aside.

    One without a number has words of its own alone, which a name would take the place of.

    Args:
        path: what somebody asked for.
        aside: files or folders that are written in its place, and renamed in the end.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        for attribute in ("filename", "filename2"):
            name = getattr(error, attribute)
            for other in aside if isinstance(name, str | os.PathLike) else ():
                if Path(name).is_relative_to(other):
                    setattr(error, attribute, str(Path(path) / Path(name).relative_to(other)))
        if error.filename2 == error.filename:
            error.filename2 = None
        raise


def _pour(source: Path, path: Path) -> None:
    descriptor = descriptor_of(path)
    with open(source, "rb") as content, open(path if descriptor is None else os.dup(descriptor), "wb") as target:
        shutil.copyfileobj(content, target)


def write_text(path: str | os.PathLike, text: str) -> None:
    """A text file in UTF-8, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """A file, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
