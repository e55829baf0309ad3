"""Many runs beside each other: the same bits as alone, stopped and gone on, a failure that costs itself alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from parity_tests.harness import runs
from pipelines import ablation, soak
from pipelines import train as training
from pipelines.evaluation import row_measures
from pipelines.support import children, console, descent
from pipelines.support.values import CheckFailed
from pipelines.training import beside, row_runs, rows
from port.training import ensemble, pretended, resume, sound
from port.training import loop as train
from port.training.rungs import RungFailed
from port.training.step import Step

CHANGES = {"whole": {"words": "as it is"},
           "plain": {"words": "no features", "set": ["model.n_part_special_features=0",
                                                     "model.colorize_templates=false"]},
           "fast": {"words": "a rate that breaks it", "set": ["train.lr=1e30"]}}
SMALL = {"prepare": {"download": False}, "presets": {"small": {
    "prepare": {"source": "digits", "options": {"enlarge": 12, "test_share": 0.25, "split_seed": 0}},
    "model": {key: list(v) if isinstance(v, list) else v for key, v in runs.TINY.items()},
    "train": {"device": "cpu", "threads": 1, "batch_size": 8, "steps": 50, "log_every": 4, "held_out_every": 0,
              "checkpoint_every": 3, "checkpoint_seconds": 0}, "evaluate": {"batch_size": 150}}},
    "ablation": {"preset": "small", "steps": 9, "seeds": [0, 1], "rows": ["whole", "plain"], "changes": CHANGES}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SMALL))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "RUNS", tmp_path / "runs")
    # What was measured keeps its weights, to be compared.
    monkeypatch.setattr(row_measures, "sound", SimpleNamespace(**vars(sound) | {"discard": lambda folder: None}))
    return tmp_path


def left(results: str, name: str, seed: int) -> dict:
    """A row's metrics and settings, without times."""
    folder = Path(results) / "ablation" / name / str(seed)
    metrics, config = (json.loads((folder / f"{what}.json").read_text()) for what in ("metrics", "config"))
    return {"config": config} | {key: {k: v for k, v in value.items() if k != "seconds"} if key == "last" else value
                                 for key, value in metrics.items() if key != "seconds"}


def weights(folder: str, name: str, seed: int) -> dict:
    """Of a row's last checkpoint."""
    (checkpoints,) = Path(folder).glob(f"ablation-{name}-{seed}-*")
    newest = resume.checkpoints(checkpoints)[-1]
    return resume.read_tensors(newest, "model", "cpu") | resume.read_tensors(newest, "optimizer", "cpu")


def alone(name: str, seed: int) -> None:
    assert ablation.main(["--row", name, "--seed", str(seed), "--results", "alone", "--runs", "runs/alone"]) == 0


def same(name: str, seed: int) -> None:
    """What was trained beside others is what was trained alone."""
    assert left("results", name, seed) == left("alone", name, seed)
    assert not runs.differing(weights("runs/together", name, seed), weights("runs/alone", name, seed))


TOGETHER = ["--all", "--together", "3", "--runs", "runs/together"]


def test_rows_beside_each_other_are_those_alone(here: Path, capsys: pytest.CaptureFixture) -> None:
    """Weights and slots bit for bit, and the measures."""
    assert ablation.main(TOGETHER) == 0
    said = capsys.readouterr().out
    assert all(f"{name}, seed {seed}: done, 9 steps" in said for name in ("whole", "plain") for seed in (0, 1))
    alone("plain", 0)
    same("plain", 0)
    assert ablation.main(TOGETHER) == 0 and "done, 9" not in capsys.readouterr().out


