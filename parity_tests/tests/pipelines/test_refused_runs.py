"""What `scae train` refuses: one line, exit code 2, no numbered run left behind; whatever the words and paths are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from pipelines.commands import train as command
from pipelines.support import console, settings
from pipelines.training import numbered, seeds
from port.training import loop

QUICK = ["train.steps=2", "train.batch_size=8", "train.held_out_every=0",
         "prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}",
         *(f"model.{key}={str(value).lower() if value is True else value}" for key, value in runs.TINY.items())]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)


def words(*more: str, quick: bool = True) -> list[str]:
    found = ["train", "--params", str(REPOSITORY / "params.yaml"), "--wandb", "none", *more]
    return [*found, *(word for change in QUICK if quick for word in ("--set", change))]


def refused(given: list[str], capsys, says: str) -> None:
    assert cli.main(given) == console.BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and says in said, said
    assert not list(Path().glob("runs/*")), "a numbered run is left"


@pytest.mark.parametrize(("given", "says"), [
    (["-N", "1" + "0" * 400], "epochs"), (["--set", "train.epochs=1" + "0" * 400], "epochs"),
    (["--set", "train.lr_decay_epochs=1" + "0" * 400], "lr_decay_epochs"),
    (["--set", "train.epochs=0"], "epochs must be at least 1"), (["--set", "train.epochs=1e18"], "at most"),
    (["--set", "train.epochs=1e15"], "steps must be at most"), (["--set", "train.epochs=[1]"], "epochs"),
    (["--set", "train.steps=1e30"], "steps must be at most"),
    (["--set", "train.lr_decay_steps=1e30"], "lr_decay_steps must be at most"),
    (["--set", "train.lr_restart_interval=1e30"], "lr_restart_interval must be at most"),
    (["--set", "model.model=[a]"], "model must be of type"), (["--set", "model.model={}"], "model must be of type"),
    (["--set", "prepare.options=[1]"], "options must be of type"),
    (["--set", "prepare.options=abc"], "options must be of type"),
    (["--set", "train.validation_images=5000"], "validation_images is 5000"),
    (["--set", "train.epochs=2", "--set", "train.validation_images=5000"], "validation_images is 5000"),
    (["--seeds", "3,-1"], "seed must be at least 0"), (["--seeds", "3,4294967296"], "seed must be at most"),
    (["--seeds", "3,x"], "whole numbers"), (["--seeds", "3,3"], "given twice")])
def test_options_that_cannot_be(given: list[str], says: str, capsys) -> None:
    refused(words(*given, quick=not {"-N", "prepare.options", "train.steps"} & {
        word.partition("=")[0] for word in given}), capsys, says)


@pytest.mark.parametrize(("options", "says"), [
    ("[1]", "options must be of type"), ("abc", "options must be of type"), ("{path: /etc}", "write prepare.path"),
    ("{size: 8}", "write prepare.size"), ("{test_shore: 0.5}", "did you mean 'test_share'")])
def test_options_of_own_images(options: str, says: str, capsys, tmp_path) -> None:
    pictures(tmp_path / "img")
    refused(words("--data", "img", "--set", f"prepare.options={options}", quick=False), capsys, says)


def pictures(folder: Path) -> None:
    for name in ("ant", "bee"):
        (folder / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (16, 16), 40 * i).save(folder / name / f"{i}.png")


@pytest.mark.parametrize("error", [MemoryError("8 TiB"), RuntimeError("can't allocate memory: you tried"),
                                   OSError(28, "No space left on device", "x"), console.Ended(2)])
def test_whatever_is_refused_later(error: Exception, capsys, monkeypatch) -> None:
    """The data are prepared by then, and the curves have a folder."""
    def train(*args, **more):
        assert list(Path("runs/digits/1/train/digits/0").iterdir())
        raise error
    monkeypatch.setattr(loop, "train", train)
    assert cli.main(words()) == console.BAD_INPUT
    assert not list(Path().glob("runs/*"))


@pytest.mark.parametrize(("error", "code"), [(loop.Interrupted(15), 143), (console.Ended(130), 130)])
def test_a_run_that_was_stopped_stays(error: Exception, code: int, capsys, monkeypatch) -> None:
    def train(*args, **more):
        raise error
    monkeypatch.setattr(loop, "train", train)
    assert cli.main(words("--log-run-name", "ü ñ")) == code
    assert list(Path("runs/ü ñ").iterdir()) and "--resume --log-run-name 'ü ñ'" in capsys.readouterr().out


def test_hints_can_be_typed(capsys, monkeypatch) -> None:
    monkeypatch.setattr(stage, "run", lambda *args, **more: None)
    assert cli.main(words("--log-run-name", "ü ñ")) == 0
    assert "scae evaluate --params 'runs/ü ñ/1/params.json' " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pics \N{GRINNING FACE}", "pi: cs #", "a\udcffb", "tab\t\x7f", '"q"', "12"])
def test_a_path_of_any_letters(name: str, tmp_path, monkeypatch) -> None:
    """On the command line, and in the params file of the run that goes on."""
    pictures(tmp_path / name)
    monkeypatch.setattr(stage, "run", lambda *args, **more: None)
    assert cli.main(words("--data", name, quick=False)) == 0
    assert numbered.stored(Path("runs/digits/1")).sections["prepare"]["path"] == name
    chosen = settings.load_preset("digits", [f"train.continue_from={json.dumps(name)}"], REPOSITORY / "params.yaml")
    assert chosen.sections["train"]["continue_from"] == name


@pytest.mark.parametrize("what", ["picture", "class"])
def test_a_name_of_several_lines(what: str, capsys, tmp_path) -> None:
    """A message stays one line, and no escape code reaches the terminal."""
    pictures(tmp_path / "img")
    strange = "x\n\x1b[31my"
    if what == "picture":
        (tmp_path / "img" / "ant" / f"{strange}.png").write_bytes(b"no picture")
    else:
        (tmp_path / "img" / strange).mkdir()
    refused(words("--data", "img", quick=False), capsys, r"x\n\x1b[31my")


def test_the_reader_of_several_seeds_goes_away(tmp_path) -> None:
    """As for one seed: 141, without a word; the processes are stopped as by SIGTERM."""
    code = "import sys; from pipelines import cli; sys.exit(cli.main(sys.argv[1:]))"
    given = words("--seeds", "0,1", "--results", "r", "--set", "train.threads=1")
    given = [word.replace("train.steps=2", "train.steps=100000") for word in given]
    process = subprocess.Popen([sys.executable, "-c", code, *given], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    with process:
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == 141 and "Traceback" not in said, said


def test_a_full_disk_behind_the_output_of_several_seeds() -> None:
    """Why nothing can be printed is told to who waits, and the process is read to its end."""
    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None: ...
    lost: list[OSError] = []
    process = subprocess.Popen([sys.executable, "-c", "for i in range(100000): print(i)"], stdout=subprocess.PIPE,
                               text=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        seeds.hand_on(process, 0, lost)
    assert len(lost) == 1 and process.wait(timeout=60) == 0


def test_a_run_begins_with_a_checkpoint_or_a_model(tmp_path) -> None:
    assert command  # what removes the others
    (tmp_path / "train/digits/0/live").mkdir(parents=True)
    (tmp_path / "checkpoints/.digits-0-1.lock").parent.mkdir()
    assert not numbered.has_begun(tmp_path)
    (tmp_path / "train/digits/0/model").mkdir()
    assert numbered.has_begun(tmp_path)
