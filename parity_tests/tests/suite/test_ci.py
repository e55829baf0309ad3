"""`.ci/run` where make says what pytest would: a stranger's case, and the sum of both runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY

# `make env` and `make test` that show where they run; the shared run's counts differ.
MAKEFILE = r'''
env:
	@echo "set-up with home $$HOME"
	@exit $(SETUP)
test:
	@env | cut -d= -f1 | sort | grep -Ev '^(_|PWD|SHLVL|OLDPWD|MAKE.*|MFLAGS|PYTEST_ARGS)$$' \
		| paste -sd' ' | sed 's/^/environment: /'
	@echo "home holds $$(ls -A "$$HOME" | wc -l), beside the clone: $$(ls .. | paste -sd' ')"
	@echo "=== $(if $(PYTEST_ARGS),$(SHARED),$(ALONE)) in 1.50s ==="
	@exit $(if $(PYTEST_ARGS),$(SHARED_CODE),$(ALONE_CODE))
'''
GOOD = {"SETUP": "0", "ALONE": "20 passed, 3 skipped", "ALONE_CODE": "0",
        "SHARED": "7 passed, 20 deselected, 2 warnings", "SHARED_CODE": "0"}


def ci(folder: Path, shared: bool = True, **changes: str) -> tuple[int, list[str]]:
    """The exit code and the lines of `.ci/run` in a small checkout."""
    checkout = folder / "checkout"
    (checkout / ".ci").mkdir(parents=True)
    shutil.copy(REPOSITORY / ".ci" / "run", checkout / ".ci")
    told = "".join(f"{name} := {value}\n" for name, value in (GOOD | changes).items())
    (checkout / "Makefile").write_text(told + MAKEFILE)
    if shared:
        (folder / "shared" / "goldens").mkdir(parents=True)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *words], cwd=checkout, check=True)
    (checkout / "not committed").write_text("no part of the clone")
    around = {name: value for name, value in os.environ.items() if not name.startswith(("SCAE_", "MAKE"))}
    (folder / "temporary").mkdir()
    done = subprocess.run([checkout / ".ci" / "run"], capture_output=True, text=True, env=around | {
        "TMPDIR": str(folder / "temporary"), "SCAE_CI_ROOM_GB": "0", "SECRET": "of this machine"})
    assert not list((folder / "temporary").iterdir()), "something was left behind"
    return done.returncode, done.stdout.splitlines()


def test_two_runs_are_summed_on_the_last_line(tmp_path: Path) -> None:
    """Nothing beside the clone at first, then the recordings; no variable of this machine in either."""
    code, lines = ci(tmp_path)
    assert (code, lines[-1]) == (0, "27 passed, 0 failed, 3 skipped")
    assert [line for line in lines if line.startswith("environment")] == ["environment: CI HOME PATH"] * 2
    assert [line for line in lines if line.startswith("home")] == [
        "home holds 0, beside the clone: repository", "home holds 0, beside the clone: repository shared"]
    assert f"set-up with home {os.environ.get('HOME', '')}" in lines


@pytest.mark.parametrize(("changes", "code", "last"), [
    ({"ALONE": "8 failed, 12 passed, 3 skipped", "ALONE_CODE": "2"}, 1,
     "19 passed, 8 failed, 3 skipped"),
    ({"SHARED": "1 failed, 6 passed, 1 error", "SHARED_CODE": "2"}, 1, "26 passed, 2 failed, 3 skipped"),
    ({"ALONE": "no tests ran", "ALONE_CODE": "3"}, 1, "7 passed, 1 failed, 0 skipped"),
    ({"SHARED": "Interrupted: 2 errors", "SHARED_CODE": "2"}, 1, "20 passed, 2 failed, 3 skipped"),
    ({"SETUP": "1"}, 1, "0 passed, 1 failed")],
    ids=["alone", "shared", "nothing counted", "not collected", "set-up"])
def test_a_failure_of_either_run_is_counted(tmp_path: Path, changes: dict[str, str], code: int, last: str
                                            ) -> None:
    found, lines = ci(tmp_path, **changes)
    assert (found, lines[-1]) == (code, last), lines


def test_without_the_recordings_that_is_said(tmp_path: Path) -> None:
    code, lines = ci(tmp_path, shared=False)
    assert (code, lines[-1]) == (0, "20 passed, 0 failed, 3 skipped")
    assert "only the committed recordings were compared" in lines[-2]