def test_what_is_trained_is_measured_by_a_process_of_its_own(here: Path, tier: str) -> None:
    """As on a GPU, to the same measures; what waits from before comes first."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    few = SMALL | {"ablation": SMALL["ablation"] | {"rows": ["plain"], "seeds": [0], "steps": 4}}
    Path("params.yaml").write_text(yaml.safe_dump(few))
    assert ablation.main([*TOGETHER, "--processes", "0"]) == 0  # leaves its checkpoints: see `here`
    before = left("results", "plain", 0)
    Path("results/ablation/plain/0/metrics.json").unlink()
    assert len(row_measures.waiting(Path("runs/together"))) == 1
    assert ablation.main([*TOGETHER, "--processes", "1"]) == 0
    assert left("results", "plain", 0) == before and not row_measures.waiting(Path("runs/together"))


@pytest.mark.parametrize(("trained", "asked"), [(4, 6), (6, 4)])
def test_a_row_of_another_length_is_not_the_row_that_is_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch,
                                                                  capsys: pytest.CaptureFixture, trained: int,
                                                                  asked: int) -> None:
    """Trained and not yet measured: a longer one goes on, a shorter one is refused, for the row would be lost."""
    command = ["--row", "plain", "--runs", "runs/together", "--steps"]
    with monkeypatch.context() as patch:
        patch.setattr(row_runs.Run, "measure", lambda self: self.folder)
        assert ablation.main([*command, str(trained)]) == 0
    (waiting,) = row_measures.waiting(Path("runs/together"))
    if asked < trained:
        assert ablation.main([*command, str(asked)]) == 2 and row_measures.steps_of(waiting) == trained
        error = capsys.readouterr().err
        assert f"one of {trained} steps is trained and not measured yet" in error and error.count("\n") == 1
        assert ablation.main(["--measure", str(waiting)]) == 0 and left("results", "plain", 0)["steps"] == trained
        shutil.rmtree(waiting)  # as measuring does; here it keeps them
    assert ablation.main([*command, str(asked)]) == 0
    assert ablation.main(["--row", "plain", "--results", "alone", "--runs", "runs/alone", "--steps", str(asked)]) == 0
    found = left("results", "plain", 0)
    assert found["steps"] == asked and found == left("alone", "plain", 0)


def test_a_row_is_measured_on_the_data_that_it_was_trained_on(here: Path, monkeypatch: pytest.MonkeyPatch,
                                                              capsys: pytest.CaptureFixture) -> None:
    command = ["--row", "plain", "--steps", "2", "--runs", "runs/together"]
    with monkeypatch.context() as patch:
        patch.setattr(row_runs.Run, "measure", lambda self: self.folder)
        assert ablation.main(command) == 0
    (state,) = Path("runs/together").glob("ablation-plain-0-*/step-*2/state.json")
    state.write_text(json.dumps(json.loads(state.read_text()) | {"data": "0123456789abcdef"}))
    assert ablation.main(command) == 2 and not Path("results/ablation/plain/0/metrics.json").exists()
    assert "was made on other data than there are now (0123456789abcdef, not" in capsys.readouterr().err


def test_the_end_of_the_time_and_on(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """Two under way are saved, the others not begun; the same command goes on to the same bits."""
    told = beside.Beside.round

    def over(self: beside.Beside, under_way: int, stop: list[int]) -> None:
        self.end = 0.0 if under_way == 2 and self.steps > 4 else None
        told(self, under_way, stop)
    command = ["--all", "--together", "2", "--runs", "runs/together", "--seconds", "1000"]
    with monkeypatch.context() as patch:
        patch.setattr(beside.Beside, "round", over)
        assert ablation.main(command) == 0 and not list(Path("results").glob("ablation/*/*/metrics.json"))
    assert "2 saved under way, 2 not begun" in capsys.readouterr().out
    steps = [int(resume.checkpoints(folder)[-1].name[5:]) for folder in Path("runs/together").glob("ablation-*")]
    assert len(steps) == 2 and all(0 < step < 9 for step in steps)
    assert ablation.main(command) == 0
    alone("whole", 1)
    same("whole", 1)


def test_a_signal_saves_all_of_them(here: Path, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture) -> None:
    """SIGTERM as a visit sends it; the exit code says so, and no state is lost."""
    told = beside.Beside.round

    def terminated(self: beside.Beside, under_way: int, stop: list[int]) -> None:
        told(self, under_way, stop)
        if self.steps > 5 and not stop:
            os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(beside.Beside, "round", terminated)
    assert ablation.main(TOGETHER) == 128 + signal.SIGTERM
    assert "state saved" in capsys.readouterr().err
    assert len(list(Path("runs/together").glob("ablation-*/step-*"))) >= 3


def test_a_run_that_breaks_costs_itself_alone(here: Path, capsys: pytest.CaptureFixture) -> None:
    """It is named with its cause, and the code says that something failed."""
    fast = SMALL | {"ablation": SMALL["ablation"] | {"rows": ["fast", "whole"], "seeds": [0]}}
    Path("params.yaml").write_text(yaml.safe_dump(fast))
    assert ablation.main(TOGETHER) == 1
    said = capsys.readouterr()
    assert "fast, seed 0: failed: " in said.out and "whole, seed 0: done" in said.out
    (line,) = said.err.strip().splitlines()
    assert line.startswith("failed: fast, seed 0: ") and "not finite" in line and "first non-finite" in line
    wanted = rows.section("params.yaml")
    assert rows.is_done(wanted, "whole", 0, "results", "params.yaml")
    assert not rows.is_done(wanted, "fast", 0, "results", "params.yaml")


def test_a_step_that_fails_ends_the_process_and_not_the_others(here: Path, monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture) -> None:
    """The next process leaves that run out, and the others go on from where they were."""
    called = Step.__call__

    def failing(self: Step, index, lr: float) -> None:
        if self.state.step == 2 and self.settings.seed == 1 and self.model.config.part_decoder.colorize_templates:
            raise RungFailed("captured", "the step cannot be captured as a CUDA graph", RuntimeError("no"))
        called(self, index, lr)
    monkeypatch.setattr(Step, "__call__", failing)
    command = [*TOGETHER, "--failed", "failed.json"]
    assert ablation.main(command) == console.RUNG_FAILED
    assert json.loads(Path("failed.json").read_text()).keys() == {"whole, seed 1"}
    saved = {folder.name.rpartition("-")[0]: resume.checkpoints(folder)[-1].name
             for folder in Path("runs/together").glob("ablation-*") if resume.checkpoints(folder)}
    assert saved["ablation-whole-0"] == "step-00000004" and saved["ablation-plain-0"] == "step-00000001"
    assert ablation.main(command) == 1
    said = capsys.readouterr()
    assert "failed: whole, seed 1: rung captured" in said.err and "plain, seed 1: done" in said.out


def test_fresh_processes_until_none_fails_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are new failures; the time is that of all together."""
    begun, answers = [], [(3, {"a": "no"}), (3, {"a": "no", "b": "no"}), (1, {"a": "no", "b": "no"})]

    def followed(command: list[str]) -> int:
        begun.append(command)
        code, failed = answers[len(begun) - 1]
        Path(command[command.index("--failed") + 1]).write_text(json.dumps(failed))
        return code
    monkeypatch.setattr(descent, "followed", followed)
    with pytest.raises(console.Ended) as ended:
        beside.Options(5, 100.0, words=["pipelines.soak", "--seeds", "1"]).in_fresh_processes("r", "p.yaml", "cuda")
    assert ended.value.code == 1 and len(begun) == 3
    words = begun[0][:begun[0].index("--failed")]
    assert words == [sys.executable, "-m", "pipelines.soak", "--seeds", "1", "--results", "r", "--params", "p.yaml",
                     "--device", "cuda", "--together", "5", "--seconds", "100"]
    # A failure of the process itself is not tried for ever.
    begun, answers = [], [(3, {})]
    with pytest.raises(console.Ended):
        beside.in_fresh_processes(lambda left: ["x"], None)
    assert len(begun) == 1


