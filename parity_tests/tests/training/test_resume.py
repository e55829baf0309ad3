"""Stopped runs continue bit by bit: signals in a real process, a kill while writing, parts of files."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from port.core import rmsprop
from port.training import loop as train
from port.training import resume


@pytest.fixture(scope="module")
def whole() -> tuple[dict, list]:
    """What the uninterrupted run leaves."""
    tensors, trained = runs.run()
    return tensors, runs.rows(trained)


def process(folder: Path, *fate: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen([sys.executable, "-m", "parity_tests.harness.runs", str(folder), *fate],
                            cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def continues(folder: Path, whole: tuple[dict, list], steps: tuple[int, ...] = (4, 8, 12)) -> int:
    """Continue here; the step at which that began. Nothing differs in weights, slots or history.

    A run that had an end in between looked there too, so its rows are other means: `steps` names them.
    """
    tensors, trained = runs.run(folder)
    assert not runs.differing(tensors, whole[0])
    assert [row["step"] for row in trained.history] == list(steps)
    assert runs.rows(trained) == whole[1] or steps != (4, 8, 12)
    return trained.resumed_at


def test_a_terminated_process_continues_bit_by_bit(tmp_path, whole, tier):
    """SIGTERM at a random step, between two checkpoints or at one."""
    step = (random.SystemRandom() if tier == "deep" else random.Random(11)).randrange(1, 11)
    running = process(tmp_path)
    for line in running.stdout:
        if int(line) == step:
            running.send_signal(signal.SIGTERM)
            break
    rest, errors = running.communicate(timeout=500)
    assert running.returncode == 0 and "stopped" in rest, errors[-2000:]
    stopped = int(rest.split("stopped")[1])
    assert step <= stopped <= step + 1
    assert [path.name for path in resume.checkpoints(tmp_path)] == [
        f"step-{step:08d}" for step in [s for s in (5, 10) if s < stopped][-1:] + [stopped]]
    assert continues(tmp_path, whole) == stopped


def test_a_process_killed_while_it_writes_loses_only_that_checkpoint(tmp_path, whole):
    running = process(tmp_path, "die_in_save")
    _, errors = running.communicate(timeout=500)
    assert running.returncode == -signal.SIGKILL, errors[-2000:]
    assert (tmp_path / "step-00000010.tmp" / "model.safetensors").exists()
    assert [path.name for path in resume.checkpoints(tmp_path)] == ["step-00000005"]
    assert continues(tmp_path, whole) == 5
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("changed", [
    {}, {"noise": False, "shuffle": False}, {"grad_norm_clip": 1e-3, "lr_schedule": "exponential",
                                             "lr_decay_steps": 3, "lr_staircase": True},
    {"amp": "bf16"}, {"deterministic": True}])
def test_in_two_halves_under_every_setting(changed, tmp_path):
    expected, _ = runs.run(**changed)
    runs.run(tmp_path, steps=7, **changed)
    found, trained = runs.run(tmp_path, **changed)
    assert trained.resumed_at == 7 and not runs.differing(found, expected)


def test_files_stay_below_the_limit(tmp_path, whole, monkeypatch):
    """Sets of tensors in parts, and single tensors in pieces."""
    monkeypatch.setattr(resume, "FILE_LIMIT", 3000)
    runs.run(tmp_path, steps=5)
    path = resume.checkpoints(tmp_path)[-1]
    sizes = {file.name: file.stat().st_size for file in path.glob("*.safetensors")}
    assert len([name for name in sizes if name.startswith("model-")]) > 5
    biggest = max(t.nbytes for t in runs.model().state_dict().values())
    assert biggest > 3000
    # 3,000 bytes of tensors and the header that names them; a generator's state is one of them.
    assert max(sizes.values()) < 3000 + 4096
    assert continues(tmp_path, whole, (4, 5, 8, 12)) == 5


def test_the_limit_is_below_16_mib():
    assert resume.FILE_LIMIT + 2**20 <= 16 * 2**20


@pytest.mark.parametrize(("seconds", "saved"), [(0.0, list(range(2, 13, 2))), (1000.0, [12])])
def test_a_fast_run_saves_by_time(seconds, saved, whole, tmp_path, monkeypatch):
    """Not within so many seconds of the last checkpoint; at the end always, and nothing else changes."""
    save, steps = resume.State.save, []
    monkeypatch.setattr(resume.State, "save", lambda state, *rest: (steps.append(state.step),
                                                                    save(state, *rest)))
    found, _ = runs.run(tmp_path, checkpoint_every=2, checkpoint_seconds=seconds)
    assert steps == saved
    assert not runs.differing(found, whole[0])


def test_a_shorter_run_leaves_the_longer_ones_checkpoint(tmp_path, whole):
    runs.run(tmp_path, steps=10)
    runs.run(tmp_path, steps=3)
    assert [path.name for path in resume.checkpoints(tmp_path)] == [
        "step-00000003", "step-00000005", "step-00000010"]
    assert continues(tmp_path, whole, (4, 8, 10, 12)) == 10


def test_saving_the_same_step_again_replaces_it(tmp_path):
    made = runs.model()
    optimizer = rmsprop.RMSProp(made.named_parameters(), 1e-3, 1e-4)
    batches = train.data.Batches(runs.dataset().train, 8, 14, 0)
    state = resume.State(made, optimizer, batches, torch.Generator())
    for value in (1.0, 2.0):
        with torch.no_grad():
            made.part_decoder.bg_value.fill_(value)
        state.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000000"]
    kept = resume.read_tensors(tmp_path / "step-00000000", "model", "cpu")
    assert kept["part_decoder.bg_value"].item() == 2.0


@pytest.mark.parametrize(("changed", "same"), [
    ({"steps": 99}, True), ({"log_every": 2}, True), ({"checkpoint_every": 2}, True),
    ({"threads": 2}, True), ({"compile": True}, True), ({"capture": "never"}, True),
    ({"deterministic": True}, True), ({"lr": 2e-3}, False), ({"seed": 9}, False),
    ({"amp": "bf16"}, False), ({"tf32": True}, False), ({"noise": False}, False),
    ({"lr_schedule": "exponential"}, False), ({"batch_size": 4}, False)])
def test_what_makes_another_run(changed, same):
    """Precision, data and schedule do; what only changes the order of rounding does not."""
    from dataclasses import asdict
    one, other = (train.identity(asdict(runs.settings(**c)), {"device": "cpu"}) for c in ({}, changed))
    assert (one == other) == same
    assert train.identity(asdict(runs.settings()), {"device": "cuda"}) != one


def test_another_order_of_rounding_is_said(tmp_path, capsys):
    """The run goes on, and its environment file will say so."""
    runs.run(tmp_path, steps=4)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _, trained = runs.run(tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert trained.notes == ["continued from step 4 with another threads 1, now 2: the same run, not "
                             "the same bits"]
    assert trained.notes[0] in capsys.readouterr().out
