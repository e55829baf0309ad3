"""Training that goes on from a converted checkpoint, and numbered runs that were stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from parity_tests.tests.training import test_train_stage
from pipelines import cli
from pipelines import train as stage
from pipelines.support import settings
from pipelines.support.values import BadInput
from pipelines.training import numbered
from port.checkpoints import model_folder
from port.training import resume

STEP = 40


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """In the repository, checkpoints elsewhere."""
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setattr(stage, "RUNS", tmp_path / "runs")


def converted(folder: Path, slots: bool = True, **changed) -> Path:
    """A folder as `scae convert` writes it, of random weights and slots at step 40."""
    model = runs.model(seed=9, **changed)
    generator = torch.Generator().manual_seed(2)
    found = {name: {"ms": 1 + torch.rand(p.shape, generator=generator),
                    "mom": 1e-3 * torch.randn(p.shape, generator=generator)}
             for name, p in model.named_parameters()} if slots else None
    (folder.parent / "metrics.json").write_text('{"steps": 7, "seconds": 7.0}')  # of whatever lies in the same folder
    return port.checkpoint.save(model, folder, slots=found, step=STEP)


def preset(folder: Path, *more: str) -> settings.Preset:
    return test_train_stage.preset(f"train.continue_from={folder}", f"train.steps={STEP + 4}",
                                   "train.checkpoint_every=2", *more)


def test_the_run_begins_with_weights_slots_and_step(tmp_path, capsys, monkeypatch):
    """Its first checkpoint holds the converted numbers bit by bit; its first updates are the next steps."""
    folder = converted(tmp_path / "OUT")
    seen = {}
    keep = resume.State.save

    def save(state, place, made_with=None):
        keep(state, place, made_with)
        seen[state.step] = {part: resume.read_tensors(place / f"step-{state.step:08d}", part, "cpu")
                            for part in ("model", "optimizer")}
    monkeypatch.setattr(resume.State, "save", save)
    left = stage.run(preset(folder), 0, tmp_path / "results")
    assert f"{STEP} steps made before" in capsys.readouterr().out
    assert sorted(seen) == [STEP, STEP + 2, STEP + 4]
    for part in ("model", "optimizer"):
        given = load_file(folder / f"{part}.safetensors")
        given.pop("step", None), given.pop("global_step", None)
        first = seen[STEP][part]
        assert set(first) == set(given)
        assert all(torch.equal(first[name], given[name]) for name in given)
        assert any(not torch.equal(seen[STEP + 2][part][name], given[name]) for name in given)
    told = json.loads((left / "metrics.json").read_text())
    assert told["steps"] == STEP + 4 and told["steps_per_second"] is None, "its first steps took nobody knows how long"
    assert json.loads((left / "config.json").read_text())["train"]["continue_from"] == str(folder)
    assert f"by this project, continue_from {folder}." in (left / "model/README.md").read_text()


def test_without_slots_the_optimizer_starts_anew(tmp_path, capsys):
    stage.run(preset(converted(tmp_path / "OUT", slots=False)), 0, tmp_path / "results")
    assert "no optimizer slots, which start anew" in capsys.readouterr().out


@pytest.mark.parametrize(("changed", "more", "says"), [
    ({"n_obj_caps": 4}, (), "is another model than the preset's"),
    ({}, ("train.steps=40",), "set train.steps above that"),
    ({}, ("train.optimizer=tf-adam",), "has the slots of tf-rmsprop; set train.optimizer to it")])
def test_it_refuses(tmp_path, changed, more, says):
    folder = converted(tmp_path / "OUT", **changed)
    with pytest.raises(BadInput, match=says):
        stage.run(preset(folder, *more), 0, tmp_path / "results")
    assert not (tmp_path / "results/train").exists() and not list((tmp_path / "runs").glob("*/step-*"))


def test_nothing_there_is_one_line(tmp_path, capsys):
    """Exit 2, from the command line too, where --init names it."""
    command = test_train_stage.command("train", "--preset", "digits", "--init", str(tmp_path / "none"),
                                       "--results", str(tmp_path / "results"))
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "holds no model.safetensors" in error and error.count("\n") == 1


def test_a_stopped_run_goes_on_when_asked_for_again(tmp_path, monkeypatch, capsys):
    """The same command continues the numbered run; another seed, or a finished run, gets a new number."""
    monkeypatch.setattr(numbered, "RUNS", tmp_path / "numbered")
    command = test_train_stage.command("train", "--preset", "digits")
    keep = resume.State.save

    def stop(state, place, made_with=None):
        keep(state, place, made_with)
        if state.step == 2:
            raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(resume.State, "save", stop)
        assert cli.main(command) == 130
    folders = tmp_path / "numbered/digits"
    for other in (["--seed", "1"], ["--seeds", "0,1"]):  # not the one that was stopped
        assert cli.main([*command, *other]) == 0
        assert not (folders / "1/train/digits/0/metrics.json").exists()
        (folders / "2").rename(tmp_path / f"other{other[0]}")
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "going on with" in (said := capsys.readouterr().out) and "continuing from step 2" in said
    assert [path.name for path in folders.iterdir()] == ["1"]
    assert cli.main(command) == 0
    assert sorted(path.name for path in folders.iterdir()) == ["1", "2"]


def unsaid(run: Path) -> None:
    """As a run of an earlier version: its environment names the digest of no other file than the weights."""
    told = json.loads((run / "environment.json").read_text())
    del told["files"]
    (run / "environment.json").write_text(json.dumps(told))


def test_a_run_is_continued_by_its_folder_its_model_or_the_name_of_its_preset(tmp_path, capsys):
    """All three are the same; a run of an earlier version, whose slots do not say the step, says it beside them."""
    results, found = tmp_path / "results", {}
    left = stage.run(test_train_stage.preset(f"train.steps={STEP}"), 0, results)
    slots = load_file(left / "model/optimizer.safetensors")
    metrics = json.loads((left / "metrics.json").read_text())
    before = metrics["seconds"] = 1000.0
    (left / "metrics.json").write_text(json.dumps(metrics))
    unsaid(left)
    assert slots.pop("global_step") == STEP
    for way in (str(left), str(left / "model"), "as before", "digits"):  # the last one takes the run's place
        if way == "as before":
            resume.write_tensors(left / "model", "optimizer", slots)
        again = stage.run(preset(left if way == "as before" else Path(way)), 0,
                          results if way == "digits" else tmp_path / way.replace("/", "-"))
        assert f"{STEP} steps made before" in capsys.readouterr().out
        found[way] = test_train_stage.weights(again)
        told = json.loads((again / "metrics.json").read_text())
        assert told["seconds"] > before, "with the time of the steps made before"
        assert told["steps_per_second"] == pytest.approx((STEP + 4) / told["seconds"], rel=0.1)
    first = found.pop(str(left))
    assert first["global_step"] == STEP + 4
    for one in found.values():
        assert set(one) == set(first) and all(torch.equal(one[name], first[name]) for name in first)


def test_a_numbered_run_continues_the_latest_of_a_preset(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(numbered, "RUNS", tmp_path / "numbered")
    command = test_train_stage.command("train", "--preset", "digits")
    more = [*command, "--init", "digits", "--set", f"train.steps={test_train_stage.STEPS + 2}"]
    assert cli.main(more) == 2
    assert "no run of digits with seed 0" in capsys.readouterr().err
    assert cli.main(command) == 0 and cli.main(more) == 0
    assert f"{test_train_stage.STEPS} steps made before" in capsys.readouterr().out


def test_slots_in_several_files(tmp_path, monkeypatch, capsys):
    """As a large model's run leaves them: all are read, and one that is missing is missed."""
    results = tmp_path / "results"
    whole = stage.run(test_train_stage.preset(f"train.steps={STEP}"), 0, results)
    monkeypatch.setattr(resume, "FILE_LIMIT", 2000)
    parted = stage.run(test_train_stage.preset(f"train.steps={STEP}"), 0, tmp_path / "parted")
    files = model_folder.slot_files(parted / "model")
    assert len(files) > 2 and not (parted / "model/optimizer.safetensors").exists()
    model = port.load(parted)
    (ours, step), (expected, _) = (model_folder.load_slots(run / "model", model) for run in (parted, whole))
    assert step == STEP and set(ours) == set(expected)
    assert all(torch.equal(ours[name][slot], expected[name][slot]) for name in ours for slot in ours[name])
    command = ["convert", "--to", "tf", "--no-verify", str(parted / "model"), str(tmp_path / "back/model.ckpt-40")]
    assert cli.main(command) == 0
    arrays = port.read_checkpoint(tmp_path / "back/model.ckpt-40")
    assert arrays["global_step"] == STEP and sum("RMSProp" in name for name in arrays) == 2 * len(ours)
    stage.run(preset(parted), 0, tmp_path / "others")
    said = capsys.readouterr().out
    assert f"{STEP} steps made before" in said and "start anew" not in said
    for gone, says in ((files[1], f"{files[1].name} is missing"), (files[-1], "one is missing")):
        kept = gone.read_bytes()
        gone.unlink()
        assert cli.main([*command[:-1], str(tmp_path / "none/model.ckpt-40")]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
        gone.write_bytes(kept)
    port.save(model, parted / "model")  # a model put in its place does without the other's slots
    assert model_folder.slot_files(parted / "model") == []
