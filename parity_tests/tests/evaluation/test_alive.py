"""Dead units, spread of votes, objects in use: against what is computed from all outputs at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import port
from parity_tests.harness import every_family, runs
from pipelines.results import plots
from port.evaluation import alive, collected
from port.training import loop

CAPSULES = ("capsules0", "capsules1")


@pytest.fixture(scope="module")
def model() -> port.ImageAutoencoder:
    """Drawn weights, and some channels that are pressed down, so that there is something dead everywhere."""
    made = runs.model().eval()
    with torch.no_grad():
        for conv in made.part_encoder.cnn.conv:
            conv.bias[::2] -= 0.7
        for mlp in made.object_decoder.capsule_layer.batch_mlp:
            mlp.batch_linear[0].bias[:, ::2] -= 2.0
    return made


def images() -> torch.Tensor:
    return placed(runs.dataset().test.images)


def placed(raw: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(raw / 255.0, (1, 1, 1, 1))


@torch.no_grad()
def row(model: port.ImageAutoencoder, batch: int) -> dict[str, float]:
    with alive.watching(model) as watch:
        for part in images().split(batch):
            model(part)
    return watch.row()


@torch.no_grad()
def test_all_at_once(model: port.ImageAutoencoder) -> None:
    """Convolutions and votes as the recordings' taps hold them."""
    taps, found = model(images(), taps=True).taps, row(model, 8)
    for name in ("conv0", "conv1"):
        dead = (taps[f"part_enc/{name}"] == 0).all(0).double().mean()
        assert 0 < dead < 1 and found[f"dead_{name}"] == pytest.approx(float(dead), abs=1e-7)
    votes = taps["res/vote"].numpy().astype(np.float64)
    assert found["vote_spread"] == pytest.approx(votes.std(0).mean(), rel=1e-5)


@torch.no_grad()
def test_votes_for_a_level_above_are_others() -> None:
    """Of three levels the spread is that of the objects' own votes, each image once."""
    made = every_family.model("hierarchy")
    with alive.watching(made) as watch:
        taps = made(images(), taps=True).taps
    assert watch.n == len(images())
    own, parents = (taps[f"res/{name}"].numpy().astype(np.float64) for name in ("vote", "parent_vote"))
    assert watch.row()["vote_spread"] == pytest.approx(own.std(0).mean(), rel=1e-5)
    assert abs(parents.std(0).mean() - own.std(0).mean()) > 1e-3, "the other votes would have been seen"


@torch.no_grad()
def test_capsule_mlps(model: port.ImageAutoencoder) -> None:
    """The first hidden layer of each, multiplied out by hand."""
    taps, found = model(images(), taps=True).taps, row(model, 40)
    x = taps["obj_enc/output"]
    first, second = model.object_decoder.capsule_layer.batch_mlp
    for name, mlp, given in (("capsules0", first, x), (
            "capsules1", second, torch.cat([first(x), torch.ones_like(x[..., :1])], -1))):
        layer = mlp.batch_linear[0]
        hidden = torch.einsum("bof,ofh->boh", given, layer.weight[0]) + layer.bias
        dead = (hidden <= 0).all(0).double().mean()
        assert 0 < dead < 1 and found[f"dead_{name}"] == pytest.approx(float(dead), abs=1e-7)


def test_the_batch_size_decides_nothing(model: port.ImageAutoencoder) -> None:
    one, other = row(model, 40), row(model, 7)
    assert one == pytest.approx(other, rel=1e-5) and not any(layer._forward_hooks for layer in model.modules())


def test_dead_capsules_vote_the_same_for_all_images() -> None:
    dying = runs.model().eval()
    with torch.no_grad():
        for mlp in dying.object_decoder.capsule_layer.batch_mlp:
            mlp.batch_linear[0].bias.fill_(-1e6)
    found = row(dying, 8)
    assert [found[f"dead_{name}"] for name in CAPSULES] == [1.0, 1.0] and found["vote_spread"] < 1e-7
    assert found["dead_conv0"] < 1


@pytest.mark.parametrize(("presence", "number"), [
    ([[1, 0, 0]] * 4, 1.0), ([[0.2, 0.2, 0.2]] * 3, 3.0), ([[0, 0, 0]] * 2, 0.0),
    ([[1, 0], [0, 1]], 2.0), ([[0.5, 0.25, 0.25]], math.exp(1.5 * math.log(2)))])
def test_effective_number(presence: list, number: float) -> None:
    assert alive.effective_number(np.array(presence, np.float32)) == pytest.approx(number)


def test_they_stand_in_the_history_and_have_charts() -> None:
    """Looks change nothing that is trained: the hooks look on."""
    histories = []
    for every in (0, 2):
        trained = loop.train(runs.model(), runs.dataset(), runs.settings(steps=4, log_every=2, held_out_every=every))
        histories.append(runs.rows(trained))
    assert all({name: last[name] for name in first} == first for first, last in zip(*histories, strict=True))
    last = histories[1][-1]
    names = {"vote_spread", "effective_objects_posterior", "effective_objects_prior",
             *(f"dead_{name}" for name in ("conv0", "conv1", *CAPSULES))}
    assert names <= set(last) and not names & set(histories[0][-1])
    shown = {name: (np.array([2, 4]), np.array([row[name] for row in histories[1]])) for name in last if name != "step"}
    titles = [title for title, _ in plots.learning_curves(shown)]
    assert {"Dead hidden units", "Effective number of objects", "Spread of votes over images"} <= set(titles)


def test_a_look_without_noise_says_the_same() -> None:
    """`held_out` of the family gives what the watch and the presences give."""
    made, data, wanted = runs.model(), runs.dataset(), runs.settings()
    found = collected.held_out(made, data, wanted)
    seen = collected.collect(made.eval(), data.test, 14, 8, seed=0, noise=False)
    assert found["effective_objects_prior"] == alive.effective_number(seen.prior)
