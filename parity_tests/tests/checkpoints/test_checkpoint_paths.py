"""What a path leads to: every name of a checkpoint, older shards, files that are something else, and writing."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import port
from parity_tests.tests.checkpoints.test_checkpoint_faults import DATA, refused
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with one checkpoint, whose name is a pattern that its neighbour fits."""
    for name, value in (("run[1]", 1.0), ("run1", 2.0)):
        port.write_checkpoint(tmp_path / name / "model.ckpt-20", {"w": np.float32(value)})
        (tmp_path / name / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-20"\n')
        (tmp_path / name / "model.ckpt-20.meta").write_bytes(b"\x0a\x05\x0a\x01w")
    return tmp_path / "run[1]"


@pytest.mark.parametrize("name", ["", "model.ckpt-20", "model.ckpt-20.index", "model.ckpt-20.meta",
                                  "model.ckpt-20.data-00000-of-00001", "checkpoint"])
def test_every_way_to_name_it(run: Path, name: str) -> None:
    """Folder, prefix, any file, the state file: this run's, not the neighbour's."""
    assert port.read_checkpoint(run / name)["w"] == 1.0


def test_older_shards(tmp_path: Path) -> None:
    """Format V1 in a folder whose name is a pattern, as shards, by every name."""
    tf = pytest.importorskip("tensorflow")
    for folder in ("run[1]", "run1"):
        (tmp_path / folder).mkdir()
        for k, name in enumerate("ab"):
            tf.raw_ops.Save(filename=str(tmp_path / folder / f"model.ckpt-3-0000{k}-of-00002"),
                            tensor_names=[name], data=[np.float32(k + 10 * (folder == "run1"))])
    run = tmp_path / "run[1]"
    for path in (run, run / "model.ckpt-3", run / "model.ckpt-3-00001-of-00002"):
        read = port.read_checkpoint(path)
        assert dict(read) == {"a": 0, "b": 1} == read.load()[0]
    (run / "model.ckpt-3-00000-of-00002").unlink()
    for path in (run, run / "model.ckpt-3", run / "model.ckpt-3-00001-of-00002"):
        assert "1 of 2 shards" in refused(path)


def test_tensorflow_takes_no_pattern(run: Path) -> None:
    """The reader that this one is compared with reads the same run."""
    reference = pytest.importorskip("reference")
    assert reference.read_checkpoint(run) == {"w": 1.0} == reference.read_checkpoint(run / "model.ckpt-20")


def zipped(path: Path, name: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x")


KINDS: list[tuple[str, bytes | Callable[[Path], None], str]] = [
    ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"), ("x.npy", b"\x93NUMPY\x01\0", "NumPy array"),
    ("x.npz", lambda path: np.savez(path, w=np.zeros(3)), "NumPy archive"),
    ("x.pt", lambda path: zipped(path, "archive/data.pkl"), "PyTorch file"),
    ("x.keras", lambda path: zipped(path, "model.weights.h5"), "Keras model"),
    ("old.pt", b"\x80\x02\x8a\nl\xfc", "a pickle"), ("x.pb", b"\x0a\x05\x0a\x01w", "protocol buffer"),
    ("lost.meta", b"\x0a\x05\x0a\x01w\x1b", "the graph of a checkpoint"),
    ("x.safetensors", (2).to_bytes(8, "little") + b"{}", "safetensors"),
    ("x.tar.gz", b"\x1f\x8b\x08", "gzip"), ("x.bin", bytes(range(200, 256)), "another kind"),
    ("x.txt", "grüße\n".encode(), "a text file"),
    ("x.json", b'{"a": 1}', "JSON"), ("x.tflite", b"\x1c\0\0\0TFL3", "Lite"),
    ("empty", b"", "an empty file"),
    ("lost.data-00000-of-00001", b"\0" * 64, "without its index"),
]


@pytest.mark.parametrize(("name", "content", "says"), KINDS, ids=[row[0] for row in KINDS])
def test_something_else(name: str, content: bytes | Callable[[Path], None], says: str, tmp_path: Path
                        ) -> None:
    """A file of another kind is named by its first bytes."""
    if callable(content):
        content(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    message = refused(tmp_path / name)
    assert says in message and "copy the checkpoint again" not in message


def test_places(tmp_path: Path) -> None:
    """Nothing, several, a state file that leads out or nowhere, a pipe, a loop, a folder for a file."""
    assert "no checkpoint there" in refused(tmp_path / "none")
    assert "no .index file" in refused(tmp_path)
    assert r"a\x00b" in refused(Path("a\0b"))
    for number in (1, 2):
        port.write_checkpoint(tmp_path / f"model.ckpt-{number}", {"w": np.float32(number)})
    assert "found model.ckpt-1, model.ckpt-2" in refused(tmp_path)
    state = tmp_path / "checkpoint"
    for text, says in (("/run/of/another/machine/model.ckpt-2", 2), ("model.ckpt-1", 1),
                       ("./model.ckpt-1", 1), (r"model.ckpt\0551", 1), ("model.ckpt-3", "is not there"),
                       ("../model.ckpt-1", "not in this folder"), ("/etc/passwd", "not in this folder")):
        state.write_text(f'model_checkpoint_path: "{text}"\nall_model_checkpoint_paths: "x"\n')
        for path in (tmp_path, state):
            if isinstance(says, str):
                assert says in refused(path), text
            else:
                assert port.read_checkpoint(path)["w"] == says, text
    state.write_bytes(b'model_checkpoint_path: "\x1b[31mred\\033[0m"\n')
    assert r"\x1b[31mred\x1b[0m" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    (tmp_path / "folder.index").mkdir()
    assert "no regular file" in refused(tmp_path / "pipe")
    assert "no checkpoint there" in refused(tmp_path / "loop")
    assert "no checkpoint there" in refused(tmp_path / "folder")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"\x08\x01")
    assert "variables/variables" in refused(tmp_path / "model")


def test_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both files or none; what a checkpoint cannot hold is named."""
    for arrays in ({"": DATA}, {"\0x": DATA}, {"w": np.array(["a"])}, {"w": np.array([{}])}):
        with pytest.raises(CheckpointError, match="checkpoint"):
            port.write_checkpoint(tmp_path / "c", arrays)
    replace = os.replace

    def failing(source: object, target: object) -> None:
        if str(target).endswith(".index"):
            raise OSError("no space")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="no space"):
        port.write_checkpoint(tmp_path / "c", {"w": DATA})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moves", range(5))
def test_writing_over_a_checkpoint(moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a move fails, whichever it is, the earlier checkpoint is there in every byte."""
    port.write_checkpoint(tmp_path / "c", {"w": DATA})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    replace, made = os.replace, []

    def failing(source: object, target: object) -> None:
        made.append(target)
        if len(made) == moves + 1:
            raise OSError("no space")
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)
    if moves < 4:
        with pytest.raises(OSError, match="no space"):
            port.write_checkpoint(tmp_path / "c", {"other": DATA + 1})
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    else:
        port.write_checkpoint(tmp_path / "c", {"other": DATA + 1})
        assert list(port.read_checkpoint(tmp_path / "c")) == ["other"]
        assert {path.name for path in tmp_path.iterdir()} == set(before)


def test_printable() -> None:
    assert printable("a\x1b]0;x\x07\u202eb\n") == r"a\x1b]0;x\x07\u202eb\n"
    assert printable(b"\xff") == r"\xff"
    assert len(printable("x" * 10**6)) < 300
