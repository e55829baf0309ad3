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


def test_the_commands_elsewhere(unpacked: Path, tmp_path: Path) -> None:
    """Each command as it is typed, in one process: its exit code and what it says."""
    commands = {
        "help": ["--help"], "inspect": ["inspect", str(CHECKPOINT)],
        "convert": ["convert", str(CHECKPOINT), "converted", "--config",
                    str(CHECKPOINT.parent / "manifest.json"), "--no-verify"],
        "preset": ["convert", str(CHECKPOINT), "no", "--preset", "digits", "--no-verify"],
        "train": ["train", "--preset", "digits", "--results", "results", *(
            word for value in SMALL for word in ("--set", value))],
        "report": ["report", "results/train/digits/0"],
        "missing": ["train", "--params", "others.yaml"]}
    code = ("import json, sys\nfrom pipelines import cli, parity\n"
            "found = {name: cli.main(words) for name, words in json.loads(sys.argv[1]).items()}\n"
            "found['parity'] = parity.main([])\n"
            "print('FOUND', json.dumps(found | {'file': cli.__file__}))")
    # Kernels would be compiled anew for their new place.
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith(("PYTEST", "SCAE"))}
    environment |= {"PYTHONPATH": str(unpacked), "SCAE_KERNELS": "off"}
    done = subprocess.run([sys.executable, "-c", code, json.dumps(commands)], cwd=tmp_path, text=True,
                          capture_output=True, env=environment)
    assert "FOUND" in done.stdout, done.stderr
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    assert Path(found.pop("file")).is_relative_to(unpacked)
    good, refused = ("help", "inspect", "convert", "train", "report"), ("preset", "missing", "parity")
    assert found == dict.fromkeys(good, 0) | dict.fromkeys(refused, 2), done.stdout + done.stderr
    # The preset is there and is another model's; a file that is named and missing has no stand-in.
    assert "contradicts the checkpoint" in done.stderr and "cannot read others.yaml" in done.stderr
    assert "the suite runs in the repository" in done.stderr
    assert (tmp_path / "results/runs.html").is_file()
