"""A model as an object: pickled, saved whole, copied, handed to another process; used and in training."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import pytest
import torch
from torch import multiprocessing

from parity_tests.harness import every_family
from port import families
from port.data import dataset
from port.training import loop as train


def test_every_family_has_a_small_model() -> None:
    assert set(every_family.SMALL) == set(families.FAMILIES)


def _saved(made: Any) -> Any:
    file = io.BytesIO()
    torch.save(made, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
    "torch.save": _saved,
    "copy.deepcopy": copy.deepcopy,
    # What a spawned process is handed.
    "spawn": lambda made: pickle.loads(bytes(ForkingPickler.dumps(made)))}


@pytest.mark.parametrize("kind", every_family.KINDS)
def test_same_answer_on_the_other_side(kind: str) -> None:
    made = every_family.model(kind)
    given = every_family.examples(made, 3)
    said = every_family.answer(made, given)  # used, so that whatever a forward pass keeps is there
    for way, through in WAYS.items():
        other = through(made)
        assert other is not made
        assert other.config == made.config, way
        assert torch.equal(every_family.answer(other, given), said), way
    # A copy has weights of its own.
    apart = copy.deepcopy(made)
    with torch.no_grad():
        for weight in apart.parameters():
            weight.add_(1.0)
    assert torch.equal(every_family.answer(made, given), said)


@pytest.mark.parametrize("kind", ["scae", "capsnet"])
def test_a_trained_model(kind: str) -> None:
    """Training puts into a model what brings the ranks' rows together; that is no obstacle either."""
    made = every_family.model(kind)
    side = made.config.canvas - 2
    images = torch.randint(0, 256, (8, 1, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(2))
    split = dataset.Split(images, torch.arange(8) % 10)
    run = train.Run(made, dataset.Dataset("few", split, split, 10), train.Settings(batch_size=4, steps=2))
    for moment in (pickle.loads(pickle.dumps(run.model)), copy.deepcopy(run.model)):
        assert moment.training
    while not run.done:
        run.advance([])
    run.finish({})
    given = every_family.examples(made, 3)
    assert torch.equal(every_family.answer(pickle.loads(pickle.dumps(made)), given),
                       every_family.answer(made, given))


def _in_the_other_process(rank: int, made: Any, given: torch.Tensor, said: Any) -> None:
    torch.set_num_threads(1)
    said.copy_(every_family.answer(made, given))


@pytest.mark.parametrize("kind", every_family.KINDS)
def test_a_spawned_process(kind: str, tier: str) -> None:
    if tier != "deep":
        pytest.skip("a process of its own for each family: only with --tier=deep")
    made = every_family.model(kind)
    given = every_family.examples(made, 3)
    wanted = every_family.answer(made, given)
    said = torch.zeros_like(wanted).share_memory_()
    multiprocessing.spawn(_in_the_other_process, (made, given, said), nprocs=1)
    assert torch.equal(said, wanted)
