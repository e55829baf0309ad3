"""Where every command and stage ends: what the machine or a file did becomes one line and an exit code.

    OSError (full, read-only, not permitted, a folder in a file's place, …)    path, reason, what to do
    SafetensorError, zlib.error, BadZipFile, EOFError, JSONDecodeError         a damaged file
    UnicodeError, RecursionError, MemoryError, the device's memory             what was too much

All of them are exit code 2; SIGINT is 130, SIGTERM 143, a reader that closed the pipe 141, without a word.
Every other exception is a mistake of this program and keeps its traceback; with SCAE_TRACEBACK=1 all do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import zipfile
import zlib
from collections.abc import Iterator
from typing import TextIO

TRACEBACK = "SCAE_TRACEBACK"
CLOSED_PIPE = 128 + signal.SIGPIPE if hasattr(signal, "SIGPIPE") else 1
OWN = ("port", "pipelines")  # their refusals say in words what is wrong

HINTS = {
    errno.ENOSPC: "free some space, or name another folder",
    errno.EDQUOT: "free some space, or name another folder",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "ask for the right to it, or name another place",
    errno.EPERM: "ask for the right to it, or name another place",
    errno.ENOENT: "see whether the path is right, and where a link leads",
    errno.EISDIR: "a folder stands where a file should; name another place",
    errno.ENOTDIR: "a file stands where a folder should; name another place",
    errno.EEXIST: "something of that name stands in its place",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "the links lead in a circle",
    errno.EMFILE: "too many files are open; raise ulimit -n",
    errno.EIO: "look at the disk",
}


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt no `except Exception` swallows it."""


def line_for(error: BaseException) -> str | None:
    """What to say about an error that is none of the program's; None for one that is.

    Args:
        error: whatever a command raised.
    """
    if os.environ.get(TRACEBACK):
        return None
    if isinstance(error, OSError):
        return of_the_system(error)
    text = one_line(error)
    if isinstance(error, ValueError) and type(error).__module__.split(".")[0] in OWN:
        return text
    if isinstance(error, UnicodeEncodeError):
        return (f"{_excerpt(error)} cannot be written in the encoding {error.encoding}; set "
                "PYTHONUTF8=1, or take plain letters")
    if isinstance(error, UnicodeDecodeError):
        return (f"a file is no text in {error.encoding}: byte 0x{error.object[error.start]:02x} at "
                f"{error.start}; save it as UTF-8")
    if isinstance(error, UnicodeError):
        return f"text that cannot be read or written: {text}"
    if isinstance(error, RecursionError):
        return "something given is nested too deeply; look at the file of settings"
    if isinstance(error, MemoryError):
        return f"not enough memory ({text}); take smaller batches or fewer images"
    if isinstance(error, json.JSONDecodeError):
        return f"a JSON file is damaged ({text}); the stage that writes it makes it anew"
    if isinstance(error, zlib.error | zipfile.BadZipFile | EOFError):
        return f"a file is damaged or cut off ({text}); put it there anew"
    kind = f"{type(error).__module__.split('.')[0]}.{type(error).__name__}"
    if "SafetensorError" in kind:
        return f"a safetensors file cannot be read or written ({text})"
    if kind == "torch.OutOfMemoryError" or (isinstance(error, RuntimeError) and "allocate memory" in text):
        return f"not enough memory ({text[:160]}); take smaller batches or fewer images"
    return None


def of_the_system(error: OSError) -> str:
    """Where, why, and what to do, of something that the system refused."""
    reason = error.strerror or one_line(error)
    names = [os.fsdecode(name) for name in (error.filename, error.filename2)
             if isinstance(name, str | bytes | os.PathLike)]
    where = f"{' -> '.join(map(printable, names))}: " if names else ""
    hint = HINTS.get(error.errno)
    return f"{where}{reason}" + (f"; {hint}" if hint else "")


def one_line(error: BaseException) -> str:
    """An error's message in one printable line, or its kind."""
    return printable(" ".join(str(error).split())[:300]) or type(error).__name__


def printable(text: str) -> str:
    """Text whose control characters and lone surrogates are spelled out: names of files may hold any."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _excerpt(error: UnicodeEncodeError) -> str:
    return repr(error.object[error.start:error.end][:20]).encode("ascii", "backslashreplace").decode()


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """A terminal or log that is no UTF-8 gets escapes for what it cannot show, not an error; one that is closed
    takes what is written and forgets it."""
    closed = [name for name in ("stdout", "stderr") if getattr(sys, name) is None]
    for name in closed:
        setattr(sys, name, _nowhere({"stdout": 1, "stderr": 2}[name]))
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            # A lone surrogate, as from a file's undecodable name, is an error even in UTF-8.
            if stream.errors in ("strict", "surrogateescape"):
                stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for name in closed:
            getattr(sys, name).close()
            setattr(sys, name, None)


def _nowhere(descriptor: int) -> TextIO:
    """A stream that forgets; its descriptor too, which the next file that is opened would get otherwise."""
    with contextlib.suppress(OSError):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
    return open(os.devnull, "w", encoding="utf-8")


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks on; a stream may be closed, or missing."""
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return stream is not None and stream.isatty()
    return False


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends the block as an exception does, so that what was begun is cleared away."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number, frame):
        raise Terminated
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def flush() -> None:
    """Hand what was printed on while an error can still be said.

    Raises:
        OSError: the disk behind the output is full, or nobody reads it.
    """
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def close_output(stream: TextIO | None = None) -> None:
    """Let nothing more be written to a stream, else stdout: Python would try at its end, and complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, (stream or sys.stdout).fileno())
        os.close(nowhere)


def to_stderr(line: str) -> None:
    """A line on stderr; where that is full or closed, none, and the exit code is what says it."""
    try:
        print(line, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        close_output(sys.stderr)
