"""A path is taken as it is named: brackets, stars and question marks in it are no pattern."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import numpy as np
import pytest

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from pipelines.commands import given_images
from pipelines.support import settings
from pipelines.training import numbered
from pipelines.visit import queue
from port.checkpoints import run_folder
from port.training import resume

GOLDEN = REPOSITORY / "parity_tests" / "fixtures" / "goldens" / "options" / "enc_linear"
ODD = ("run[1]", "run*", "run?")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)


def calls(package: str):
    """Every call of glob and rglob in a package: where, and its pattern."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and \
                    node.func.attr in ("glob", "rglob", "iglob"):
                yield f"{path.relative_to(REPOSITORY)}:{node.lineno}", node.args[0]


@pytest.mark.parametrize("package", ["port", "reference", "pipelines"])
def test_no_pattern_holds_a_name_that_somebody_gave(package) -> None:
    """A pattern is words of this project's own: literals, CONSTANTS, and the stems of its files."""
    for where, pattern in calls(package):
        parts = pattern.values if isinstance(pattern, ast.JoinedStr) else [pattern]
        for part in (getattr(part, "value", part) for part in parts if not isinstance(part, ast.Constant)):
            text = ast.unparse(part)
            own = text.isupper() or text == "stem" or text.endswith(".OLD") or text == "entry.seed"
            assert own, f"{where}: {ast.unparse(pattern)}; compare names of iterdir(), or escape them"
    text = "".join(path.read_text() for path in (REPOSITORY / package).rglob("*.py"))
    assert "import glob" not in text and "from glob" not in text  # it takes folders as patterns too


@pytest.mark.parametrize("name", ODD)
def test_a_run_s_folder(tmp_path, name, monkeypatch) -> None:
    """The one that is named is loaded, trained, continued and looked for, not its neighbour."""
    for folder, seed in ((tmp_path / "run1", 1), (tmp_path / name, 2)):
        port.save(runs.model(seed), folder)
        runs.run(folder / "checkpoints", steps=5 * seed)
    found, expected = (model.state_dict() for model in (port.load(name), runs.model(2)))
    assert all(map(np.array_equal, found.values(), expected.values()))
    assert [path.name for path in resume.checkpoints(Path(name) / "checkpoints")] == [
        "step-00000005", "step-00000010"]
    assert run_folder.located(name) == Path(name)
    work = tmp_path / "work"
    for entry in ("run1-0-abc", f"{name}-0-abc"):
        shutil.copytree(tmp_path / name / "checkpoints", work / "checkpoints" / entry)
    assert [path.name for path in queue.checkpoints_of(work, queue.Entry(name, 0))] == [f"{name}-0-abc"]


@pytest.mark.parametrize("name", ODD)
def test_a_run_s_name(tmp_path, name) -> None:
    preset = settings.load_preset("digits", path=REPOSITORY / "params.yaml")
    other, folder = (numbered.begin(preset, each) for each in ("run1", name))
    assert numbered.latest(name) == folder != other and numbered.numbers(name) == [1]
    (folder / "checkpoints" / "digits-7-abc").mkdir(parents=True)
    assert numbered.seed_of(folder) == 7 and numbered.seed_of(other) is None
    assert numbered.unfinished(preset, name, 7) == folder and numbered.unfinished(preset, "run1", 7) is None


@pytest.mark.parametrize("name", ODD)
def test_a_file_or_folder_of_images(tmp_path, name) -> None:
    for folder, value in ((tmp_path / "run1", 10), (tmp_path / name, 20)):
        folder.mkdir()
        np.save(folder / f"{name}.npy", np.full((1, 8, 8), value, np.uint8))
    for path in (Path(name), Path(name) / f"{name}.npy"):
        assert given_images.read(path, 1, 8).images.unique().tolist() == [20]


def test_a_checkpoint_and_its_recording(tmp_path, capsys) -> None:
    """Converted, looked at and found again by the very name; the digest in the card is of what was read."""
    place = tmp_path / "golden[1]"
    shutil.copytree(GOLDEN, place)
    shutil.copytree(GOLDEN.parent / "vote_soft", tmp_path / "golden1")
    checkpoint = str(place / "checkpoint")
    assert cli.main(["convert", checkpoint, "out[1]", "--config", str(place), "--no-verify"]) == 0
    opened = port.read_checkpoint(checkpoint)
    opened.load()
    other = port.read_checkpoint(str(tmp_path / "golden1" / "checkpoint"))
    kept = port.checkpoint.load_metadata("out[1]")["source_sha256"]
    assert kept == opened.load()[1] != other.load()[1]
    assert kept in (tmp_path / "out[1]" / "README.md").read_text()
    assert cli.main(["convert", "--to", "tf", "out[1]", "back[1]/model.ckpt-1", "--no-verify"]) == 0
    assert cli.main(["inspect", "back[1]/model.ckpt-1"]) == 0
    capsys.readouterr()


def test_a_results_folder(tmp_path) -> None:
    changed = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.steps=1",
               "train.held_out_every=0", "train.batch_size=8",
               *(f"model.{key}={str(value).lower() if value is True else value}"
                 for key, value in runs.TINY.items())]
    preset = settings.load_preset("digits", changed, REPOSITORY / "params.yaml")
    folder = stage.run(preset, 0, "results[1]")
    assert folder == Path("results[1]/train/digits/0")
    assert port.load("results[1]").preprocessing.source == "digits"  # the only run in it
    assert cli.main(["reconstruct", str(folder), "--images", "2", "--out", "pictures[1]"]) == 0
    assert (tmp_path / "pictures[1]" / "templates.png").exists()
