"""A cache of the compiler that cannot be written is another folder, not the end of `import port`."""

from __future__ import annotations

import getpass
import os
import tempfile
from pathlib import Path

import pytest

from parity_tests import goldens
from port.core import compiler_cache


def test_a_folder_that_works_is_kept(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(compiler_cache.VARIABLE, str(tmp_path / "deep" / "cache"))
    assert compiler_cache.prepare() is None
    assert os.environ[compiler_cache.VARIABLE] == str(tmp_path / "deep" / "cache")


@pytest.mark.parametrize("place", ["/proc/nowhere", "/dev/null/x", "a file"])
def test_a_folder_that_cannot_be_written(place: str, tmp_path, monkeypatch) -> None:
    if place == "a file":
        (tmp_path / "file").write_text("")
        place = str(tmp_path / "file")
    monkeypatch.setenv(compiler_cache.VARIABLE, place)
    made = compiler_cache.prepare()
    assert made and os.environ[compiler_cache.VARIABLE] == made and Path(made).is_dir()


def test_a_user_without_a_name(monkeypatch) -> None:
    """As in a container that runs under a number alone."""
    def nobody():
        raise KeyError("getpwuid(): uid not found: 12345")
    monkeypatch.delenv(compiler_cache.VARIABLE, raising=False)
    monkeypatch.setattr(getpass, "getuser", nobody)
    assert compiler_cache.prepare()
    monkeypatch.delenv(compiler_cache.VARIABLE)


def test_no_folder_at_all(monkeypatch) -> None:
    """torch says so then, if it compiles."""
    def full(*_, **__):
        raise OSError(28, "No space left on device")
    monkeypatch.setenv(compiler_cache.VARIABLE, "/proc/nowhere")
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    assert compiler_cache.prepare() is None


def test_it_comes_before_torch() -> None:
    """The package imports it first: torch makes its folder while it is imported."""
    lines = (goldens.REPOSITORY / "port" / "__init__.py").read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if line.startswith(("from ", "import ")))
    assert first.startswith("from port.core import compiler_cache")
