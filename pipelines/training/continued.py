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
from port.training import loop as train
from port.training import optimizers, resume
from port.training.distributed import ALONE, World


def plant(folder: Path, model: torch.nn.Module, dataset, wanted: train.Settings, checkpoints: Path,
          world: World = ALONE) -> None:
    """Write a run's first checkpoint from a converted folder.

    Args:
        folder: as `scae convert` writes it, or the model of a run; without slots the optimizer starts anew.
        model: of the run; receives the weights.
        dataset: that it trains on.
        wanted: its settings.
        checkpoints: where the checkpoint goes.
        world: the ranks that will go on from it.

    Raises:
        BadInput: another architecture, another optimizer's slots, or no steps left.
    """
    given_weights.put_in(model, folder, "continue_from", whole=True)
    state = train.begin(model, dataset, wanted)
    own = optimizers.names_of(resume.read_slots(model, state.optimizer))
    with original.in_words(f"train.continue_from: {folder}"):
        given = model_folder.slot_names(folder)
        check_rule(folder, given, own, wanted)
        step = model_folder.continue_from(folder, model, state.optimizer) if given \
            else model_folder.load_slots(folder, model)[1]
    step = step or steps_before(folder) or 0
    if step >= wanted.steps:
        raise BadInput(f"train.continue_from: {folder} has made {step:,} steps; set train.steps "
                       "above that")
    state.step, state.seconds = step, seconds_before(folder) or 0.0
    state.save(checkpoints, train.made_with(model, wanted, world))
    print(f"train: from {folder}, {step:,} steps made before"
          + ("; it has no optimizer slots, which start anew" if own and not given else ""), flush=True)


def check_rule(folder: Path, given: frozenset[str], own: frozenset[str], wanted: train.Settings) -> None:
    """Refuse slots of another rule than the run's; a folder without any will do.

    Raises:
        BadInput: names the rules that have the folder's slots, or the one that its run names.
    """
    rule = rule_before(folder)
    if not given or (given == own and rule in (None, wanted.optimizer)):
        return
    rules = [rule] if rule is not None else [name for name in optimizers.RULES if any(
        given == optimizers.slot_names(name, momentum) for momentum in (0.0, wanted.momentum or 0.9))]
    if not rules:
        raise BadInput(f"train.continue_from: {folder} has the slots of no optimizer that there is "
                       f"({', '.join(sorted(given))})")
    if wanted.optimizer in rules:
        raise BadInput(f"train.continue_from: {folder} has the slots of {wanted.optimizer} "
                       f"{'without' if own > given else 'with'} momentum; set train.momentum as it was")
    raise BadInput(f"train.continue_from: {folder} has the slots of {' or '.join(rules)}; set "
                   f"train.optimizer to it, not to {wanted.optimizer}")


def rule_before(folder: Path) -> str | None:
    """The optimizer of the run to which a model's folder belongs; None where nobody says so."""
    if folder.name != run_folder.MODEL or not run_folder.is_run(folder.parent):
        return None
    try:
        return run_folder.settings_of(folder.parent)["train"]["optimizer"]
    except (ValueError, KeyError, TypeError):
        return None


def steps_before(folder: Path) -> int | None:
    """What the run to which a model's folder belongs says of its steps; None where it is no run's."""
    return run_folder.steps(folder.parent) if folder.name == run_folder.MODEL else None


def seconds_before(folder: Path) -> float | None:
    """What the run to which a model's folder belongs says of its time; None where it is no run's."""
    return run_folder.seconds(folder.parent) if folder.name == run_folder.MODEL else None
