"""Validation images: which they are, that a run neither trains on them nor reads the test split, and its name."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import evaluate
from pipelines.results import paper
from pipelines.support import settings
from pipelines.support.values import BadInput
from port.data import dataset as data
from port.data import validation
from port.training import loop


def as_rows(split: data.Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


@pytest.fixture
def numbered() -> data.Dataset:
    """Forty images that are all different, the classes one after the other; twenty others to test on."""
    images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 12, 12)
    labels = (torch.arange(60) % 40) // 4
    return data.Dataset("numbered", data.Split(images[:40], labels[:40]), data.Split(images[40:], labels[40:]), 10)


@pytest.mark.parametrize(("n", "wanted"), [(10, 1), (10, 9), (60_000, 1024), (7, 3)])
def test_they_lie_evenly(n: int, wanted: int) -> None:
    out = validation.taken_out(n, wanted)
    assert len(set(out.tolist())) == wanted and out[0] >= 0 and out[-1] < n
    gaps = torch.diff(out)
    assert not len(gaps) or int(gaps.max() - gaps.min()) <= 1


def test_a_sorted_set_gives_every_class_its_share(numbered: data.Dataset) -> None:
    kept, out = validation.parts(numbered.train, 10)
    assert out.labels.tolist() == list(range(10))
    assert as_rows(kept) | as_rows(out) == as_rows(numbered.train) and not as_rows(kept) & as_rows(out)


def test_all_images_are_refused(numbered: data.Dataset) -> None:
    with pytest.raises(data.DataError, match="validation_images is 40, but there are 40"):
        validation.parts(numbered.train, 40)


class Drawn:
    """Examples that are drawn anew, as constellations are."""

    def to(self, device): return self

    def batches(self, config, settings, seed): raise AssertionError


def test_what_is_drawn_anew_is_refused() -> None:
    drawn = Drawn()
    assert validation.trained_on(drawn, runs.settings()) is drawn
    with pytest.raises(data.DataError, match="drawn anew"):
        validation.trained_on(drawn, runs.settings(validation_images=1))


def test_a_run_trains_on_the_others_alone(numbered: data.Dataset) -> None:
    wanted = runs.settings(validation_images=10)
    run = loop.Run(runs.model(), numbered, wanted)
    assert as_rows(run.state.batches.split) == as_rows(validation.parts(numbered.train, 10)[0])
    assert as_rows(validation.looked_at(numbered, wanted)) == as_rows(validation.parts(numbered.train, 10)[1])
    assert len(loop.Run(runs.model(), numbered, runs.settings()).state.batches.split) == 40


def test_a_look_gathers_the_validation_images_alone(numbered: data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the many that are trained on, which `parts` would copy at every look."""
    expected = validation.parts(numbered.train, 10)[1]
    monkeypatch.setattr(validation, "parts", lambda *arguments: pytest.fail("gathers all of them"))
    found = validation.looked_at(numbered, runs.settings(validation_images=10))
    assert torch.equal(found.images, expected.images) and torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize("wanted", [0, 10])
def test_looks_read_the_test_split_only_without_them(numbered: data.Dataset, wanted: int) -> None:
    """Other test images change what is reported at 0, and nothing at 10."""
    other = replace(numbered, test=data.Split(255 - numbered.test.images, numbered.test.labels))
    rows = []
    for images in (numbered, other):
        trained = loop.train(runs.model(), images, runs.settings(
            steps=2, log_every=1, held_out_every=1, validation_images=wanted))
        rows.append(runs.rows(trained))
    assert "held_out_rec_ll" in rows[0][-1]
    assert (rows[0] == rows[1]) == bool(wanted)


def test_a_run_without_them_keeps_its_name() -> None:
    """An older version did not know the setting; what it began goes on."""
    now = asdict(runs.settings())
    before = {name: value for name, value in now.items() if name != "validation_images"}
    assert loop.identity(now) == loop.identity(before)
    assert loop.identity(now | {"validation_images": 8}) != loop.identity(before)


@pytest.mark.parametrize("kept", [0, 10])
def test_an_evaluation_on_them(numbered: data.Dataset, tmp_path: Path, kept: int) -> None:
    """Fits are on the images that were trained on; what counts is what the run kept, not what its preset says now."""
    preset = settings.load_preset("digits", ["train.validation_images=5"], REPOSITORY / "params.yaml")
    (tmp_path / "config.json").write_text(json.dumps({"train": {"validation_images": kept}}))
    if not kept:
        with pytest.raises(BadInput, match="was trained on all training images"):
            evaluate.elsewhere(preset, "validation", numbered, tmp_path)
        return
    found = replace(numbered, **evaluate.elsewhere(preset, "validation", numbered, tmp_path))
    train, out = validation.parts(numbered.train, kept)
    assert found.name == "numbered_validation"
    assert (as_rows(found.train), as_rows(found.test)) == (as_rows(train), as_rows(out))


def test_no_verdict_on_them() -> None:
    assert "validation images" in paper.obstacle_to("mnist_validation", 5, 10, 10, [])
