"""Ways to make a step: which are tried, what a failed capture does, and that the run goes on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from parity_tests.harness import runs
from parity_tests.harness.broken_capture import REASON, STUCK, broken_capture, pretended_gpu
from parity_tests.tests.training.test_train_step import new_step
from pipelines import train as stage
from pipelines.support import console, descent
from port.training import loop as train
from port.training import rungs
from port.training.step import Forward


@pytest.mark.parametrize(("changed", "device", "expected"), [
    ({}, "cpu", ["eager"]),
    ({"compile": True}, "cpu", ["compiled", "eager"]),
    ({}, "cuda", ["captured", "eager"]),
    ({"compile": True}, "cuda", ["compiled_captured", "captured", "compiled", "eager"]),
    ({"compile": True, "capture": "never"}, "cuda", ["compiled", "eager"]),
    ({"compile": True, "capture": "always"}, "cuda", ["compiled_captured"]),
    ({"capture": "always"}, "cuda", ["captured"]),
    ({"rung": "captured", "compile": True}, "cuda", ["captured"]),
    ({"rung": "compiled", "capture": "always"}, "cuda", ["compiled"]),
    ({"rung": "eager", "compile": True}, "cpu", ["eager"])])
def test_what_is_tried(changed: dict, device: str, expected: list[str]) -> None:
    """In this order; a rung that is named is the only one."""
    assert [rung.name for rung in rungs.ladder(runs.settings(**changed), device)] == expected


@pytest.mark.parametrize("changed", [{"rung": "captured"}, {"capture": "always"},
                                     {"rung": "compiled_captured"}])
def test_capture_needs_a_gpu(changed: dict) -> None:
    with pytest.raises(ValueError, match="needs a GPU; set it to auto"):
        new_step(runs.model(), **changed)


def test_the_rung_is_not_part_of_what_a_run_is() -> None:
    """Checkpoints are found again a rung lower; whoever names no rung that exists is told."""
    assert train.identity({"rung": "captured"}) == train.identity({"rung": "eager"})
    with pytest.raises(ValueError, match="rung must be one of auto, compiled_captured, captured"):
        runs.settings(rung="fast")


def test_after_a_failed_capture_nothing_can_be_drawn() -> None:
    """The step raises what says so, and the pretended generators behave as those of torch do."""
    step = new_step(runs.model())
    step.rung = rungs.RUNGS["captured"]
    index = step.batches.next_index()
    with broken_capture():
        with pytest.raises(rungs.RungFailed, match=f"rung captured: the step cannot.*{REASON}"):
            step(index, 1e-3)
        with pytest.raises(RuntimeError, match=STUCK):
            step.update()


def test_a_compiler_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out with a note, unless the rung was named: then what was asked for is an error."""
    def compiler(function):
        def fails(*arguments):
            raise RuntimeError("no compiler\nand more")
        return fails
    monkeypatch.setattr(torch, "compile", compiler)
    image, notes = torch.rand(2, 1, 14, 14), []
    label = torch.zeros(2, dtype=torch.int64)
    Forward(runs.model(), True, notes)(image, label, None)
    assert notes == ["torch.compile does not work here (no compiler); training eagerly"]
    with pytest.raises(rungs.RungFailed, match=r"compiled_captured: torch.compile .* \(no compiler\)"):
        Forward(runs.model(), True, notes, "compiled_captured")(image, label, None)


ARGUMENTS = ["--preset", "digits", "--device", "cuda", "--set", "train.steps=2", "--set",
             "train.batch_size=2", "--wandb", "none"]


def test_a_run_goes_on_a_rung_lower_in_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                       capfd: pytest.CaptureFixture) -> None:
    """The parent tries nothing itself; the run's environment tells what happened."""
    monkeypatch.setenv("SCAE_KERNELS", "off")  # nothing to be compiled
    monkeypatch.setattr(descent, "STAGE", (sys.executable, "-m", "parity_tests.harness.broken_capture"))
    with pretended_gpu():
        assert stage.main([*ARGUMENTS, "--results", str(tmp_path), "--runs", str(tmp_path / "runs")]) == 0
    found = json.loads((tmp_path / "train/digits/0/environment.json").read_text())
    assert (found["rung"], found["captured"], found["compiled"]) == ("eager", False, False)
    assert [note for note in found["notes"] if REASON in note] == [
        f"rung captured: the step cannot be captured as a CUDA graph ({REASON})"]
    said = capfd.readouterr()
    assert "beginning again in a fresh process, on rung eager" in said.out
    assert REASON in said.err and STUCK not in said.err


def test_a_rung_that_is_named_is_not_given_up(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One line, its own exit code, nothing written."""
    with pretended_gpu():
        code = stage.main([*ARGUMENTS, "--results", str(tmp_path), "--runs", str(tmp_path / "runs"),
                           "--set", "train.rung=captured"])
    assert code == console.RUNG_FAILED
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1] == f"failed: rung captured: the step cannot be captured as a CUDA graph ({REASON})"
    assert not (tmp_path / "train/digits/0/metrics.json").exists()


@pytest.mark.parametrize("code", [1, 2, 143])
def test_other_ends_are_handed_on(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bad input, a number that is not finite, a signal: no other rung would help."""
    monkeypatch.setattr(descent, "STAGE", (sys.executable, "-c", f"raise SystemExit({code})"))
    with pretended_gpu():
        assert stage.main([*ARGUMENTS, "--results", str(tmp_path)]) == code
