"""What a result says it was measured with: the revision of the code, and the device."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from pipelines.support import environment
from pipelines.support.values import BadInput

FILES = ("pipelines/support/environment.py", "pipelines/results/paper.py", "port/core/ops.py", "params.yaml",
         "results/table.json", "dvc.lock", "pipelines/dvc.lock")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(("git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments),
                          check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of a few files, one of which is taken for the module's own."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / FILES[0]))
    monkeypatch.delenv("SCAE_REVISION", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", FILES)
def test_changed_files_are_noted_unless_they_are_results(name: str, checkout: Path) -> None:
    """A `+` stands for code or settings that the revision does not have, in whatever folder."""
    revision = git(checkout, "rev-parse", "--short=10", "HEAD")
    assert environment.revision() == revision
    (checkout / name).write_text("y\n")
    is_result = name.startswith("results/") or name.endswith(".lock")
    assert environment.revision() == revision + ("" if is_result else "+")


def test_an_installed_copy_has_no_revision(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository around an environment is not ours."""
    installed = checkout / "env/lib/pipelines/support/environment.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("x\n")
    monkeypatch.setattr(environment, "__file__", str(installed))
    assert environment.revision() == "unknown"
    monkeypatch.setenv("SCAE_REVISION", "told")
    assert environment.revision() == "told"


def test_a_revision_is_looked_for(checkout: Path) -> None:
    revision = environment.revision()
    assert environment.is_here(revision) and environment.is_here(revision + "+")
    assert environment.is_here("0123456789") is False and environment.is_here("unknown") is False
    (checkout / ".git/shallow").write_text(git(checkout, "rev-parse", "HEAD") + "\n")
    assert environment.is_here("0123456789") is None


def test_every_committed_result_was_made_at_a_commit_that_is_here() -> None:
    """A mistyped revision would point at no code at all."""
    if environment.is_here("HEAD") is None:
        pytest.skip("no repository with all of its commits")
    files = [name for name in environment.git("ls-files", "results").splitlines() if name.endswith("/environment.json")]
    said = {name: json.loads((REPOSITORY / name).read_text(encoding="utf-8")).get("revision") for name in files}
    wrong = [f"{name}: {revision}" for name, revision in said.items() if revision and not environment.is_here(revision)]
    assert len(said) > 50 and not wrong


def test_another_gpu_than_the_current_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams and captured steps go to the current one; the message says how to choose."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("the GPU was started"))
    assert environment.choose_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert environment.choose_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(BadInput, match=r"'cuda:1' is not the current GPU.*CUDA_VISIBLE_DEVICES=1"):
        environment.choose_device("cuda:1")
