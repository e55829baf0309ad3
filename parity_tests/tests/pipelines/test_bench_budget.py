"""The budget of a step by part, and the comparison of two calls of `scae bench`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import port
from parity_tests.harness import runs
from pipelines import cli
from pipelines.bench import budget, difference
from pipelines.support import settings as presets
from port.training import loop

CPU = torch.device("cpu")


def test_every_part_has_its_line() -> None:
    """Parts and remainder make the step; products are counted forward and backward; the model stays as it was."""
    model = runs.model()
    run = loop.Run(model, runs.dataset(), runs.settings())
    run.step(run.state.batches.next_index(), 1e-3)
    before = {name: set(vars(part)) for name, part in model.named_modules()}
    found = budget.measure(run.step, run.state.optimizer, repeats=1)
    assert list(found) == [*budget.SCAE, "optimizer", "batch", "everything else", "step"]
    assert {name: set(vars(part)) for name, part in model.named_modules()} == before
    for part in budget.SCAE:
        row = found[part]
        assert row["forward_s"] > 0 and row["backward_s"] > 0 and row["bytes"] > 0 and row["floor_s"] > 0, part
    whole = found.pop("step")
    assert sum(row["forward_s"] + row["backward_s"] for row in found.values()) == pytest.approx(whole["forward_s"])
    assert sum(row["floor_s"] for row in found.values()) == pytest.approx(whole["floor_s"])
    # [8, 1, 14, 14] → 4·6·6 and [8, 4, 6, 6] → 4·2·2 by 3×3 kernels, then 4·(6 + 4 + 1 + 1) 1×1 kernels on 2×2:
    # two operations a term, once forward, once for the weights, once for the input unless it is the image.
    terms = [8 * 4 * 36 * 9, 8 * 4 * 4 * 36, 8 * 48 * 4 * 4]
    assert found["convolutions"]["operations"] == 2 * (2 * terms[0] + 3 * terms[1] + 3 * terms[2])
    assert len(budget.lines(found | {"step": whole})) == len(found) + 2


@pytest.mark.parametrize("name", ["capsnet_mnist_small", "em_mnist_small"])
def test_the_parts_of_the_routing_ancestors(name: str) -> None:
    """Every place of the table is in the model, but those of deeper networks."""
    model = port.build(presets.load_preset(name).config(), seed=0)
    places = [place for part in budget.parts_of(model).values() for place in part]
    missing = [place for place in places if budget.whose(model, place) is None]
    assert all(place.startswith("capsules.") for place in missing) and len(missing) < len(places) - 3


def test_rates_take_the_larger_floor() -> None:
    rates = budget.Rates(CPU)
    assert rates.floor(2**20, 0) == 2**20 / rates.copies[2**20]
    assert rates.floor(0, 10**9) == 10**9 / rates.operations


def write(path: Path, step: float, convolutions: float, part: float) -> str:
    path.write_text(json.dumps({
        "minima_s": {"port step eager fast": step}, "convolutions_floor_s": convolutions, "threads": 1,
        "options": {"preset": "digits"},
        "floors": {"budget": {"losses": {"forward_s": part, "backward_s": part}}}}))
    return str(path)


def test_two_calls_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """In multiples of each call's own convolutions: the second machine was half as fast."""
    files = write(tmp_path / "a.json", 0.4, 0.1, 0.01), write(tmp_path / "b.json", 0.4, 0.2, 0.02)
    assert difference.run(*files) == {"port step eager fast": 0.5, "part losses": 1.0}
    assert cli.main(["bench", "--diff", *files]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["part", "losses", "20.000", "40.000", "2.00", "0.200", "0.200", "1.00"] in lines
    assert ["port", "step", "eager", "fast", "400.000", "400.000", "1.00", "4.000", "2.000", "0.50"] in lines


@pytest.mark.parametrize(("text", "words"), [
    (None, "No such file"), ("{", "is not JSON"), ("[]", "not written by"), ('{"minima_s": {"x": 1}}', "in common")])
def test_files_that_cannot_be_compared(tmp_path: Path, text: str | None, words: str, capsys: pytest.CaptureFixture
                                       ) -> None:
    other = tmp_path / "b.json"
    if text is not None:
        other.write_text(text)
    assert cli.main(["bench", "--diff", write(tmp_path / "a.json", 1.0, 1.0, 1.0), str(other)]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
