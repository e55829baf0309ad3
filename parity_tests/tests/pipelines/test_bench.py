"""`scae bench`: its figures from given samples, its refusals, and one worker that really times."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import port
from parity_tests.goldens import REPOSITORY
from pipelines import cli
from pipelines.bench import floors as bench_floors
from pipelines.bench import seeds as bench_seeds
from pipelines.bench import training_step
from pipelines.bench import worker as bench_worker
from port.training import loop as train

SAMPLES = {
    "port step eager fast": [0.5, 0.4], "port step compiled fast": [0.3, 0.35],
    "port step eager plain": [1.5, 1.6], "reference step": [1.25, 1.2],
    "port forward eager fast": [0.2, 0.1], "port forward compiled fast": [0.3, 0.3],
    "reference forward": [0.6, 0.4], "port convolutions eager": [0.125, 0.2],
    "port convolutions compiled": [0.1, 0.12]}


def test_summary() -> None:
    """The contract's keys: minima, reference over the faster port, step over the faster floor."""
    found = training_step.summary(SAMPLES, training_step.Options())
    assert found["train_step"] == {"port_eager_s": 0.4, "port_compiled_s": 0.3, "reference_s": 1.2,
                                   "ratio": pytest.approx(4.0)}
    assert found["forward"] == {"port_eager_s": 0.1, "port_compiled_s": 0.3, "reference_s": 0.4,
                                "ratio": pytest.approx(4.0)}
    assert found["convolutions_floor_s"] == 0.1
    assert found["floor_multiple"] == pytest.approx(3.0)
    assert found["forward_floor_multiple"] == pytest.approx(1.0)
    assert found["fastest_step"] == "step compiled fast"
    assert found["medians_s"]["reference step"] == pytest.approx(1.225)


def test_summary_without_reference_and_compiler() -> None:
    """What could not be measured is null, not left out."""
    found = training_step.summary({name: seconds for name, seconds in SAMPLES.items()
                           if "reference" not in name and "compiled" not in name}, training_step.Options())
    assert found["train_step"] == {"port_eager_s": 0.4, "port_compiled_s": None, "reference_s": None,
                                   "ratio": None}
    assert found["floor_multiple"] == pytest.approx(3.2)
    text = training_step.table(found | {"threads": 2, "pixel_likelihood": "plain", "notes": ["no reference"]})
    assert "no reference" in text and "x the convolutions" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
    (["--repeats", "-1"], "--repeats must be at least 1, not -1"),
    (["--device", "tpu"], "--device must be cpu, cuda or pretended, not tpu"),
    (["--json", "/no/such/folder/b.json"], "there is no folder /no/such/folder"),
    (["--preset", "mnisd"], "mnist")])
