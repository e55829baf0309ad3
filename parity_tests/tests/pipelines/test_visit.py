"""A visit to a lent machine, in parts: limits of its phases, the queue, the ways, the parcel, the import.

The whole of it, with real training, signals and resuming, is test_visit_rehearsed.py (deep tier).
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from parity_tests.tests.pipelines.visit_parcels import checkpoint, packed
from pipelines import prepare
from pipelines import train as stage
from pipelines.support import settings
from pipelines.support.output import write_json
from pipelines.visit import __main__ as visit
from pipelines.visit import bring_home, processes, queue, ways
from port.training import resume

DIGITS = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.batch_size=8",
          "train.log_every=2", "train.held_out_every=0", "train.device=cpu",
          *(f"model.{key}={str(value).lower() if value is True else value}"
            for key, value in runs.TINY.items())]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


# ------------------------------------------------------------------------------------------- phases

@pytest.fixture
def stay(tmp_path: Path) -> processes.Visit:
    return processes.Visit(tmp_path / "out", 100.0)


def summary(stay: processes.Visit) -> dict:
    return json.loads((stay.out / "summary.json").read_text())


def test_a_phase_ends_or_fails_for_itself_alone(stay: processes.Visit) -> None:
    assert stay.phase("one", ["-c", "print('said')"], 30.0, environment={"A": "1"}) == 0
    assert stay.phase("two", ["-c", "raise SystemExit(3)"], 30.0) == 3
    assert stay.phase("three", ["-c", "import os; os.abort()"], 30.0) == -signal.SIGABRT
    assert stay.phase("four", ["-c", "pass"], 0.5, least=1.0) is None
    found = summary(stay)["phases"]
    assert [phase.get("code") for phase in found] == [0, 3, -6, None]
    assert found[3]["ended"].startswith("not begun")
    assert "said" in (stay.out / "log.txt").read_text()


POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(143)))
print('up'); sys.stdout.flush()
time.sleep(60)
"""
STUBBORN = POLITE.replace("(print('saved'), sys.exit(143))", "print('no')") + "time.sleep(60)\n"


