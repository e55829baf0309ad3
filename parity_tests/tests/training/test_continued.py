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
from pipelines.training import continued, given_weights, numbered
from port.checkpoints import model_folder
from port.core.gathering import alone
from port.data import standard_sets
from port.training import loop, optimizers, resume

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


RULES = [*((rule, 0.9) for rule in optimizers.RULES), ("sgd", 0.0), ("rmsprop", 0.0)]


def stopped(folder: Path, **changed) -> tuple[Path, dict[str, torch.Tensor]]:
    """A model of a run as the train stage leaves it after three steps, and every tensor that it holds."""
    model = runs.model()
    trained = loop.train(model, runs.dataset(), runs.settings(steps=3, log_every=3, **changed))
    port.save(model, folder / "model")
    slots = resume.read_slots(model, trained.optimizer)
    resume.write_tensors(folder / "model", "optimizer", slots | {model_folder.STEP: torch.tensor(3)})
    (folder / "config.json").write_text(json.dumps({"train": {"optimizer": "tf-rmsprop", **changed}}))
    return folder / "model", {name: value.clone() for name, value in runs.left(model, trained).items()}


@pytest.mark.parametrize(("rule", "momentum"), RULES)
def test_every_optimizer_goes_on_with_its_own_slots(tmp_path, rule, momentum, capsys):
    """The first checkpoint holds what the run left bit by bit, and says of itself what a run's says."""
    changed = {"optimizer": rule, "momentum": momentum}
    folder, left = stopped(tmp_path / "run", **changed)
    model, wanted = runs.model(seed=2), runs.settings(steps=6, log_every=3, **changed)
    continued.plant(folder, model, runs.dataset(), wanted, tmp_path / "checkpoints")
    said = capsys.readouterr().out
    assert "3 steps made before" in said and "start anew" not in said and "compile" not in said
    planted = resume.checkpoints(tmp_path / "checkpoints")[0]
    found = resume.read_tensors(planted, "model", "cpu") | resume.read_tensors(planted, "optimizer", "cpu")
    assert not runs.differing(found, left)
    assert model.check_range and model.gather is alone
    state = json.loads((planted / "state.json").read_text())
    assert state["data"] == standard_sets.digest_of(runs.dataset())
    run = loop.Run(runs.model(), runs.dataset(), wanted, tmp_path / "own")
    run.advance([])
    run.keep()
    own = json.loads((resume.checkpoints(tmp_path / "own")[-1] / "state.json").read_text())
    assert state["made_with"] == own["made_with"] and state["data"] == own["data"]
    trained = loop.train(model, runs.dataset(), wanted, tmp_path / "checkpoints")
    assert trained.resumed_at == 3 and trained.step == 6 and not trained.notes


def test_what_compile_auto_decides_is_left_to_the_run(tmp_path, monkeypatch):
    """No trial for a checkpoint; the run that goes on from it decides."""
    folder, _ = stopped(tmp_path / "run")
    wanted = runs.settings(steps=6, compile="auto")
    with monkeypatch.context() as patch:
        patch.setattr(loop.compiling, "make", lambda *arguments: pytest.fail("a trial"))
        continued.plant(folder, runs.model(), runs.dataset(), wanted, tmp_path / "checkpoints")
    trained = loop.train(runs.model(), runs.dataset(), wanted, tmp_path / "checkpoints")
    assert trained.resumed_at == 3 and not any("with another" in note for note in trained.notes)


@pytest.mark.parametrize(("had", "wanted", "says"), [
    ({"optimizer": "adam"}, {}, "has the slots of adam; set train.optimizer to it, not to tf-rmsprop"),
    ({"optimizer": "adam"}, {"optimizer": "radam"}, "has the slots of adam; set train.optimizer to it"),
    ({"optimizer": "sgd"}, {"optimizer": "sgd", "momentum": 0.0}, "has the slots of sgd with momentum"),
    ({"optimizer": "rmsprop", "momentum": 0.0}, {"optimizer": "rmsprop"}, "slots of rmsprop without momentum")])
def test_another_rule_is_named(tmp_path, had, wanted, says):
    folder, _ = stopped(tmp_path / "run", **had)
    with pytest.raises(BadInput, match=says):
        continued.plant(folder, runs.model(), runs.dataset(), runs.settings(steps=6, **wanted), tmp_path / "none")
    (tmp_path / "run/config.json").unlink()  # nobody says which: those that have such slots
    if "radam" not in wanted.values():
        with pytest.raises(BadInput, match=says.replace("adam;", "adam or radam;")):
            continued.plant(folder, runs.model(), runs.dataset(), runs.settings(steps=6, **wanted), tmp_path / "none")
    assert not (tmp_path / "none").exists()


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


def test_other_slots_are_another_start(tmp_path):
    """They are part of what a run begins with, and so of the name of its checkpoints."""
    folder = converted(tmp_path / "OUT")
    weights, whole = (given_weights.digest(folder, "continue_from", optimizer=slots) for slots in (False, True))
    slots = load_file(folder / "optimizer.safetensors")
    name = next(name for name, value in slots.items() if value.is_floating_point())
    resume.write_tensors(folder, "optimizer", slots | {name: slots[name] + 1})
    assert given_weights.digest(folder, "continue_from") == weights
    assert given_weights.digest(folder, "continue_from", optimizer=True) != whole


@pytest.mark.parametrize(("change", "says"), [
    ("train.steps=99", ""), ("train.log_every=1", ""), ("train.lr=0.5", "train.lr 0.0001, not 0.5"),
    ("model.n_obj_caps=4", "model.n_obj_caps 5, not 4"), ("prepare.source=usps", "prepare.source 'digits', not 'usps'"),
    ("model.steps=1", "model.steps None, not 1")])
def test_only_length_and_reports_may_change(change, says):
    before = test_train_stage.preset("train.lr=0.0001")
    now = settings.overridden(before, [change])
    if not says:
        numbered.refuse_changes(before, now, Path("runs/digits/1"))
        return
    with pytest.raises(BadInput, match=f"runs/digits/1 was started with {says}; leave that out"):
        numbered.refuse_changes(before, now, Path("runs/digits/1"))


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