@pytest.mark.parametrize(("asked", "runs", "device", "most"), [
    (None, 57, "cuda", 19), (None, 20, "cuda", 20), (None, 21, "cuda", 11), (None, 1, "cuda", 1), (None, 57, "cpu", 1),
    (4, 57, "cuda", 4), (3, 57, "cpu", 3)])
def test_how_many_beside_each_other(asked: int | None, runs: int, device: str, most: int) -> None:
    assert beside.Options(asked).most(runs, device) == most


@pytest.mark.parametrize(("own", "device", "seconds", "compiled"), [
    (0.0, "cuda", beside.CHECKPOINTS, False), (999.0, "cuda", 999.0, False), (0.0, "cpu", 0.0, True)])
def test_beside_others_on_a_gpu_nothing_compiles_and_saving_is_rare(own, device, seconds, compiled) -> None:
    found = beside.settings_of(runs.settings(checkpoint_seconds=own, compile=True), device)
    assert (found.checkpoint_seconds, found.compile) == (seconds, compiled)


def test_models_of_several_kinds_are_each_captured() -> None:
    """On the pretended GPU: a graph each, though only two are under way at a time."""
    def start(**changed):
        return lambda: ensemble.Start(runs.model(**changed).to("cuda"), runs.dataset().to("cuda"),
                                      runs.settings(steps=3, log_every=3), {})
    with pretended.gpu() as graphs:
        waiting = [("whole", start()), ("plain", start(colorize_templates=False, n_part_special_features=0)),
                   ("broken", lambda: 1 / 0), ("third", start(similarity_transform=True))]
        ended = dict(ensemble.in_turns(waiting, 2, []))
    assert list(ended) == ["whole", "broken", "plain", "third"] and isinstance(ended.pop("broken"), ZeroDivisionError)
    assert [graph.replays for graph in graphs] == [3, 3, 3] and {one.rung for one in ended.values()} == {"captured"}


