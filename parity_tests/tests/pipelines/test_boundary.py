"""Where every command ends: one line and an exit code for what the machine or a file did."""

from __future__ import annotations

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest
import safetensors
import torch

from parity_tests import goldens
from pipelines import cli, report
from pipelines.support import boundary, console, output, sections
from pipelines.support.values import BadInput
from port.core import files
from port.data import dataset, dataset_file
from port.evaluation.labels import NotMeasurable


def ended(work, capsys) -> tuple[int, str]:
    """Exit code and what stands on stderr."""
    code = console.exit_code(work)
    return code, capsys.readouterr().err


def raising(error: BaseException):
    def work():
        raise error
    return work


LINES = {
    "full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/x.json"),
                  "results/x.json: No space left on device; free some space"),
    "read-only": (OSError(errno.EROFS, os.strerror(errno.EROFS), "x"), "x: Read-only file system"),
    "no right": (PermissionError(errno.EACCES, "Permission denied", "x/y"), "x/y: Permission denied"),
    "a folder": (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "a folder stands where a file"),
    "a file": (NotADirectoryError(errno.ENOTDIR, "Not a directory", "x/y"), "a file stands where a folder"),
    "a long name": (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "give a shorter name"),
    "two names": (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid"),
    "a name with escapes": (FileNotFoundError(2, "No such file or directory", "a\x1b[31m\n\udcff"),
                            "a\\x1b[31m\\n\\udcff: No such file"),
    "safetensors": (safetensors.SafetensorError("incomplete metadata"), "safetensors file cannot be read"),
    "zlib": (zlib.error("Error -3 while decompressing"), "damaged or cut off"),
    "zip": (zipfile.BadZipFile("Bad CRC-32"), "damaged or cut off"),
    "end of a file": (EOFError("Compressed file ended"), "damaged or cut off"),
    "text": (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"), "save it as UTF-8"),
    "letters": (UnicodeEncodeError("ascii", "→", 0, 1, "ordinal"), "PYTHONUTF8=1"),
    "depth": (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    "memory": (MemoryError("Unable to allocate 8 TiB"), "Unable to allocate 8 TiB"),
    "memory of a device": (torch.OutOfMemoryError("CUDA out of memory"), "smaller batches"),
    "memory of torch": (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "smaller"),
    "json": (json.JSONDecodeError("Expecting value", "{", 1), "JSON file is damaged"),
    "a refusal of its own": (NotMeasurable("one class"), "one class"),
    "bad input": (BadInput("what, where"), "what, where"),
}


@pytest.mark.parametrize("what", LINES)
def test_one_line_and_exit_code_2(what: str, capsys) -> None:
    error, words = LINES[what]
    code, said = ended(raising(error), capsys)
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1 and words in said, said


def test_a_mistake_of_the_program_keeps_its_traceback(capsys, monkeypatch) -> None:
    """So does everything when SCAE_TRACEBACK asks for it."""
    for error in (TypeError("x"), ValueError("x"), RuntimeError("x"), KeyError("x")):
        with pytest.raises(type(error)):
            console.exit_code(raising(error))
    monkeypatch.setenv(boundary.TRACEBACK, "1")
    with pytest.raises(OSError):
        console.exit_code(raising(OSError(errno.ENOSPC, "full")))


def test_signals(capsys) -> None:
    """SIGTERM unwinds, so what was begun is cleared away; the handler before is put back."""
    cleared = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            cleared.append(True)
    assert ended(work, capsys) == (143, "terminated\n") and cleared == [True]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert ended(raising(KeyboardInterrupt()), capsys) == (130, "interrupted\n")


def test_an_output_that_takes_no_more(monkeypatch, capsys) -> None:
    """`| head -1` is silent; a full disk behind `>` is said; a terminal of ASCII gets escapes."""
    read, write = os.pipe()
    os.close(read)
    for target, wanted in ((write, 141), (os.open("/dev/full", os.O_WRONLY), 2)):
        with os.fdopen(target, "w", closefd=False) as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert console.exit_code(lambda: print("→ " * 10)) == wanted
            monkeypatch.undo()
        os.close(target)
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert console.exit_code(lambda: print("3 × 3 \udcff")) == 0
    assert ascii_only.buffer.getvalue() == b"3 \\xd7 3 \\udcff\n"


@pytest.mark.parametrize("error", [EOFError("cut off"), BrokenPipeError(errno.EPIPE, "Broken pipe")])
def test_the_command_line_hands_them_on(error, monkeypatch, capsys) -> None:
    """click would call the one an interruption, and end with 1 at the other."""
    def fail(*_):
        raise error
    monkeypatch.setattr(sections, "section", fail)
    assert cli.main(["report"]) == (2 if isinstance(error, EOFError) else boundary.CLOSED_PIPE)


@pytest.mark.parametrize("end", ["2>&-", "2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("work", "code"), [
    ("raise BadInput('x')", 2), ("raise CheckFailed('x')", 1), ("raise OSError(28, 'full', 'x')", 2),
    ("raise KeyboardInterrupt", 130), ("raise boundary.Terminated", 143),
    ("[bar.step(1) for bar in [console.Progress(3)]]", 0), ("import os; assert os.open('.', 0) > 2", 0)])
def test_the_exit_code_is_kept_where_nothing_can_be_said(end: str, work: str, code: int) -> None:
    """A closed or full stderr; a file that is opened does not get its number."""
    program = ("from pipelines.support import boundary, console; from pipelines.support.values import *\n"
               f"def work():\n    {work}\nraise SystemExit(console.exit_code(work))")
    done = subprocess.run(["bash", "-c", f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} {end}"],
                          cwd=goldens.REPOSITORY)
    assert done.returncode == code


def test_a_stream_that_is_missing_or_closed_is_no_terminal(monkeypatch) -> None:
    closed = io.StringIO()
    closed.close()
    assert not any(map(boundary.is_terminal, (None, closed, io.StringIO())))
    monkeypatch.setattr(sys, "stderr", None)
    console.Progress(3).step(1)
    console.exit_code(lambda: console.Progress(3).step(1))
    assert sys.stderr is None


# ------------------------------------------------------------------------------- outputs, whole or not

def _json(path: Path) -> None:
    output.write_json(path, {"a": 1})


def _page(path: Path) -> None:
    report.write(path, "<html>")


def _npz(path: Path) -> None:
    split = dataset.Split(torch.zeros(2, 1, 3, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    dataset_file.save(dataset.Dataset("two", split, split), path)


def _bytes(path: Path) -> None:
    files.write_bytes(path, b"\x89PNG")


WRITERS = {"json": _json, "page": _page, "npz": _npz, "bytes": _bytes,
           "text": lambda path: files.write_text(path, "→")}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_when_writing_fails(name: str, error, tmp_path, monkeypatch) -> None:
    """A full disk or an interruption at the last moment leaves the old file, and nothing beside it."""
    path = tmp_path / "deep" / "out"
    WRITERS[name](path)
    before = path.read_bytes()

    def fail(*_):
        raise error
    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises((OSError, BadInput, KeyboardInterrupt)):
        WRITERS[name](path)
    monkeypatch.undo()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    WRITERS[name](path)


@pytest.mark.parametrize("name", WRITERS)
def test_two_may_write_the_same_file_at_once(name: str, tmp_path) -> None:
    """As two seeds do that prepare the same data: neither takes away what the other is writing, and one whole stays."""
    path = tmp_path / "out"
    with files.whole(path) as first, files.whole(path) as second:
        first.write_bytes(b"half of a"), second.write_bytes(b"another's")
        WRITERS[name](path)
        first.write_bytes(b"all of it")
        whole = path.read_bytes()
    assert whole not in (b"", b"half of a", b"another's") and path.read_bytes() == b"all of it"
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_written_by_hand() -> None:
    """Temp-then-rename stands in one place; these swap folders, or several files at once."""
    folders = {"port/core/files.py", "port/core/swap.py", "port/training/resume.py", "port/training/sound.py",
               "port/checkpoints/model_folder.py", "port/checkpoints/tensor_bundle/writer.py",
               "pipelines/checkpoints/original.py", "pipelines/visit/parcel.py"}
    found = {str(path.relative_to(goldens.REPOSITORY)) for top in ("port", "pipelines")
             for path in (goldens.REPOSITORY / top).rglob("*.py")
             if "os.replace(" in path.read_text(encoding="utf-8")}
    assert found <= folders


# --------------------------------------------------------------------------------- files of settings

LAUGHS = "a0: &a0 [lol, lol, lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
BAD_FILES = {
    "aliases that unfold": (LAUGHS, "unfold"), "an alias of itself": ("a: &a [*a]", "holds itself"),
    "deep lists": ("a: " + "[" * 150 + "]" * 150, "levels deep"), "many brackets": ("[" * 300_000, "lists"),
    "deep dashes": ("- " * 500 + "1", "lists"), "a number of 5,000 digits": ("a: " + "9" * 5000, "digits"),
    "a Python object": ("a: !!python/object:os.system {}", "constructor"), "NUL": ("a: \0", "character"),
    "no mapping": ("[1]", "mapping"),
    "a stage that is a word": ("train: abc\npresets: {digits: {}}", "train: expected keys"),
    "presets that are a list": ("presets: [digits]", "presets: expected keys"),
    "a preset that is a word": ("presets: {digits: abc}", "preset digits"),
    "keys that are numbers": ("presets: {digits: {model: {1: 2}}}", "words"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_files_of_settings(what: str, tmp_path, capsys) -> None:
    text, words = BAD_FILES[what]
    path = tmp_path / "params.yaml"
    path.write_text(text)
    code = cli.main(["evaluate", "--params", str(path)])
    said = capsys.readouterr().err
    assert code == 2 and said.count("\n") == 1 and words in said and len(said) < 600, said


def test_a_file_in_another_encoding_or_too_large(tmp_path, monkeypatch, capsys) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"a: 1\nb: \xe9\n")
    assert cli.main(["evaluate", "--params", str(path)]) == 2
    assert "byte 0xe9 in line 2" in capsys.readouterr().err
    with open(path, "wb") as file:
        file.truncate(2**40)  # a sparse terabyte
    assert cli.main(["evaluate", "--params", str(path)]) == 2
    assert "more than 8 MB" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["[", "*a", "'", "9" * 5000, "{a: [}"])
def test_a_setting_that_is_no_value(word: str, capsys) -> None:
    code = cli.main(["evaluate", "--params", str(goldens.REPOSITORY / "params.yaml"), "--set",
                     f"train.lr={word}"])
    assert code == 2 and capsys.readouterr().err.count("\n") == 1


def test_every_program_ends_there() -> None:
    """A module that runs by itself is a `Program`, and no parser stands elsewhere; children give an answer."""
    children = {"pipelines/checkpoints/child.py", "pipelines/bench/worker.py"}
    texts = {path.relative_to(goldens.REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
             for folder in ("pipelines", "parity_tests") for path in (goldens.REPOSITORY / folder).rglob("*.py")}
    mains = {name for name, text in texts.items()
             if name.startswith("pipelines/") and '\nif __name__ == "__main__":\n    raise' in text}
    assert len(mains) > 20 and {name for name in mains if "\nmain = Program(" not in texts[name]} == children
    assert [name for name, text in texts.items() if "\nimport argparse" in text] == []
