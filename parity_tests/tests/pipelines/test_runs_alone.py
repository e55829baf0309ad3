"""One process a run, whole folders of results, children that follow their parent."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from pipelines.support import children, console, locks, output, run_folders, settings, values
from port.checkpoints import run_folder
from port.core import swap
from port.training import resume

TINY = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.steps=4",
        "train.log_every=2", "train.checkpoint_every=2", "train.held_out_every=0", "train.batch_size=8",
        *(f"model.{key}={str(value).lower() if value is True else value}"
          for key, value in runs.TINY.items())]
PARAMS = str(REPOSITORY / "params.yaml")


def preset(*changed: str) -> settings.Preset:
    return settings.load_preset("digits", [*TINY, *changed], PARAMS)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[float, Path]:
    """Two runs that differ in their learning rate, by it."""
    found = {}
    for rate in (1e-3, 1e-2):
        folder = tmp_path_factory.mktemp("trained")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            found[rate] = stage.run(preset(f"train.lr={rate}"), 0, folder / "results")
    return found


def copies(trained: dict[float, Path], place: Path) -> list[Path]:
    return [shutil.copytree(folder, place / str(i)) for i, folder in enumerate(trained.values())]


# ------------------------------------------------------------------------------------------ whole folders

@pytest.mark.parametrize("name", ["model/model.safetensors", "model/optimizer.safetensors", "config.json",
                                  "metrics.json", "history.csv", "model", "environment.json"])
def test_a_mix_of_two_runs_is_refused(trained, tmp_path, capsys, name) -> None:
    """Any file of one in the folder of the other: in Python, on the command line, by run or model."""
    first, second = copies(trained, tmp_path)
    port.load(first)
    if (second / name).is_dir():
        shutil.rmtree(first / name)
        shutil.copytree(second / name, first / name)
    else:
        shutil.copy(second / name, first / name)
    for folder in (first, first / "model"):
        with pytest.raises(ValueError, match="mixes files of several runs"):
            port.load(folder)
    for words in (["reconstruct", str(first), "--images", "2"], ["report", str(first)],
                  ["equivariance", str(first), "--params", PARAMS]):
        assert cli.main(words) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "mixes files" in line and "train again" in line


def test_a_mix_is_neither_evaluated_nor_aggregated(trained, tmp_path, capsys) -> None:
    """Where stages read a run by preset and seed."""
    folder = settings.folder_of("train", "digits", 0, tmp_path / "results")
    shutil.copytree(trained[1e-3], folder)
    shutil.copy(trained[1e-2] / "config.json", folder)
    beside = settings.folder_of("evaluate", "digits", 0, tmp_path / "results")
    output.write_json(beside / "metrics.json", {"steps": 4})
    output.write_json(beside / "config.json", {"evaluate": {}})
    for command in ("evaluate", "aggregate"):
        assert cli.main([command, "--params", PARAMS]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and "mixes files" in line


def test_what_an_earlier_version_left_is_loaded_and_its_weights_are_looked_at(trained, tmp_path) -> None:
    first, second = copies(trained, tmp_path)
    known = json.loads((first / "environment.json").read_text())
    del known["files"]
    (first / "environment.json").write_text(json.dumps(known))
    port.load(first)
    (first / "model" / "README.md").write_text("my own card")
    (first / "history.csv").unlink()
    port.load(first)
    shutil.copy(second / "model" / "model.safetensors", first / "model")
    with pytest.raises(ValueError, match="mixes files"):
        port.load(first)
    (first / "environment.json").unlink()  # nothing is known
    port.load(first)


def test_every_file_that_a_run_leaves_has_its_digest(trained) -> None:
    folder = trained[1e-3]
    known = json.loads((folder / "environment.json").read_text())["files"]
    paths = (*folder.iterdir(), *(folder / "model").iterdir())
    there = {path.relative_to(folder).as_posix() for path in paths
             if path.is_file() and path.suffix != ".md"}
    assert known.keys() == there - {"environment.json"}


MOMENTS = ("model", "optimizer", "history", "metrics", "config", "environment", "the new folder's place")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_at_any_moment_leaves_old_results_whole(trained, tmp_path, monkeypatch, moment) -> None:
    """And the same command writes them when there is room, without another step."""
    folder = settings.folder_of("train", "digits", 0, tmp_path / "results")
    shutil.copytree(trained[1e-3], folder)
    (folder / "notes.txt").write_text("mine")
    before = run_folder.digests(folder)

    def full(*given, **more):
        raise OSError(28, "No space left on device")
    with monkeypatch.context() as patch:
        write = output.write_json
        where = {"model": (stage.port, "save"), "optimizer": (stage.resume, "write_tensors"),
                 "history": (stage.csv, "DictWriter"), "the new folder's place": (swap.os, "replace")}
        if moment in where:
            target, name = where[moment]
            own = getattr(target, name)
            patch.setattr(target, name, lambda *given, **more: full() if ".0.scae-" in str(given)
                          else own(*given, **more))
        else:
            patch.setattr(stage, "write_json", lambda path, values: full() if path.stem == moment
                          else write(path, values))
        with pytest.raises(OSError, match="No space"):
            stage.run(preset("train.lr=1e-2"), 0, tmp_path / "results")
    assert run_folder.digests(folder) == before and (folder / "notes.txt").read_text() == "mine"
    port.load(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["0"]
    (checkpoints,) = (tmp_path / "runs").iterdir()
    assert resume.checkpoints(checkpoints)[-1].name == "step-00000004"
    stage.run(preset("train.lr=1e-2"), 0, tmp_path / "results")
    port.load(folder)
    assert (folder / "notes.txt").read_text() == "mine" and not list((tmp_path / "runs").iterdir())
    assert (folder / "model" / "model.safetensors").read_bytes() == (
        trained[1e-2] / "model" / "model.safetensors").read_bytes()


DEAD = f"{platform.node()}-{2**22 + 1}-0"  # above the highest number that a process gets


@pytest.mark.parametrize("killed", ["while it wrote", "between the two moves", "while it cleared"])
def test_what_a_killed_process_left_is_cleared(tmp_path, killed) -> None:
    """Old content comes back, what else lay in the folder stays, and others' work is left alone."""
    folder = tmp_path / "run[1]"
    new, old = (tmp_path / f".run[1].scae-{DEAD}.{role}" for role in swap.ROLES)
    for path, text in ((folder, "old"), (new, "new")):
        path.mkdir()
        (path / "model").write_text(text)
    (folder / "live").mkdir()
    if killed != "while it wrote":
        os.replace(folder, old)
    if killed == "while it cleared":
        os.replace(new, folder)
    others = [f".run1.scae-{DEAD}.new", f".run[1].scae-elsewhere-{2**22 + 1}-0.new", ".run[1].backup",
              f".run[1].scae-{platform.node()}-{os.getpid()}-99.new", ".run[1].scae-x.neither"]
    for name in others:
        (tmp_path / name).mkdir()
    swap.recover(folder, ("model",))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["run[1]", *others])
    assert (folder / "live").is_dir()
    assert (folder / "model").read_text() == ("new" if killed == "while it cleared" else "old")


