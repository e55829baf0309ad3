"""Training that goes on where another run stopped: `train.continue_from` names a converted checkpoint or a run.

Its weights, optimizer slots and step become the run's first checkpoint, from which the loop continues as
from any other. What such a folder does not hold starts anew: the order of the images, and the generators.
"""

from __future__ import annotations

from pathlib import Path

import torch

from pipelines.checkpoints import original
from pipelines.support.values import BadInput
from pipelines.training import given_weights
from port.checkpoints import model_folder, run_folder
from port.core import adam, rmsprop
from port.training import loop as train

NEEDED = {"ms": ("tf-rmsprop", rmsprop.RMSProp), "m": ("tf-adam", adam.Adam)}


def plant(folder: Path, model: torch.nn.Module, dataset, wanted: train.Settings, checkpoints: Path) -> None:
    """Write a run's first checkpoint from a converted folder.

    Args:
        folder: as `scae convert` writes it, or the model of a run; without slots the optimizer starts anew.
        model: of the run; receives the weights.
        dataset: that it trains on.
        wanted: its settings.
        checkpoints: where the checkpoint goes.

    Raises:
        BadInput: another architecture, another optimizer's slots, or no steps left.
    """
    given_weights.put_in(model, folder, "continue_from", whole=True)
    run = train.Run(model, dataset, wanted)
    with original.in_words(f"train.continue_from: {folder}"):
        slots, step = model_folder.load_slots(folder, model)
    if slots:
        rule, kind = next(need for slot, need in NEEDED.items() if slot in next(iter(slots.values())))
        if not isinstance(run.state.optimizer, kind):
            raise BadInput(f"train.continue_from: {folder} has the slots of {rule}; set "
                           f"train.optimizer to it, not to {wanted.optimizer}")
        model_folder.continue_from(folder, model, run.state.optimizer)
        if rule == "tf-adam":
            for value in run.state.optimizer.state.values():
                value["step"].fill_(float(step or 0))
    step = step or steps_before(folder) or 0
    if step >= wanted.steps:
        raise BadInput(f"train.continue_from: {folder} has made {step:,} steps; set train.steps "
                       "above that")
    run.state.step, run.state.seconds = step, seconds_before(folder) or 0.0
    run.state.save(checkpoints)
    print(f"train: from {folder}, {step:,} steps made before"
          + ("" if slots else "; it has no optimizer slots, which start anew"), flush=True)


def steps_before(folder: Path) -> int | None:
    """What the run to which a model's folder belongs says of its steps; None where it is no run's."""
    return run_folder.steps(folder.parent) if folder.name == run_folder.MODEL else None


def seconds_before(folder: Path) -> float | None:
    """What the run to which a model's folder belongs says of its time; None where it is no run's."""
    return run_folder.seconds(folder.parent) if folder.name == run_folder.MODEL else None
