"""Where a file is written to: pipes and devices stay what they are, links are followed, folders are refused at once.

And what is read as a file of settings: from a pipe what settings have, from a device nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import port
from parity_tests.harness import every_family
from parity_tests.harness.converted import FIXTURE, ckpt, convert_fixture, refused
from pipelines import cli
from pipelines.bench import capsnet, em, training_step, triton
from pipelines.checkpoints import original
from pipelines.commands import records, verify
from pipelines.results import accuracy_over_time, run_report
from pipelines.support import values
from pipelines.support.values import BadInput
from pipelines.visit import probe, step_time
from port.core import files


def fed(pipe: Path, content: bytes) -> threading.Thread:
    """A named pipe, and a thread that writes into it once somebody reads."""
    os.mkfifo(pipe)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError):
            pipe.write_bytes(content)
    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    return thread


def drained(pipe: Path) -> tuple[threading.Thread, list[bytes]]:
    """A thread that reads what is written into a named pipe."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    thread.start()
    return thread, found


def saved(folder: Path) -> Path:
    return port.save(every_family.model("scae"), folder)


# ----------------------------------------------------------------------------------------- what is written

@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_into_and_stays(linked: bool, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    named = tmp_path / "link" if linked else pipe
    if linked:
        named.symlink_to(pipe)
    thread, found = drained(pipe)
    assert cli.main(["inspect", ckpt(FIXTURE), "--json", str(named)]) == 0
    thread.join(30)
    assert json.loads(found[0])["model"] == "scae"
    assert stat.S_ISFIFO(pipe.stat().st_mode) and named.is_symlink() is linked
    assert sorted(tmp_path.iterdir()) == sorted({pipe, named})


@pytest.mark.parametrize("into", ["file", "pipe"])
def test_a_link_to_its_own_output_is_written_into(into: str, tmp_path: Path) -> None:
    """A shell's `> file` and `| reader`; nothing that is printed before or after gets lost."""
    link = tmp_path / "link"
    link.symlink_to("/proc/self/fd/1")
    work = (f"from port.core import files; print('before', flush=True); files.write_text({str(link)!r}, 'content\\n');"
            "print('after')")
    with open(tmp_path / "out", "w+") as out:
        target = subprocess.PIPE if into == "pipe" else out
        done = subprocess.run([sys.executable, "-c", work], stdout=target, check=True)
        out.seek(0)
        said = done.stdout.decode() if into == "pipe" else out.read()
    assert said == "before\ncontent\nafter\n"
    assert link.is_symlink() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("place", ["link to /dev/full", "/dev/fd/{writing}"])
def test_the_process_with_tensorflow_writes_there_too(place: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    """A full device is one line and exit code 2; what a shell opened for the command is open for it."""
    out, link = convert_fixture(tmp_path / "out"), tmp_path / "full"
    link.symlink_to("/dev/full")
    capfd.readouterr()
    if place.startswith("link"):
        assert f"{link}: No space left on device" in _error(2, capfd, "verify", ckpt(FIXTURE), str(out), "--json", link)
        return
    with tempfile.TemporaryFile() as file:
        assert not _error(0, capfd, "verify", ckpt(FIXTURE), str(out), "--json", place.format(writing=file.fileno()))
        file.seek(0)
        assert json.load(file)["rows"]


def _error(code: int, capfd: pytest.CaptureFixture, *words: str | Path) -> str:
    assert cli.main([str(word) for word in words]) == code
    return capfd.readouterr().err


def test_a_full_device_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By a link, so that a mistake here replaces the link and no device."""
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    assert f"{link}: No space left on device" in refused(capsys, "inspect", ckpt(FIXTURE), "--json", str(link))
    assert link.is_symlink()


def test_a_link_is_followed_to_its_file(tmp_path: Path) -> None:
    """The file's folder gets nothing else, and a link to nothing yet makes the file."""
    (tmp_path / "there").mkdir()
    for name in ("old", "new"):
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    (tmp_path / "there" / "old").write_text("old")
    for name in ("old", "new"):
        files.write_text(tmp_path / name, "content")
        assert (tmp_path / name).is_symlink() and (tmp_path / "there" / name).read_text() == "content"
    assert len(list((tmp_path / "there").iterdir())) == 2


def test_a_protected_file_that_a_link_leads_to_stays(tmp_path: Path) -> None:
    """As DVC links results into its cache, whose files have the digests of their content for names."""
    cached = tmp_path / "cached"
    cached.write_text("cached")
    cached.chmod(0o444)
    (tmp_path / "result").symlink_to(cached)
    files.write_text(tmp_path / "result", "content")
    assert cached.read_text() == "cached" and not (tmp_path / "result").is_symlink()
    assert (tmp_path / "result").read_text() == "content"


@pytest.mark.parametrize("place", [".", "..", "/", "folder", "absent/..", "circle"])
def test_the_writer_itself_refuses_folders(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OSError) as refusal:
        files.write_text(place, "x")
    assert refusal.value.strerror and str(refusal.value.filename) == str(Path(place))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["circle", "folder"]


# ------------------------------------------------------------------------------------------ before the work

def _never(*_: object, **__: object) -> None:
    raise AssertionError("the work had begun")


COMMANDS: dict[str, tuple[Callable, list[str], tuple[object, str]]] = {
    "inspect": (cli.main, ["inspect", "ck", "--json"], (original, "read")),
    "verify json": (cli.main, ["verify", "ck", "out", "--json"], (verify, "run")),
    "verify html": (cli.main, ["verify", "ck", "out", "--html"], (verify, "run")),
    "records": (cli.main, ["verify", "--golden", "x", "--json"], (records, "run")),
    "bench": (cli.main, ["bench", "--json"], (training_step, "run")),
    "bench family": (cli.main, ["bench", "--model", "em", "--json"], (em, "command")),
    "report": (cli.main, ["report", "run", "--out"], (run_report, "run")),
    "export": (cli.main, ["export", "run", "--format", "pt2"], (torch.export, "save")),
    "bench capsnet": (capsnet.main, ["--json"], (capsnet, "command")),
    "bench em": (em.main, ["--json"], (em, "command")),
    "bench triton": (triton.main, ["--json"], (triton, "command")),
    "probe": (probe.main, ["--json"], (probe, "command")),
    "step time": (step_time.main, ["--json"], (step_time, "command")),
    "accuracy over time": (accuracy_over_time.main, ["--out"], (accuracy_over_time, "draw")),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", [".", "..", "/", "folder", "file/x", ""])
def test_a_place_that_is_no_files_is_refused_before_the_work(
        command: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture) -> None:
    main, words, (where, work) = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(where, work, _never)
    assert main([*words, place]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and " folder" in said, said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


# ----------------------------------------------------------------------------------------------- full disks

def test_a_graph_on_a_full_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """torch's own writer ended the whole process there."""
    folder, pipe = saved(tmp_path / "model"), tmp_path / "full.pt2"
    pipe.symlink_to("/dev/full")
    assert f"error: {pipe}: No space left on device; free" in refused(capsys, "export", str(folder), str(pipe))


def test_a_graph_is_written_by_python_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture) -> None:
    """What C++ writes cannot say that the disk is full."""
    seen = []
    monkeypatch.setattr(torch.export, "save", lambda made, target: seen.append(target))

    def full(path: Path, content: object) -> int:
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(Path, "write_bytes", full)
    said = refused(capsys, "export", str(saved(tmp_path / "model")), str(tmp_path / "x.pt2"))
    assert isinstance(seen[0], io.BytesIO) and f"{tmp_path / 'x.pt2'}: No space left" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# ---------------------------------------------------------------------------------------------- what is read

def test_settings_come_from_a_pipe_too(tmp_path: Path) -> None:
    thread = fed(tmp_path / "pipe", b"presets: {a: {}}")
    assert values.load_params(tmp_path / "pipe") == {"presets": {"a": {}}}
    thread.join(30)


@pytest.mark.parametrize("kind", ["endless pipe", "sparse", "device", "folder", "silent pipe"])
@pytest.mark.parametrize("option", ["--params", "--config"])
def test_a_file_without_end_is_refused(kind: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    place = tmp_path / "place"
    if kind == "endless pipe":
        fed(place, b"#" * (values.MOST_BYTES + 100_000))
    elif kind == "sparse":
        with open(place, "wb") as file:
            file.truncate(2**40)
    elif kind == "device":
        place.symlink_to("/dev/zero")
    elif kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    words = ["train", "--preset", "x", "--params"] if option == "--params" else \
        ["convert", ckpt(FIXTURE), str(tmp_path / "out"), "--config"]
    assert str(place) in refused(capsys, *words, str(place))
    assert [path.name for path in tmp_path.iterdir()] == ["place"]


def test_a_configuration_comes_from_a_pipe_too(tmp_path: Path) -> None:
    config = (convert_fixture(tmp_path / "out") / "config.json").read_bytes()
    thread = fed(tmp_path / "pipe", config)
    assert cli.main(["convert", ckpt(FIXTURE), str(tmp_path / "again"), "--no-verify", "--config",
                     str(tmp_path / "pipe")]) == 0
    thread.join(30)
    assert (tmp_path / "again" / "config.json").read_bytes() == config


@pytest.mark.parametrize("writes", [True, False])
def test_a_slow_writer_is_waited_for_and_an_absent_one_is_not(writes: bool, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has opened the other end may take its time; with nobody there the wait has an end."""
    os.mkfifo(tmp_path / "pipe")
    keeper = os.open(tmp_path / "pipe", os.O_RDWR) if writes else None  # the other end is open before anybody reads

    def over(*given) -> tuple[list, list, list]:
        """The time is up; what is written comes only now."""
        if keeper is not None:
            threading.Timer(0.0, lambda: (os.write(keeper, b"late"), os.close(keeper))).start()
        return [], [], []
    monkeypatch.setattr(files.select, "select", over)
    if writes:
        assert files.read_bytes(tmp_path / "pipe") == b"late"
    else:
        with pytest.raises(OSError, match="a pipe that nobody writes into"):
            files.read_bytes(tmp_path / "pipe")


def test_bytes_of_a_file_are_counted_as_they_come(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert files.read_bytes(tmp_path / "file", 5) == b"12345"
    for name, content in (("file", None), ("pipe", b"12345")):
        if content:
            fed(tmp_path / name, content)
        with pytest.raises(OSError, match="more than 4 bytes"):
            files.read_bytes(tmp_path / name, 4)


def test_a_place_above_which_is_a_file() -> None:
    with pytest.raises(BadInput, match="is a file, where a folder should stand"):
        values.file_to_write(Path(__file__) / "deep" / "x.json", "--json")
