"""A wheel holds all that the commands need: built from the tree, unpacked, and used from another folder."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY
from parity_tests.tests.pipelines.built_wheel import build_wheel
from pipelines import cli

pytestmark = pytest.mark.skipif(importlib.util.find_spec("setuptools") is None,
                                reason="setuptools is not installed")
CHECKPOINT = REPOSITORY / "parity_tests/fixtures/goldens/options/enc_linear/checkpoint"
# As small as a preset's model gets by --set.
SMALL = ("train.steps=1", "train.held_out_images=8", "model.output_channels=[4, 4, 4, 4]", "model.n_dims=8",
         "model.n_part_caps=4", "model.n_obj_caps=4", "model.n_output_dims=8", "model.n_hiddens=8")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installer puts into site-packages."""
    at = tmp_path_factory.mktemp("wheel")
    wheel = build_wheel(at)
    with zipfile.ZipFile(wheel) as file:
        file.extractall(at / "site")
    return at / "site"


def test_what_is_no_python_is_inside(unpacked: Path) -> None:
    there = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    pages = {path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "pipelines").rglob("*.html")}
    queues = {path.relative_to(REPOSITORY).as_posix()
              for path in (REPOSITORY / "pipelines").rglob("queue.yaml")}
    assert pages and queues and pages | queues | {"pipelines/params.yaml"} <= there
    assert (unpacked / "pipelines/params.yaml").read_text() == (REPOSITORY / "params.yaml").read_text()
    assert not [name for name in there if "fixtures" in name]


RUN = "results/train/digits/0"
SETTINGS = [word for value in SMALL for word in ("--set", value)]
# Each command as it is typed elsewhere; the presets are those in the package.
COMMANDS = {
    "help": ["--help"], "inspect": ["inspect", str(CHECKPOINT)],
    "convert": ["convert", str(CHECKPOINT), "converted", "--config", str(CHECKPOINT.parent / "manifest.json"),
                "--no-verify"],
    "train": ["train", "--preset", "digits", "--results", "results", *SETTINGS],
    "evaluate": ["evaluate", "--preset", "digits", *SETTINGS, "--set", "evaluate.require_learning=false"],
    "aggregate": ["aggregate", "--preset", "digits", *SETTINGS, "--set", "evaluate.require_learning=false"],
    "add": ["add", RUN, "--results", "taken", "--no-evaluate"], "reconstruct": ["reconstruct", RUN, "--images", "2"],
    "export of a folder": ["export", RUN, "model", "--format", "folder"],
    "report": ["report"], "report of a run": ["report", RUN]}
# With seconds of compiling or TensorFlow.
LONG = {
    "export": ["export", RUN, "model.pt2"], "equivariance": ["equivariance", RUN],
    "verify": ["verify", str(CHECKPOINT), "converted"],
    "record": ["record", str(CHECKPOINT), "recorded", "--config", str(CHECKPOINT.parent / "manifest.json")],
    "bench": ["bench", "--preset", "digits", "--batch-size", "2", "--repeats", "1", "--no-plain"]}
# Refused in one line each: what that line says. `parity` is the stage, which needs the repository.
REFUSED = {
    "preset": (["convert", str(CHECKPOINT), "no", "--preset", "digits", "--no-verify"], "contradicts the checkpoint"),
    "missing": (["train", "--params", "others.yaml"], "cannot read others.yaml"),
    "no preset": (["train", "--preset", "nobody"], "nobody"),
    "no run": (["evaluate", "--preset", "mnist"], "results/train/mnist/0"),
    "parity": (["parity"], "the suite runs in the repository")}


def test_every_command_is_tried() -> None:
    assert {words[0] for words in (COMMANDS | LONG).values()} >= set(cli.typer.main.get_command(cli.app).commands)


def test_the_commands_elsewhere(unpacked: Path, tmp_path: Path, tier: str) -> None:
    """Each command as it is typed, in one process: its exit code and what it says."""
    commands = COMMANDS | (LONG if tier == "deep" else {})
    code = ("import contextlib, io, json, sys\nfrom pipelines import cli, parity\n"
            "def one(words):\n"
            "    said = io.StringIO()\n"
            "    with contextlib.redirect_stderr(said):\n"
            "        code = parity.main([]) if words == ['parity'] else cli.main(words)\n"
            "    return code, said.getvalue()\n"
            "found = {name: one(words) for name, words in json.loads(sys.argv[1]).items()}\n"
            "print('FOUND', json.dumps([cli.__file__, found]))")
    # Kernels would be compiled anew for their new place.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("PYTEST", "SCAE"))}
    environment |= {"PYTHONPATH": str(unpacked), "SCAE_KERNELS": "off"}
    asked = commands | {name: words for name, (words, _) in REFUSED.items()}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asked)], cwd=tmp_path, text=True,
                          capture_output=True, env=environment)
    assert "FOUND" in done.stdout, done.stderr
    file, found = json.loads(done.stdout.rpartition("FOUND")[2])
    assert Path(file).is_relative_to(unpacked)
    assert not {name: said for name, said in found.items() if name in commands and said[0] != 0}, done.stdout
    for name, (_, says) in REFUSED.items():
        code, line = found[name]
        assert code == 2 and says in line and len(line.splitlines()) == 1, (name, code, line)
    assert (tmp_path / "results/runs.html").is_file() and (tmp_path / "results/report.html").is_file()
