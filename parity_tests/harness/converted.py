"""Converted fixtures and refused commands, for the tests of `scae convert`, `verify` and `record`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from parity_tests import goldens
from parity_tests.goldens import Golden
from pipelines import cli
from port.checkpoints import model_folder

FIXTURES = [golden for golden in goldens.models() if golden.folder.is_relative_to(goldens.HERE)]
FIXTURE = next(golden for golden in FIXTURES if golden.name.endswith("vote_soft"))


def ckpt(golden: Golden) -> str:
    """The checkpoint's folder."""
    return str(golden.folder / "checkpoint")


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    """The one line that a command with exit code 2 leaves on stderr."""
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1, error
    return error


def convert_fixture(out: Path) -> Path:
    """The fixture converted with its recording's whole configuration, unproven."""
    assert cli.main(["convert", ckpt(FIXTURE), str(out), "--config", str(FIXTURE.folder),
                     "--no-verify"]) == 0
    return out


def copy(folder: Path, target: Path, changed: dict[str, torch.Tensor] | None = None) -> Path:
    """A converted folder with some tensors of the model changed."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    if changed:
        state = load_file(target / "model.safetensors")
        save_file(state | changed, target / "model.safetensors", model_folder.load_metadata(folder))
    return target
