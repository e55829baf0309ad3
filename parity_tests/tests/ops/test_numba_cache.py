"""Kernels run where Numba cannot keep what it compiled."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from port.core import numba_cache
from port.em import kernel as em_kernel
from port.scae import pixel_backward, pixel_components, pixel_footprint, pixel_forward

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
    """The files of kernels hand their functions to the one place."""
    for module in (pixel_backward, pixel_components, pixel_forward, em_kernel):
        assert module.compiled is numba_cache.compiled
    assert pixel_footprint.without_arrays is numba_cache.without_arrays


@pytest.mark.parametrize("kernel, beside", [
    (pixel_forward.forward_examples, {"pixel_components.py", "pixel_footprint.py"}),
    (pixel_backward.backward_examples, {"pixel_components.py", "pixel_footprint.py"}),
    (pixel_footprint.trace, set())], ids=["forward", "backward", "footprint"])
def test_what_is_kept_depends_on_every_file(kernel, beside: set[str], monkeypatch) -> None:
    """A change of a file that a kernel calls makes what was kept stale."""
    files = numba_cache.files_called(kernel.py_func)
    assert {file.name for file in files} == beside
    fresh = numba_cache.compiled(kernel.py_func)
    assert fresh._cache._cache_file._source_stamp == kernel._cache._cache_file._source_stamp
    monkeypatch.setattr(numba_cache, "files_called", lambda _: [*files, Path(__file__)])
    other = numba_cache.compiled(kernel.py_func)
    assert other._cache._cache_file._source_stamp != fresh._cache._cache_file._source_stamp


def test_a_cache_without_a_stamp_is_done_without(monkeypatch) -> None:
    """Another Numba may keep its stamp elsewhere: nothing is kept then, and nothing stale comes back."""
    monkeypatch.setattr(numba_cache, "stamp", lambda *_: False)
    kernel = numba_cache.compiled(pixel_forward.forward_examples.py_func)
    assert not hasattr(kernel._cache, "_cache_file")
