"""What `make lint` runs: the linter, the rules of imports, the type check."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY

TOOLS = {"ruff": ["check", "--no-cache", "."], "lint-imports": ["--no-cache"], "mypy": ["--no-incremental"]}


@pytest.mark.parametrize("tool", TOOLS)
def test_lint(tool: str, tier: str) -> None:
    """Nothing is found; a tool that is not in this environment checks nothing."""
    program = Path(sys.executable).with_name(tool)
    if tier == "smoke" or not program.is_file():
        pytest.skip("smoke tier: no processes" if tier == "smoke" else f"{tool} is not installed here")
    done = subprocess.run([program, *TOOLS[tool]], cwd=REPOSITORY, text=True, capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_make_lint_runs_them() -> None:
    """The recipe and this file name the same tools."""
    recipe = (REPOSITORY / "Makefile").read_text().partition("\nlint: env\n")[2].partition("\n\n")[0]
    assert [line.split(") ")[-1].split()[0] for line in recipe.splitlines()] == list(TOOLS)