def test_refusals(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    """One line, before anything is measured."""
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_worker() -> None:
    """A worker answers with seconds, says what it cannot do, and goes on."""
    worker = training_step.Worker("port", training_step.Options(preset="digits", batch_size=2), threads=1)
    try:
        assert worker.ask("run", "forward eager fast") > 0
        with pytest.raises(RuntimeError, match="nonsense"):
            worker.ask("run", "nonsense eager fast")
        assert worker.ask("memory", "step eager fast", 1)["memory_mb"] > 100
    finally:
        worker.close()


def test_the_precision_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 is as the preset says while a worker lives, and its step is the training loop's."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    side = bench_worker.Port("digits", "params.yaml", 2, 1, "cpu")
    with side.stack:
        assert torch.backends.cudnn.allow_tf32 is side.wanted.tf32 is False
        run = side.run_on("eager", "fast")
        assert isinstance(run, train.Run) and run.settings.batch_size == 2
        side.prepare("step", "eager")()
        assert run.state.count == 1
        assert side.run_on("eager", "fast") is run
    assert torch.backends.cudnn.allow_tf32


def test_every_rung_is_timed_on_a_gpu() -> None:
    """Compiled and captured together too; and the batch is the preset's own."""
    named = [name for _, name in training_step.variants(training_step.Options(device="cuda"))]
    assert [name for name in named if name.startswith("step ")] == [
        f"step {rung} fast" for rung in ("eager", "compiled", "captured", "compiled_captured")]
    assert training_step.check(training_step.Options(preset="digits"), None).batch_size == 32
    found = training_step.summary({"port step compiled fast": [0.4], "port step compiled_captured fast": [0.1]},
                          training_step.Options(device="cuda"))["train_step"]
    assert (found["port_compiled_s"], found["port_compiled_captured_s"]) == (0.4, 0.1)


def test_after_a_failed_capture_another_process_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note says why; the process that may hold a stuck generator is left."""
    begun = []
    monkeypatch.setattr(training_step.Worker, "start", lambda self: begun.append(self))
    worker = training_step.Worker("port", training_step.Options(), 1)
    worker.process = SimpleNamespace(
        poll=lambda: None, wait=lambda timeout: 3, stdin=io.StringIO(),
        stdout=io.StringIO('{"kind": "RungFailed", "error": "rung captured: no"}\n'))
    worker.log = io.StringIO()
    with pytest.raises(RuntimeError, match="rung captured: no"):
        worker.ask("run", "step captured fast")
    assert len(begun) == 2


@pytest.mark.parametrize("preset", ["digits", "ocae", "digits_three_levels", "pcae", "constellation"])
def test_the_reference_s_model_is_the_port_s(preset: str, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same kind, so with the same variables; it makes a forward pass and an update."""
    import tensorflow as tf
    for threads in ("intra", "inter"):  # TensorFlow takes them before its first operation alone
        monkeypatch.setattr(tf.config.threading, f"set_{threads}_op_parallelism_threads", lambda count: None)
    side = bench_worker.Reference(preset, str(REPOSITORY / "params.yaml"), 2, 1, "cpu")
    made = port.build(side.preset.config(), 0)
    assert side.model().variables_by_name.keys() == port.to_tf(made).keys()
    if tier == "smoke":
        return
    side.tf.config.run_functions_eagerly(True)
    try:
        assert side.run("forward") > 0 and side.run("step") > 0
    finally:
        side.tf.config.run_functions_eagerly(False)


def test_what_has_no_reference_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rows and ratios are left out; so is the floor where there is no part encoder."""
    begun: list[tuple[str, str]] = []
    monkeypatch.setattr(training_step.Worker, "start", lambda self: None)
    monkeypatch.setattr(training_step.Worker, "close", lambda self: None)
    monkeypatch.setattr(training_step.Worker, "ask", lambda self, what, *given: (
        {"pixel_likelihood": "none"} if what == "describe" else begun.append((self.side, given[0])) or 0.5))
    monkeypatch.setattr(training_step, "memory", lambda *given: {})
    options = training_step.Options(params=str(REPOSITORY / "params.yaml"), batch_size=2, repeats=1, threads=1)
    for preset, without in (("capsnet_mnist_small", "no reference: that of model capsnet is not timed"),
                            ("em_mnist_small", "no reference: that of model em is not timed"), ("constellation", None)):
        begun.clear()
        found = training_step.run(replace(options, preset=preset))
        sides = {side for side, _ in begun}
        assert sides == ({"port"} if without else {"port", "reference"})
        assert (found["train_step"]["ratio"] is None) is bool(without) and found["floor_multiple"] is None
        assert [note for note in found["notes"] if "reference" in note] == [without] * bool(without)
        assert len([note for note in found["notes"] if "no part encoder" in note]) == 1


def test_the_floors_of_points_are_counted() -> None:
    """Their examples are points, not canvases."""
    side = bench_worker.Port("constellation", str(REPOSITORY / "params.yaml"), 2, 1, "cpu")
    assert bench_floors.least_bytes(side.model(), side.examples()) > 0


def test_several_seeds(capsys: pytest.CaptureFixture) -> None:
    """What is timed per seed is the step that training runs."""
    arguments = ["--preset", "digits", "--seeds", "2", "--repeats", "1", "--device", "cpu"]
    assert bench_seeds.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["seconds_per_seed"]) == {"alone", "in_turns", "passes_alone", "batched"}
    assert found["rung"] == "eager" and found["precision"]["amp"] == "none"


def test_written_whole(tmp_path: Path) -> None:
    """The JSON file appears under its own name only."""
    training_step.write({"a": 1}, tmp_path / "b.json")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert json.loads((tmp_path / "b.json").read_text()) == {"a": 1}