def test_a_checkpoint_s_own_leftovers_are_cleared_too(tmp_path) -> None:
    """Long names included; a folder of old content is not a checkpoint's."""
    for name in ("model[1].ckpt-5", "n" * 200):
        left = swap.beside(tmp_path / name, DEAD, "new")
        left.mkdir()
        (left / "data").touch()
        port.write_checkpoint(tmp_path / name, {"a": np.zeros(3, np.float32)})
        assert not left.exists() and port.read_checkpoint(tmp_path / name).load()[0]["a"].shape == (3,)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_link_in_a_folder_s_place_is_replaced_and_not_followed(tmp_path) -> None:
    """As DVC may put its outputs there: its cache must not change."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "model").write_text("old")
    (tmp_path / "run").symlink_to(tmp_path / "cache")
    with swap.swapped(tmp_path / "run", ("model",)) as new:
        (new / "model").write_text("new")
    assert (tmp_path / "cache" / "model").read_text() == "old" and not (tmp_path / "run").is_symlink()
    assert (tmp_path / "run" / "model").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "run"]


@pytest.mark.parametrize("there", [True, False])
def test_a_run_is_not_lost_where_another_takes_its_place(there, tmp_path, monkeypatch) -> None:
    """Stopped at the last move: the old one is there whole; else the new one alone."""
    folder = tmp_path / "0"
    if there:
        folder.mkdir()
        (folder / "old").touch()
    replace = os.replace

    def stopped(source, target) -> None:
        if Path(target) == folder and not Path(source).match("*.old"):
            raise KeyboardInterrupt
        replace(source, target)

    def fill() -> None:
        with run_folders.replaced(folder) as new:
            assert not new.exists()
            new.mkdir()
            (new / "new").touch()

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stopped)
        patch.setattr(os, "rename", stopped)
        with pytest.raises(KeyboardInterrupt):
            fill()
    assert [path.name for path in tmp_path.rglob("*")] == (["0", "old"] if there else [])
    fill()
    assert [path.name for path in tmp_path.rglob("*")] == ["0", "new"]


def test_a_kill_while_the_last_checkpoint_is_removed_blocks_nothing(trained, tmp_path, monkeypatch) -> None:
    """At each file of it: the command works again, and nothing stays behind."""
    for kept in (1, 3):
        with monkeypatch.context() as patch:
            removed = []

            def some(path, *given, **more):  # as many files as a process gets at before it is killed
                for file in sorted(Path(path).rglob("*")):
                    if file.is_file() and len(removed) < kept:  # noqa: B023
                        file.unlink()
                        removed.append(file)  # noqa: B023
                if "digits-0-" in str(path):
                    raise KeyboardInterrupt
            patch.setattr("port.training.sound.shutil.rmtree", some)
            with pytest.raises(KeyboardInterrupt):
                stage.run(preset(), 0, tmp_path / "results")
        folder = stage.run(preset(), 0, tmp_path / "results")
        assert (folder / "model" / "model.safetensors").read_bytes() == (
            stage.run(preset(), 0, tmp_path / "other") / "model" / "model.safetensors").read_bytes()
        assert not list((tmp_path / "runs").iterdir())


# -------------------------------------------------------------------------------------------------- locks

def test_a_second_training_of_a_run_is_refused(tmp_path, capsys) -> None:
    """By the results or by the checkpoints; in one line; when the first is done, it works."""
    run = preset()
    folder = settings.folder_of("train", "digits", 0, tmp_path / "results")
    with locks.held(folder, "trains"):
        assert console.exit_code(lambda: stage.run(run, 0, tmp_path / "results")) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "another process trains there" in line and str(folder) in line
    assert not (tmp_path / "runs").exists()
    stage.run(run, 0, tmp_path / "results")
    assert not list(tmp_path.rglob("*.lock"))


def test_another_process_holds_the_lock_until_it_ends(tmp_path) -> None:
    """Even one that is killed: its lock file is there, and holds nobody up."""
    held = subprocess.Popen(
        [sys.executable, "-c", "import sys, time\nfrom filelock import FileLock\n"
         "lock = FileLock(sys.argv[1])\nlock.acquire()\nprint('held', flush=True)\ntime.sleep(60)",
         str(locks.path_of(tmp_path / "run"))], stdout=subprocess.PIPE, text=True)
    try:
        assert held.stdout.readline() == "held\n"
        with pytest.raises(values.BadInput, match="another process"), \
                locks.held(tmp_path / "run", "trains"):
            pass
    finally:
        held.kill()
        held.communicate()
    with locks.held(tmp_path / "run", "trains"), locks.awaited(tmp_path / "other"):
        pass
    assert not list(tmp_path.iterdir())


def test_where_no_lock_can_be_written_reading_goes_on(tmp_path) -> None:
    (tmp_path / "file").touch()
    with locks.awaited(tmp_path / "file" / "prepare"):
        assert not (tmp_path / "file").is_dir()


CHILD = """
import os, sys, time
from pipelines.support import children, output
if sys.argv[1] == "parent":
    child = children.start([sys.executable, "-c", sys.argv[2], "child", sys.argv[2]])
    print(child.pid, flush=True)
else:
    children.follow_parent()
time.sleep(60)
"""


def test_a_child_of_a_killed_parent_ends(tmp_path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", CHILD, "parent", CHILD], text=True,
                              stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    assert alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    end = time.monotonic() + 20
    while alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_without_a_parent_that_says_so_nothing_is_followed(monkeypatch) -> None:
    """No variable; one that came through a process in between, without the pipe; nonsense."""
    import threading
    for told in (None, "0:1", "999:5", "nonsense"):
        if told is not None:
            monkeypatch.setenv(children.VARIABLE, told)
        children.follow_parent()
        assert children.VARIABLE not in os.environ
        assert not [thread for thread in threading.enumerate() if thread.name == "parent"]
