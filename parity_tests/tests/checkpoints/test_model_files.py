"""Files of a model as they are written and read: rights, full disks, types of weights, the step."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import every_family, runs
from parity_tests.harness.converted import FIXTURE, ckpt, refused
from pipelines import cli
from pipelines.support import run_folders
from port.checkpoints import model_folder
from port.checkpoints.tensor_bundle.errors import CheckpointError
from port.core import files, rmsprop, swap, tensor_files
from port.data import dataset
from port.training import resume

PARAMS = ["--preset", "digits", "--params", str(REPOSITORY / "params.yaml")]


def saved(folder: Path, kind: str = "scae", dtype: torch.dtype = torch.float32, slots: tuple[str, ...] = ()) -> Path:
    model = every_family.model(kind).to(dtype)
    found = {name: {slot: torch.zeros_like(p) for slot in slots} for name, p in model.named_parameters()}
    return model_folder.save(model, folder, slots=found if slots else None, step=3)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
            stem: str = "model") -> Path:
    path = folder / f"{stem}.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder


# --------------------------------------------------------------------------------------------------- rights

@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_every_file_has_the_rights_that_the_user_asks_for(mask: int, tmp_path: Path) -> None:
    """The weights too, whose library makes them for the owner alone."""
    before = os.umask(mask)
    try:
        saved(tmp_path / "saved", slots=("ms", "mom"))
        assert cli.main(["convert", ckpt(FIXTURE), str(tmp_path / "converted"), "--config", str(FIXTURE.folder),
                         "--no-verify"]) == 0
        (tmp_path / "run").mkdir()
        resume.write_tensors(tmp_path / "run", "optimizer", {"a": torch.zeros(3)})
    finally:
        os.umask(before)
    found = {path.relative_to(tmp_path): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert len(found) == 12 and all(
        mode == (0o777 if (tmp_path / path).is_dir() else 0o666) & ~mask for path, mode in found.items()), found


# ----------------------------------------------------------------------------------------------- full disks

@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes a few bytes of the weights."""
    class Full:
        def __init__(self, path: Path, mode: str) -> None:
            self.file = open(path, mode)  # noqa: SIM115

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, content: bytes) -> None:
            self.file.write(content[:100])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(tensor_files, "open", Full, raising=False)


