"""How a model is looked at outside training: where images lie for every shift, and that a look leaves no trace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from parity_tests.harness import every_family, runs
from parity_tests.tests.pipelines import test_not_measured
from pipelines import evaluate as stage
from pipelines.evaluation import baselines, constellation, row_measures
from pipelines.evaluation import parts as parts_stage
from pipelines.support import pictures, sections
from pipelines.training.rows import Row
from port.core.gathering import alone
from port.data import dataset as data
from port.evaluation import classes, collected, looks, parts
from port.families import family_of
from port.training import loop

CANVAS = 14
IMAGE_KINDS = ("scae", "pcae")


def split(side: int, n: int = 40) -> data.Split:
    images = torch.randint(0, 256, (n, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(4))
    return data.Split(images, torch.arange(n) % 10)


def dataset(side: int) -> data.Dataset:
    return data.Dataset("noise", split(side), split(side), 10)


def generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def middle(images: torch.Tensor) -> torch.Tensor:
    return images[..., 2:16, 2:16].float() / 255


EXPECTED = {"original": (12, lambda images: data.place(images, CANVAS, generator())),
            "uniform": (12, lambda images: data.place(images, CANVAS, generator(), uniform=True)),
            "centred": (12, lambda images: data.place(images, CANVAS, None)),
            "translate": (12, lambda images: data.place(images, CANVAS, None)),
            "crop": (18, middle)}


@pytest.mark.parametrize("shift", data.SHIFTS)
def test_where_images_lie(shift: str) -> None:
    """Drawn as training draws them, or as they are; `original` bit for bit as the original places a split."""
    side, expected = EXPECTED[shift]
    images = split(side)
    assert torch.equal(looks.arranged(images.images, CANVAS, shift, 5), expected(images.images))
    (all_of_them, rows), = looks.batches(images, CANVAS, 40, shift, 5)
    assert torch.equal(all_of_them, expected(images.images)) and rows == slice(0, 40)
    undrawn = middle(images.images) if shift == "crop" else data.place(images.images, CANVAS, None)
    for given in (shift, looks.still(shift)):
        assert torch.equal(torch.cat([image for image, _ in looks.batches(images, CANVAS, 7, given)]), undrawn)
    with pytest.raises(data.DataError, match="no shift 'moved'"):
        looks.arranged(images.images, CANVAS, "moved")


@pytest.mark.parametrize("shift", data.SHIFTS)
@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_a_run_looks_at_images_as_its_shift_says(kind: str, shift: str) -> None:
    """Every family of images: what the looks read is what the model says about images placed so."""
    side, expected = EXPECTED[shift]
    made, images = every_family.model(kind), dataset(side)
    wanted = runs.settings(steps=2, log_every=1, held_out_every=1, shift=shift, batch_size=40)
    row = loop.train(made, images, wanted).history[-1]
    placed = expected(images.test.images) if shift not in looks.DRAWN else looks.arranged(
        images.test.images, CANVAS, shift, 0)
    with torch.no_grad():
        said = made(placed, images.test.labels if kind == "scae" else None)
    assert row["held_out_rec_ll"] == pytest.approx(float(said.scalars["rec_ll"]), rel=1e-6)


def test_an_evaluation_takes_parts_of_larger_images(tmp_path: Path) -> None:
    """Measures, baselines and pictures of a model that was trained on crops."""
    wanted = sections.Evaluate(batch_size=20, fit_images=30, baseline_images=30, bootstrap_draws=10)
    made, images = every_family.model("scae"), dataset(18)
    found = stage.collect(made, images, wanted, "crop")
    whole = collected.collect(made, images.test, CANVAS, 40, 0, noise=False, shift="crop")
    np.testing.assert_allclose(found["clean"][1].prior, whole.prior, rtol=1e-5, atol=1e-6)
    assert set(row_measures.measure(made, images, wanted, Row("as it is"), "crop")) == {"clean", "faithful"}
    assert len(pictures.write(tmp_path / "whole", made, images.test, 3, 0, "crop")) == 7
    raw = baselines.measured(images, CANVAS, wanted, shift="crop")
    assert raw["shifted"] == raw["centred"]
    pcae = every_family.model("pcae")
    assert len(parts.collect(pcae, images.test, 20, 0, noise=True, shift="crop").mse) == 40
    assert len(parts_stage.write_pictures(tmp_path / "parts", pcae, images.test, 3, 0, "crop")) == 3
    assert parts_stage.baseline(pcae, images.train, images.test, wanted, "crop")["mean_image_mse"]["n"] == 40


def test_the_stage_takes_the_shift_of_its_preset(tmp_path: Path) -> None:
    """Images of 24 pixels for a model of 20, from the measures to the pictures."""
    chosen = test_not_measured.preset("train.shift=crop")
    larger = chosen.sections["prepare"] | {"options": chosen.sections["prepare"]["options"] | {"enlarge": 24}}
    found = test_not_measured.evaluated(replace(chosen, sections=chosen.sections | {"prepare": larger}), tmp_path)
    assert found["protocols"]["clean"]["final"]["rec_ll"] < 0
    assert found["baseline"]["shifted"] == found["baseline"]["centred"]
    assert (tmp_path / "evaluate/digits/0/pictures/reconstructions.png").is_file()


def test_rows_of_an_ablation_are_measured_on_the_same_images() -> None:
    made, images = every_family.model("scae"), dataset(12)
    wanted = sections.Evaluate(batch_size=20)
    plain, uniform = (row_measures.measure(made, images, wanted, Row("as it is"), shift)
                      for shift in ("original", "uniform"))
    assert plain == uniform


def examples_for(made: torch.nn.Module) -> object:
    """A data set that the model takes, whatever its family."""
    if made.config.kind == "constellation":
        return constellation.draw({"examples": 20})
    images = split(made.config.canvas, 20)
    images = data.Split(images.images, images.labels % getattr(made.config, "n_classes", 10))
    return data.Dataset("noise", images, images)


@pytest.mark.parametrize("kind", every_family.KINDS)
def test_a_look_leaves_no_trace(kind: str) -> None:
    """In evaluation mode, without gradients and alone among the ranks; training goes on as before, errors or not."""
    made, seen = every_family.model(kind).train(), []
    mine = made.gather = lambda rows: torch.cat([rows, rows])  # two ranks that look at the same rows
    examples, wanted = examples_for(made), runs.settings(held_out_images=20)

    def pre_hook(module: torch.nn.Module, given: tuple) -> None:
        seen.append((module.training, torch.is_grad_enabled(), module.gather))
        if fails:
            raise ArithmeticError
    made.register_forward_pre_hook(pre_hook)
    fails, held_out = False, family_of(made.config).held_out
    row = held_out(made, examples, wanted)
    assert all(np.isfinite(value) for value in row.values())
    assert made.training and made.gather is mine
    fails = True
    with pytest.raises(ArithmeticError):
        held_out(made, examples, wanted)
    assert made.training and made.gather is mine and all(layer.training for layer in made.modules())
    assert set(seen) == {(False, False, alone)}


def test_a_decoder_s_error_needs_one_pass() -> None:
    """That of the longest capsule, bit for bit as a pass without labels decodes it."""
    made = every_family.model("capsnet", decoder=[6])
    images = examples_for(made).test
    placed = looks.arranged(images.images, made.config.canvas)
    with torch.no_grad():
        expected = sum(float((made(part).reconstruction - part).square().sum()) for part in placed.split(7))
    passes = []
    made.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    assert classes.collect(made, images, 7).error == expected / 20 and passes == [7, 7, 6]
