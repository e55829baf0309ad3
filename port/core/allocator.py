"""Keeping the memory that a step frees for the next step, on a CPU.

Every step takes the same large tensors and frees them. The C library hands what is freed back to the system:
a block beyond its threshold at once, the end of its heap when that has grown, and the next step takes fresh
pages, each of which the system clears at its first touch. In the preset `mnist` that is 22,000 pages and about
a tenth of a step. Within `kept` freed memory stays with the process.

The arithmetic is the same; so are the results, to the bit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator

import torch

# Parameters of `mallopt`, and the values that they have without it (glibc, malloc.h; mallopt(3)).
TRIM_THRESHOLD, MMAP_MAX = -1, -4
BEFORE = {TRIM_THRESHOLD: 128 * 1024, MMAP_MAX: 65536}
KEPT = {TRIM_THRESHOLD: 2**31 - 1, MMAP_MAX: 0}
# Whoever sets one of these has decided it himself.
ENVIRONMENT = ("GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_",
               "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX")

_depth = 0


def can_keep() -> bool:
    """Whether this is glibc, and nobody has set its allocator in the environment."""
    return platform.libc_ver()[0] == "glibc" and not any(os.environ.get(name) for name in ENVIRONMENT)


@contextlib.contextmanager
def kept(device: torch.device | str) -> Iterator[bool]:
    """Freed memory stays with the process within the block, and goes back to the system at its end.

    Blocks may lie within each other; the outermost counts. Elsewhere than on glibc nothing is done.

    Args:
        device: that computes within the block; nothing is done for another than a CPU.

    Returns:
        Yields whether it is in force.
    """
    global _depth
    if torch.device(device).type != "cpu" or not can_keep():
        yield False
        return
    library = ctypes.CDLL(None)
    if not _depth:
        _set(library, KEPT)
    _depth += 1
    try:
        yield True
    finally:
        _depth -= 1
        if not _depth:
            _set(library, BEFORE)
            library.malloc_trim(0)


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for parameter, value in values.items():
        library.mallopt(parameter, value)