def test_a_full_disk_is_said_of_the_folder_that_was_asked_for(tmp_path: Path, full: None,
                                                              capsys: pytest.CaptureFixture) -> None:
    """By the command, and with what to do; nothing is left."""
    out = tmp_path / "out"
    error = refused(capsys, "convert", ckpt(FIXTURE), str(out), "--config", str(FIXTURE.folder), "--no-verify")
    assert f"error: {out / 'model.safetensors'}: No space left on device; free some space" in error
    with pytest.raises(OSError, match="No space left") as refusal:
        saved(out)
    assert refusal.value.filename == str(out / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_of_a_training_state(tmp_path: Path, full: None) -> None:
    model = runs.model()
    state = resume.State(model, rmsprop.RMSProp(model.named_parameters(), 1e-3, 1e-4),
                         dataset.Batches(runs.dataset().train, 8, 14, 0), torch.Generator())
    with pytest.raises(OSError, match="No space left") as refusal:
        state.save(tmp_path / "run")
    assert refusal.value.filename == str(tmp_path / "run" / "step-00000000" / "model.safetensors")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("place", [swap.together, run_folders.replaced, lambda path: swap.swapped(path, ["a"])])
@pytest.mark.parametrize("named", [True, False])
def test_what_is_written_aside_has_the_name_of_its_place(place: Callable, named: bool, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as refusal, place(tmp_path / "out") as made:
        made.mkdir(exist_ok=True)
        (made / "a").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", *[str(made / "b")] * named)
    assert refusal.value.filename == str(tmp_path / "out" / "b") or not named
    assert ".scae" not in str(refusal.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("there", [False, True])
def test_pictures_come_together(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                capsys: pytest.CaptureFixture) -> None:
    """All of them or none; those of before stay, and so do other files."""
    folder, out = saved(tmp_path / "model"), tmp_path / "pictures"
    config = every_family.model("scae").config
    np.save(tmp_path / "images.npy", np.zeros((2, config.channels, config.canvas, config.canvas), np.uint8))
    if there:
        out.mkdir()
        (out / "templates.png").write_text("old")
        (out / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    command = ["reconstruct", *PARAMS, "--model", str(folder), "--images", str(tmp_path / "images.npy"),
               "--out", str(out)]
    write = files.write_bytes

    def full(path: Path, content: bytes) -> None:
        if path.stem == "explained":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, content)
    monkeypatch.setattr(files, "write_bytes", full)
    assert f"{out / 'explained.png'}: No space left" in refused(capsys, *command)
    assert sorted(tmp_path.rglob("*")) == before and (not there or (out / "templates.png").read_text() == "old")
    monkeypatch.undo()
    assert cli.main(command) == 0
    said = capsys.readouterr().out.split()
    assert all(Path(path).parent == out and Path(path).is_file() for path in said) and len(said) == 7
    assert len(list(out.iterdir())) == 7 + there


# ---------------------------------------------------------------------------------------- types of weights

@pytest.mark.parametrize("kind", every_family.KINDS)
@pytest.mark.parametrize("dtype", model_folder.DTYPES)
def test_a_model_comes_back_in_the_type_it_was_saved_in(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    loaded = port.load(saved(tmp_path / "model", kind, dtype))
    assert {value.dtype for value in loaded.state_dict().values()} == {dtype}
    if (kind, dtype) != ("em", torch.float16):  # which says itself that it does not fit
        assert torch.isfinite(every_family.answer(loaded, every_family.examples(loaded, 2).to(dtype))).any()


ODD = {
    "all int64": (lambda state: {name: value.long() for name, value in state.items()}, "is int64; save all"),
    "all bool": (lambda state: {name: value.bool() for name, value in state.items()}, "is bool; save all"),
    "all complex": (lambda state: {name: value.to(torch.complex64) for name, value in state.items()}, "is complex64"),
    "one int32": (lambda state: state | {next(reversed(state)): next(reversed(state.values())).int()},
                  "is int32, others are float32"),
    "one float64": (lambda state: state | {next(reversed(state)): next(reversed(state.values())).double()},
                    "is float64, others are float32")}


@pytest.mark.parametrize("odd", ODD)
def test_weights_of_other_types_are_refused(odd: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    change, says = ODD[odd]
    folder = changed(saved(tmp_path / "model"), change)
    with pytest.raises(CheckpointError, match=says):
        port.load(folder)
    for command in (["reconstruct", *PARAMS, "--model", str(folder), "--images", "2", "--results", str(tmp_path)],
                    ["convert", "--to", "tf", str(folder), str(tmp_path / "back")]):
        assert says in refused(capsys, *command)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_images_are_measured_in_float32(dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = saved(tmp_path / "model", dtype=dtype)
    config = every_family.model("scae").config
    np.save(tmp_path / "images.npy", np.zeros((2, config.channels, config.canvas, config.canvas), np.uint8))
    assert cli.main(["reconstruct", *PARAMS, "--model", str(folder), "--images", str(tmp_path / "images.npy"),
                     "--out", str(tmp_path / "out")]) == 0
    assert f"the weights in {folder} are {str(dtype)[6:]}; used in float32" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------- the step

STEPS = {"NaN": torch.tensor(torch.nan), "a vector": torch.tensor([1, 2]), "negative": torch.tensor(-5),
         "a half": torch.tensor(2.5), "a float": torch.tensor(2.0), "bfloat16": torch.tensor(2, dtype=torch.bfloat16)}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_is_none_is_refused_as_that_of_an_original_is(step: str, tmp_path: Path,
                                                                  capsys: pytest.CaptureFixture) -> None:
    folder = changed(saved(tmp_path / "model", slots=("ms", "mom")),
                     lambda found: found | {"global_step": STEPS[step]}, "optimizer")
    error = refused(capsys, "convert", "--to", "tf", str(folder), str(tmp_path / "back"))
    assert re.search("optimizer.safetensors: global_step is .*; expected one int64 or int32 from 0 up", error), error


@pytest.mark.parametrize("said", ["abc", "-5", "2.5", "nan", "", "1_0", "٣", "9" * 5000])
def test_a_step_in_words_is_a_number(said: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = saved(tmp_path / "model")
    path = folder / "model.safetensors"
    save_file(load_file(path), path, {"global_step": said})
    assert "a whole number from 0 up" in refused(capsys, "convert", "--to", "tf", str(folder), str(tmp_path / "back"))


@pytest.mark.parametrize(("value", "found"), [(20.0, 20), (2.5, None), (-1.0, None), (torch.nan, None),
                                              (torch.inf, None)])
def test_the_count_of_a_training_adam_is_a_step(value: float, found: int | None, tmp_path: Path) -> None:
    """Of float32, as torch keeps it."""
    folder = saved(tmp_path / "model", "em", slots=("m", "v"))
    model = port.load(folder)
    name = next(iter(dict(model.named_parameters())))
    changed(folder, lambda slots: {key: slot for key, slot in slots.items() if key != "global_step"} | {
        f"{name}/step": torch.tensor(value)}, "optimizer")
    if found is None:
        with pytest.raises(CheckpointError, match="from 0 up"):
            model_folder.load_slots(folder, model)
    else:
        assert model_folder.load_slots(folder, model)[1] == found