def test_a_phase_is_stopped_at_its_limit(stay: processes.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM first, at which it may save, then SIGKILL."""
    monkeypatch.setattr(processes, "GRACE", 1.0)
    assert stay.phase("polite", ["-c", POLITE], 3.0) == 143
    assert stay.phase("stubborn", ["-c", STUBBORN], 3.0) == -signal.SIGKILL
    assert [phase["ended"] for phase in summary(stay)["phases"]] == ["limit", "killed"]
    assert "saved" in (stay.out / "log.txt").read_text()


def test_a_signal_ends_the_phase_and_begins_no_other(stay: processes.Visit) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stay.catch_signals()
    try:
        def once_up() -> None:
            if "up" in (stay.out / "log.txt").read_text():
                os.kill(os.getpid(), signal.SIGTERM)
        assert stay.phase("polite", ["-c", POLITE], 50.0, watch=once_up) == 143
        assert stay.phase("next", ["-c", "pass"], 50.0) is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [phase["ended"] for phase in summary(stay)["phases"]] == ["stopped", "not begun: stopped"]


def test_nothing_ends_a_visit_before_its_time(stay: processes.Visit, capsys: pytest.CaptureFixture) -> None:
    def broken() -> None:
        raise OSError("no space left")
    assert stay.guarded(broken) is None
    assert "broken: OSError: no space left" in capsys.readouterr().out


def test_the_log_stays_small(stay: processes.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LOG_LIMIT", 4000)
    stay.phase("loud", ["-c", "print('first'); print('x' * 9000); print('last')"], 30.0)
    text = (stay.out / "log.txt").read_text()
    assert len(text) < 4000 and "first" in text and "last" in text and "[...]" in text


# ------------------------------------------------------------------------------------ queue and ways

def test_the_queue_as_it_stands(tmp_path: Path) -> None:
    """Every run builds; none of the committed results counts as one trained on a GPU."""
    entries = queue.read()
    assert entries[0].name == "mnist-0" and {"mnist_paper-0", "mnist28_paper-4", "cifar10-0"} <= {
        entry.name for entry in entries}
    done = [entry.name for entry in entries if queue.is_done(
        REPOSITORY / "results", entry, entry.chosen().train(entry.seed)[0].steps, "cuda")]
    assert queue.waiting(entries, tmp_path, "results", "cuda") == [e for e in entries if e.name not in done]


def finished(results: Path, name: str, steps: int, device: str) -> None:
    preset, seed = name.rsplit("-", 1)
    folder = settings.folder_of("train", preset, int(seed), results)
    write_json(folder / "metrics.json", {"steps": steps})
    write_json(folder / "environment.json", {"device": device})


def test_what_is_done_waits_no_more_and_what_was_begun_comes_first(tmp_path: Path) -> None:
    entries = [queue.Entry("digits", seed, steps=50) for seed in range(4)]
    finished(tmp_path / "results", "digits-0", 50, "cuda")
    finished(tmp_path / "results", "digits-1", 49, "cuda")
    finished(tmp_path / "results", "digits-2", 50, "cpu")
    checkpoint(tmp_path / "work", "digits-3-abc", 20, {"model": 10})
    waiting = queue.waiting(entries, tmp_path / "work", tmp_path / "results", "cuda")
    assert [entry.name for entry in waiting] == ["digits-3", "digits-1", "digits-2"]
    # A seed's name is no beginning of another's.
    checkpoint(tmp_path / "work", "digits-31-abc", 20, {"model": 10})
    assert len(queue.checkpoints_of(tmp_path / "work", entries[3])) == 1


@pytest.mark.parametrize(("text", "says"), [
    ("runs: [{preset: mnit}]", "did you mean 'mnist'"), ("runs: [{preset: mnist, sed: 1}]", "'seed'"),
    ("runs: [{preset: mnist}, {preset: mnist}]", "mnist-0 stands there twice"), ("[]", "no mapping"),
    ("runs: 3", "no list of runs"), ("runs: [{preset: mnist, seed: one}]", "must be of type int"),
    ("runs: [{preset: mnist, overrides: [train.lrr=1]}]", "did you mean 'lr'")])
def test_a_wrong_queue_is_one_line(text: str, says: str, tmp_path: Path,
                                   capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "queue.yaml").write_text(text)
    arguments = ["--out", str(tmp_path / "out"), "--device", "cpu", "--queue", str(tmp_path / "queue.yaml")]
    with signals_kept():
        assert visit.main([*arguments, "--work", str(tmp_path / "work")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and says in line


def times(**steps_per_second: float) -> dict:
    return {name.replace("_without_", " without "): {
        "step_s": 1.0 / value, "finite": True, "rung": name.split("_without_")[0],
        "likelihood": "fused kernel"} for name, value in steps_per_second.items()}


def test_the_fastest_that_passed_comes_first() -> None:
    found = times(eager=100, captured=250, compiled_captured=300, compiled_captured_without_kernels=280)
    assert [way.name for way in ways.in_order(found, None)] == [
        "compiled_captured", "compiled_captured without kernels", "captured", "eager",
        "eager without kernels"]
    found["compiled_captured"]["finite"] = False
    found["captured"]["rung"] = "eager"  # it did not do what was asked
    assert [way.name for way in ways.in_order(found, None)][:2] == [
        "compiled_captured without kernels", "eager"]
    assert [way.name for way in ways.in_order({}, None)] == ["eager without kernels"]


def test_a_kernel_that_is_wrong_is_not_trained_with() -> None:
    tier = {"checks": [{"check": "fast/pixel likelihood, drawn", "verdict": "fail"},
                       {"check": "ops/relu1", "verdict": "pass"}]}
    assert all(way.kernels == "off" for way in ways.in_order(times(eager=1, captured=2), tier))
    tier["checks"][0]["verdict"] = "skipped"
    assert ways.in_order(times(eager=1, captured=2), tier)[0] == ways.NAMES["captured"]


def test_nothing_is_timed_twice() -> None:
    """Without a kernel both switches are one way."""
    plain = {"captured": {"likelihood": "plain PyTorch (on cuda)"}}
    without = ways.NAMES["captured without kernels"]
    assert not ways.worth_timing(without, plain) and not ways.worth_timing(without, {})
    assert ways.worth_timing(without, {"captured": {"likelihood": "fused kernel"}})
    assert ways.worth_timing(ways.NAMES["captured"], {})
    assert [way.rung for way in ways.possible("cpu")] == ["eager", "compiled"]


# --------------------------------------------------------------------------- a whole visit, and home

class signals_kept:
    """The handlers of a visit end with it."""

    def __enter__(self) -> None:
        self.before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def one_run(folder: Path, steps: int = 6) -> Path:
    """A queue of one tiny run of digits."""
    path = folder / "queue.yaml"
    path.write_text(json.dumps({"runs": [{"preset": "digits", "seed": 0, "steps": steps,
                                          "overrides": DIGITS}]}))
    return path


@pytest.fixture
def parcel_of_a_visit(tmp_path: Path, tier: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a short visit to this machine brought: one run to its end."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    monkeypatch.setenv("SCAE_REVISION", "")  # restored afterwards
    waiting = one_run(tmp_path)
    prepare.run(queue.read(waiting)[0].chosen(), tmp_path / "work" / "results")  # saves a process
    with signals_kept():
        code = visit.main(["--out", str(tmp_path / "out"), "--seconds", "400", "--device", "cpu", "--queue",
                           str(waiting), "--phases", "train", "--work", str(tmp_path / "work"),
                           "--results", str(tmp_path / "none"), "--revision", "abc123"])
    assert code == 0, (tmp_path / "out" / "log.txt").read_text()
    return tmp_path / "out"


def test_there_and_back(parcel_of_a_visit: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Trained, packed, imported: the same weights and slots, the environment of where it was trained."""
    brought = json.loads((parcel_of_a_visit / "summary.json").read_text())
    assert brought["order"] == ["eager without kernels"] and brought["run"] == "digits-0"
    home = tmp_path / "home"
    assert bring_home.main([str(parcel_of_a_visit), "--results", str(home), "--no-evaluate"]) == 0
    folder = settings.folder_of("train", "digits", 0, home)
    trained = settings.folder_of("train", "digits", 0, tmp_path / "work" / "results")
    for stem in ("model", "optimizer"):
        one, other = (resume.read_tensors(f / "model", stem, "cpu") for f in (folder, trained))
        assert not runs.differing(one, other) and one
    assert (folder / "history.csv").read_text() == (trained / "history.csv").read_text()
    before, after = (json.loads((f / "environment.json").read_text()) for f in (trained, folder))
    own = ("weights", "files")
    assert {name: after[name] for name in before if name not in own} == {
        name: value for name, value in before.items() if name not in own}
    assert after["kernels"] == "off" and after["rung"] == "eager"
    # Once more: there already, and evaluations of these weights stay.
    capsys.readouterr()
    assert bring_home.main([str(parcel_of_a_visit), "--results", str(home), "--no-evaluate"]) == 0
    assert "is here already" in capsys.readouterr().out
    refuses_another_run(parcel_of_a_visit, home, folder, after["weights"], capsys)


def refuses_another_run(brought: Path, home: Path, folder: Path, weights: str,
                        capsys: pytest.CaptureFixture) -> None:
    """What was trained on another device is not replaced unasked; its evaluation goes when it is."""
    environment = json.loads((folder / "environment.json").read_text())
    write_json(folder / "environment.json", environment | {"device": "cuda"})
    for name, digest in (("digits", "other"), ("digits_on_usps", weights),
                         ("digits_three_levels", "other")):
        write_json(home / "evaluate" / name / "0" / "metrics.json", {"weights": digest})
    assert bring_home.main([str(brought), "--results", str(home), "--no-evaluate"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "holds another run: device is 'cpu', not 'cuda'" in line and "--replace" in line
    assert bring_home.main([str(brought), "--results", str(home), "--no-evaluate", "--replace"]) == 0
    assert sorted(path.name for path in (home / "evaluate").iterdir()
                  if (path / "0").exists()) == ["digits_on_usps", "digits_three_levels"]


def test_an_unfinished_run_without_slots(tmp_path: Path) -> None:
    """Weights alone come in as a model at its step, with what its settings say of its precision."""
    preset = queue.Entry("digits", overrides=DIGITS).chosen()
    job = stage.Job.make(preset, 0, tmp_path, torch.device("cpu"), tmp_path / "work" / "checkpoints")
    folder = job.checkpoints / "step-00000004"
    folder.mkdir(parents=True)
    resume.write_tensors(folder, "model", job.model.state_dict())
    write_json(folder / "state.json", {"step": 4, "seconds": 1.5, "names": [], "count": 0, "history": [
        {"step": 4, "seconds": 1.5, "loss": 3.0}]})
    write_json(tmp_path / "work" / "runs" / "digits-0.json", {
        "preset": "digits", "seed": 0, "way": "captured", "rung": "captured", "kernels": "auto",
        "sections": preset.as_params(), "environment": {"device": "cuda", "device_name": "a card",
                                                        "tf32": {"matmul": True, "convolution": True}}})
    packed(tmp_path)
    (made,) = bring_home.run(tmp_path / "out", tmp_path / "home", measure=False)
    assert json.loads((made / "metrics.json").read_text())["steps"] == 4
    environment = json.loads((made / "environment.json").read_text())
    assert environment["device_name"] == "a card" and environment["captured"] is True
    assert environment["tf32"] == {"matmul": False, "convolution": False}
    assert not list((made / "model").glob("optimizer*"))
    assert settings.load_model(made).config == preset.config()


def test_a_parcel_without_a_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_json(tmp_path / "work" / "measured" / "probe.json", {"copy": 1})
    packed(tmp_path)
    assert bring_home.main([str(tmp_path / "out"), "--results", str(tmp_path / "home")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no run whose weights came along" in line and not (tmp_path / "home").exists()