def test_another_precision_is_another_group(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is set for the whole process, so such runs do not train beside each other."""
    groups = []
    monkeypatch.setattr(beside.Beside, "run", lambda self, stop: groups.append(list(self.works)))
    works = [SimpleNamespace(name=name, settings=runs.settings(tf32=tf32))
             for name, tf32 in (("a", False), ("b", True), ("c", False))]
    beside.run(works, 3)
    assert groups == [["a", "c"], ["b"]]
    made = [(i, lambda tf32=tf32: ensemble.Start(runs.model(), runs.dataset(), runs.settings(tf32=tf32, steps=2), {}))
            for i, tf32 in enumerate((False, True))]
    ended = dict(ensemble.in_turns(made, 2, []))
    assert isinstance(ended[0], train.Trained) and "need one precision" in str(ended[1])


def test_a_crew_of_processes(tmp_path: Path) -> None:
    """At most so many at a time, each code kept; those that still run are ended."""
    crew = children.Crew(2)
    for name, code in (("a", 0), ("b", 3), ("c", 0)):
        crew.add(name, ["-c", f"raise SystemExit({code})"])
    assert len(crew.running) == 2 and len(crew.waiting) == 1
    crew.finish()
    assert crew.codes == {"a": 0, "b": 3, "c": 0}
    crew.add("d", ["-c", "import time; time.sleep(60)"])
    crew.close()
    assert crew.running["d"].poll() == -signal.SIGTERM


def test_soaks_beside_each_other(here: Path, capsys: pytest.CaptureFixture) -> None:
    """Those that stay finite and those that do not, as alone; what ended is left alone."""
    command = ["--preset", "small", "--steps", "6", "--set", "train.log_every=2"]
    assert soak.main([*command, "--factors", "3", "1e33", "--seeds", "0", "1", "--together", "4"]) == 0
    assert soak.main([*command, "--factor", "1e33", "--seed", "1", "--results", "alone"]) == 0
    found = {result: json.loads((Path(result) / "soak/small/x1e+33/1/metrics.json").read_text())
             for result in ("results", "alone")}
    for one in found.values():
        assert not one["finite"]
        for timed in (one, *one["looks"]):
            timed.pop("seconds")
    assert found["results"] == found["alone"]
    assert json.loads((here / "results/soak/small/x3/0/metrics.json").read_text())["finite"]
    capsys.readouterr()
    assert soak.main([*command, "--factors", "3", "1e33", "--seeds", "0", "1"]) == 0
    assert not capsys.readouterr().out


def test_failures_are_named_at_the_end(capsys: pytest.CaptureFixture) -> None:
    outcome = beside.Outcome(done=["a"], failed={"b": "why"}, saved=["c"])
    with pytest.raises(CheckFailed, match="b: why"):
        beside.conclude(outcome, ["c", "d"])
    assert "1 saved under way, 1 not begun" in capsys.readouterr().out
