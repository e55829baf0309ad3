"""The second stage of the random bugs: a test that fails without a bug catches none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from parity_tests.mutants import random_bugs
from parity_tests.mutants.random_bugs import SourceMutant, Tree

FILES = {
    "port/__init__.py": "",
    "port/core/ops.py": "SIDE = 3\n",
    "results/table.json": "1\n",
    ".gitignore": "/results/\n",
    "parity_tests/__init__.py": "",
    "parity_tests/conftest.py": "def pytest_addoption(parser):\n    parser.addoption('--tier')\n"
                                "    parser.addoption('--parity-json')\n",
    "parity_tests/tests/suite/test_mutants.py": "def test_mutants():\n    raise AssertionError('left out')\n",
    # Fails in every copy, since an earlier run's results are no part of the repository.
    "parity_tests/test_first.py": "from pathlib import Path\n\ndef test_the_table():\n"
                                  "    assert Path('results/table.json').is_file()\n",
    "parity_tests/test_second.py": "from port.core.ops import SIDE\n\ndef test_side():\n    assert SIDE > 2\n"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny repository whose suite has a failing test without any bug."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    monkeypatch.setattr(random_bugs, "REPOSITORY", tmp_path)
    return tmp_path


def mutant(text: str) -> SourceMutant:
    return SourceMutant("one", "port/core/ops.py", "3", text, "", text=f"SIDE = {text}\n")


def test_only_what_passes_without_a_bug_catches_one(repository: Path) -> None:
    tree = Tree()
    assert tree.failing == ["parity_tests/test_first.py::test_the_table"]
    assert tree.judge(mutant("4")) == ""
    assert tree.judge(mutant("2")) == "parity_tests/test_second.py::test_side"
    assert (repository / "port/core/ops.py").read_text() == "SIDE = 3\n"


def test_a_suite_that_does_not_run_judges_nothing(repository: Path) -> None:
    (repository / "parity_tests" / "conftest.py").write_text("")
    with pytest.raises(RuntimeError, match="(?s)unmutated copy ended with 4.*unrecognized arguments"):
        Tree()


def test_the_unmutated_program_is_the_program() -> None:
    one = random_bugs.unmutated()
    assert one.source() == (random_bugs.REPOSITORY / one.file).read_text()


def test_what_runs_out_of_time_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever exception the alarm has become on its way."""
    def endless(*_: object, **__: object) -> None:
        try:
            while True:
                pass
        except TimeoutError:
            raise ValueError("flaky") from None
    monkeypatch.setattr(random_bugs, "TIME_LIMIT_S", 0.05)
    monkeypatch.setattr(random_bugs, "catch", endless)
    row = random_bugs.judge(random_bugs.unmutated())
    assert (row["kind"], row["message"]) == ("time limit", "no answer within 0.05 s of processor time")
