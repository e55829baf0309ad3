"""What the reference computed for an example, kept while many programs are held to it.

Judging a planted bug of the port runs the same examples through the same reference each time; inside
`keeping()` each of them is computed once. Nothing is kept outside of it, and nothing from run to run.

Why this cannot hide a bug: only results of the *reference* are kept, never of the program under test
or of a comparison; they are kept by the content of the example (every array's bytes, every argument);
and they belong to the reference package that is loaded, so a reference with a bug planted in it starts
with nothing kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import weakref
from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")

# Reference package → what it computed. A package that is imported anew is another key.
_STORES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_KEEPING = [False]


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Within the block results of the reference are looked up before they are computed."""
    before, _KEEPING[0] = _KEEPING[0], True
    try:
        yield
    finally:
        _KEEPING[0] = before


def kept(name: Hashable, owner: object, example: Any, compute: Callable[[], Value]) -> Value:
    """The reference's result for an example: the kept one inside `keeping()`, else a new one.

    Args:
        name: which result.
        owner: whose, by identity; a row of the registry.
        example: a dataclass of arrays and plain arguments.
        compute: gives the result; nothing of the program under test may go into it.
    """
    package = sys.modules.get("reference")
    if not _KEEPING[0] or package is None:
        return compute()
    store = _STORES.setdefault(package, {})
    key = name, id(owner), digest(example)
    if key not in store:
        store[key] = owner, compute()  # the owner lives as long as the key that holds its identity
    return store[key][1]


def digest(example: Any) -> str:
    """Content of an example: of every array dtype, shape and bytes, of everything else its text."""
    found = hashlib.blake2b(digest_size=16)
    _feed(found, vars(example))
    return found.hexdigest()


def _feed(into: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        into.update(f"array {value.dtype} {value.shape}".encode())
        into.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, dict):
        into.update(b"{")
        for name, entry in value.items():
            into.update(f"{name!r}:".encode())
            _feed(into, entry)
        into.update(b"}")
    elif isinstance(value, list | tuple):
        into.update(b"[")
        for entry in value:
            _feed(into, entry)
            into.update(b",")
        into.update(b"]")
    else:
        into.update(repr(value).encode())

