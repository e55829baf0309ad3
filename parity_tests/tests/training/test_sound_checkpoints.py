"""A training checkpoint that is not what was written is not used: every kind of damage, the way back."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from parity_tests.harness import runs
from pipelines.support import console
from port.data import dataset
from port.training import loop as train
from port.training import resume, sound

NEWEST, OLDER = "step-00000010", "step-00000005"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that was stopped at step 10, with its last two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    runs.run(folder, steps=10)
    return folder


@pytest.fixture(scope="module")
def whole() -> dict:
    return runs.run()[0]


@pytest.fixture
def copy(stopped, tmp_path) -> Path:
    return shutil.copytree(stopped, tmp_path / "checkpoints")


def flipped(name: str, place: float) -> Callable[[Path], None]:
    """One bit of a file, at a share of its length."""
    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[int(place * (len(content) - 1))] ^= 4
        (path / name).write_bytes(content)
    return damage


def without(name: str) -> Callable[[Path], None]:
    return lambda path: (path / name).unlink()


def said(**changed) -> Callable[[Path], None]:
    """Other values in state.json."""
    def damage(path: Path) -> None:
        state = json.loads((path / "state.json").read_text())
        (path / "state.json").write_text(json.dumps(state | changed))
    return damage


def tensor(stem: str, change: Callable[[torch.Tensor], torch.Tensor], name: str | None = None
           ) -> Callable[[Path], None]:
    """Another tensor in place of one, the largest without a name."""
    def damage(path: Path) -> None:
        found = load_file(path / f"{stem}.safetensors")
        key = name or max(found, key=lambda each: found[each].numel())
        found[key] = change(found[key]).contiguous()
        save_file(found, path / f"{stem}.safetensors")
    return damage


def renamed(stem: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        found = load_file(path / f"{stem}.safetensors")
        found["another"] = found.pop(next(iter(found)))
        save_file(found, path / f"{stem}.safetensors")
    return damage


# What a checksum sees, and (second) what shapes and ranges see where there are no checksums.
FILES = {
    "a bit of the weights": flipped("model.safetensors", 0.9),
    "a bit of the slots": flipped("optimizer.safetensors", 0.7),
    "a bit of the generators": flipped("streams.safetensors", 0.8),
    "a bit of the state": flipped("state.json", 0.5),
    "a bit of the checksums": flipped("checksums.json", 0.5),
    "no checksums": without("checksums.json"),
    "no slots": without("optimizer.safetensors"),
    "a file more": lambda path: (path / "model-00001.safetensors").write_bytes(b""),
    "a folder in a file's place": lambda path: ((path / "streams.safetensors").unlink(),
                                                (path / "streams.safetensors").mkdir()),
}
VALUES = {
    "the header of the weights": flipped("model.safetensors", 0.0),
    "half of the weights": lambda path: os.truncate(path / "model.safetensors", 5000),
    "no weights": without("model.safetensors"),
    "a slot that broadcasts": tensor("optimizer", lambda value: value.flatten()[:1]),
    "a slot of another type": tensor("optimizer", torch.Tensor.double),
    "weights turned": tensor("model", lambda value: value.reshape(-1, 1)),
    "another name": renamed("optimizer"),
    "a place before the first": tensor("streams", lambda value: value - 50, "batches/where"),
    "a place past the last": tensor("streams", lambda value: value * 0 + 10**6, "batches/where"),
    "half a generator": tensor("streams", lambda value: value[:100], "noise"),
    "a generator of nothing": tensor("streams", lambda value: value * 0 + 255, "batches/order"),
    "sums for others": tensor("streams", lambda value: value[:1], "sums"),
    "step -5": said(step=-5), "step 10⁹": said(step=10**9), "another step": said(step=9),
    "a step in words": said(step="10"), "no step": said(step=None), "a count past the step": said(count=11),
    "seconds that are none": said(seconds=float("nan")), "a history of words": said(history=["so"]),
    "no JSON": lambda path: (path / "state.json").write_text("{"),
    "a list": lambda path: (path / "state.json").write_text("[]"),
}


def older_version(path: Path) -> None:
    """As checkpoints were before there were checksums."""
    (path / "checksums.json").unlink()
    state = json.loads((path / "state.json").read_text())
    for key in ("format", "data"):
        del state[key]
    (path / "state.json").write_text(json.dumps(state))


def refused(folder: Path, made=None) -> str:
    """Why the newest checkpoint of a folder is not used; the older one is."""
    state = runs_state()
    state.load(folder, 12)
    assert state.step == 5 and [path.name for path in state.damaged] == [NEWEST]
    return state.damaged[folder / NEWEST]


def runs_state() -> resume.State:
    """The state of a run that begins."""
    return train.Run(runs.model(), runs.dataset(), runs.settings()).state


@pytest.mark.parametrize("kind", FILES)
def test_what_is_not_as_it_was_written_is_not_used(copy, kind) -> None:
    FILES[kind](copy / NEWEST)
    assert refused(copy)


@pytest.mark.parametrize("kind", VALUES)
def test_shapes_and_ranges_are_exact_without_checksums_too(copy, kind) -> None:
    older_version(copy / NEWEST)
    VALUES[kind](copy / NEWEST)
    assert refused(copy)


def test_the_older_one_is_used_and_that_is_said(copy, whole, capsys) -> None:
    """The run ends as if nothing had happened, and the damaged one does not stay."""
    FILES["a bit of the slots"](copy / NEWEST)
    found, trained = runs.run(copy)
    assert trained.resumed_at == 5 and not runs.differing(found, whole)
    assert trained.notes == [f"{NEWEST} is damaged and was not used: optimizer.safetensors is not as it "
                             "was written"]
    assert "going on from step 5 instead" in capsys.readouterr().out
    assert [path.name for path in sorted(copy.iterdir())] == ["step-00000010", "step-00000012"]


def test_without_a_sound_one_the_run_ends_with_2(copy, capsys) -> None:
    for path in resume.checkpoints(copy):
        FILES["a bit of the weights"](path)
    assert console.exit_code(lambda: runs.run(copy)) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "no checkpoint in" in line and "remove the folder" in line
    assert [path.name for path in resume.checkpoints(copy)] == [OLDER, NEWEST]


def test_a_refused_checkpoint_changes_nothing(copy) -> None:
    """Model, slots and generators are as before, whatever part was damaged."""
    older_version(copy / NEWEST)
    VALUES["half a generator"](copy / NEWEST)
    shutil.rmtree(copy / OLDER)
    state, fresh = runs_state(), runs_state()
    with pytest.raises(sound.Damaged):
        state.load(copy, 12)
    for one, other in zip(({**state.tensors(), **state.stream_tensors()}, state.place()),
                          ({**fresh.tensors(), **fresh.stream_tensors()}, fresh.place()), strict=True):
        assert one.keys() == other.keys() and all(
            torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
            for key, value in one.items())


def test_checkpoints_of_the_version_before_continue(copy, whole) -> None:
    for path in resume.checkpoints(copy):
        older_version(path)
    found, trained = runs.run(copy)
    assert trained.resumed_at == 10 and not runs.differing(found, whole) and not trained.notes


def test_other_data_are_refused(copy, capsys, monkeypatch) -> None:
    """One pixel is enough; a checkpoint that does not know its data is taken."""
    changed = runs.dataset()
    changed.train.images[0, 0, 0, 0] += 1
    monkeypatch.setattr(runs, "dataset", lambda: changed)
    assert console.exit_code(lambda: runs.run(copy)) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "other data" in line and str(copy) in line
    for path in resume.checkpoints(copy):
        older_version(path)
    assert runs.run(copy)[1].resumed_at == 10


def test_a_removal_leaves_no_half(tmp_path, monkeypatch) -> None:
    """A kill at any moment of it: the folder is whole under its name, or not there at all."""
    remove = sound.shutil.rmtree
    monkeypatch.setattr(sound.shutil, "rmtree", lambda *rest, **more: None)
    for name in ("digits-0-abc", "step-00000005"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "state.json").touch()
        sound.discard(folder)
        assert not folder.exists() and not resume.checkpoints(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f".{name}{sound.OLD}"]
        with monkeypatch.context() as real:
            real.setattr(sound.shutil, "rmtree", remove)
            sound.clear(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_slot_never_broadcasts() -> None:
    state = runs_state()
    slots = {name: value[:1] if value.ndim else value
             for name, value in resume.read_slots(state.model, state.optimizer).items()}
    with pytest.raises(ValueError, match="slot .* is"):
        resume.write_slots(state.model, state.optimizer, slots)


def test_constellations_have_ranges_too() -> None:
    from port.constellation import batches as points
    batches = points.Batches(points.PointSettings(), 4, 0)
    assert batches.limits == [points.BLOCK] and batches.generators().keys() == {"block"}
    assert isinstance(sound.Damaged(""), dataset.DataError)
