"""Kernels run where Numba cannot keep what it compiled."""

from __future__ import annotations

import errno

import pytest

from port.core import numba_cache
from port.em import kernel as em_kernel
from port.scae import pixel_kernel

numba = pytest.importorskip("numba")


def twice(x):
    return 2 * x


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), EOFError("cut off"),
                                   PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("method", ["load", "save"])
def test_a_cache_that_fails_is_done_without(monkeypatch, error: Exception, method: str) -> None:
    """A full disk, a folder of another user, half a file: the kernel is compiled all the same."""
    asked = []

    def fail(*_):
        asked.append(method)
        raise error
    kernel = numba_cache.compiled(twice)
    monkeypatch.setattr(kernel._cache._cache_file, method, fail)
    monkeypatch.setattr(kernel._cache._cache_file, "load" if method == "save" else "save", lambda *_: None)
    assert kernel(3) == 6 and asked == [method]
    assert kernel(3.5) == 7.0 and asked == [method], "asked once, then no more"


def test_no_folder_for_a_cache(monkeypatch) -> None:
    """Numba refuses at the decorator: compiled without a cache."""
    njit = numba.njit

    def without_folder(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)
    monkeypatch.setattr(numba_cache.numba, "njit", without_folder)
    assert numba_cache.compiled(twice)(4) == 8


def test_without_numba(monkeypatch) -> None:
    monkeypatch.setattr(numba_cache, "numba", None)
    assert numba_cache.compiled(twice) is twice


def test_every_kernel_goes_through_it() -> None:
    """The two files of kernels hand their functions to the one place."""
    for module in (pixel_kernel, em_kernel):
        assert module.compiled is numba_cache.compiled
