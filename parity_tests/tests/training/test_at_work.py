"""What training changes about a model lasts for an update: alone and beside others, however a run ends."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
import torch

from parity_tests.harness import runs
from port.core.gathering import alone
from port.training import distributed, ensemble, resume
from port.training import loop as train
from port.training.step import Step


def trained_alone(model: torch.nn.Module, wanted: train.Settings, more: dict) -> train.Trained:
    return train.train(model, runs.dataset(), wanted, **more)


def beside_another(model: torch.nn.Module, wanted: train.Settings, more: dict) -> train.Trained:
    return ensemble.train_together([(model, wanted, more), (runs.model(2), runs.settings(steps=wanted.steps), {})],
                                   runs.dataset())[0]


def stopped_by(number: int):
    return lambda step: os.kill(os.getpid(), number) if step == 2 else None


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("way", [trained_alone, beside_another])
@pytest.mark.parametrize("end", ["done", "stopped", "not finite"])
def test_a_run_leaves_the_model_as_it_was(way, end: str, debug: bool) -> None:
    """No range of images, the gradients' faults if asked for, and the rows of all ranks, while an update is made."""
    model, world, seen = runs.model(), distributed.World(), []

    def look(module: torch.nn.Module, given: tuple) -> None:
        seen.append((module.check_range, module.gather == world.gather, torch.is_anomaly_enabled()))
    model.register_forward_pre_hook(look)
    if end == "not finite":
        model.part_encoder.register_forward_hook(lambda module, given, found: found._replace(
            pose=found.pose / (0.0 if len(seen) > 2 else 1.0)))
    raised = {"done": contextlib.nullcontext(), "stopped": pytest.raises(train.Interrupted),
              "not finite": pytest.raises(RuntimeError if debug else resume.NonFiniteLoss)}[end]
    with raised:
        way(model, runs.settings(steps=4, log_every=1, debug=debug),
            {"world": world} | ({"on_step": stopped_by(signal.SIGTERM)} if end == "stopped" else {}))
    assert seen and set(seen) == {(False, True, debug)}
    assert model.check_range and model.gather is alone and not torch.is_anomaly_enabled()


def test_a_step_that_is_only_made_changes_nothing() -> None:
    run = train.Run(runs.model(), runs.dataset(), runs.settings())
    assert isinstance(run.step, Step) and run.model.check_range and run.model.gather is alone
    with run.step.at_work(), run.step.at_work():
        assert not run.model.check_range
    assert run.model.check_range and run.model.gather is alone
