"""The one error of everything that reads a checkpoint, and how its names are shown."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint or model folder that cannot be read; the message says what, where and what to do."""


class Malformed(ValueError):
    """Bytes that break their format; whoever knows the file turns it into a `CheckpointError`."""


def printable(text: str | bytes, most: int = 200) -> str:
    r"""A name from a file, fit for a terminal: what is not printable becomes `\x1b`, a long name is cut.

    Args:
        text: as the file has it; bytes are read as UTF-8.
        most: characters that are shown.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    shown = text[:most] + "…" * (len(text) > most)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
