"""The inputs of a conversion's proof: noise, then strokes where float32 parts from float64 on noise."""

from __future__ import annotations

import numpy as np
import pytest

import port
from parity_tests.harness import models
from pipelines.checkpoints import proof
from pipelines.checkpoints.comparison import Report
from port.checkpoints import convert

TINY = {"canvas_size": 14, "n_part_caps": 4, "n_obj_caps": 3, "n_channels": 1, "template_size": 5,
        "output_channels": [8, 8], "strides": [2, 1], "n_hiddens": 8, "n_output_dims": 8, "n_obj_caps_params": 4}


@pytest.mark.parametrize("channels", [1, 3])
def test_strokes_are_images(channels: int) -> None:
    """Black for the most part, white somewhere, the same for the same seed."""
    drawn = proof.strokes(np.random.default_rng(0), 2, 20, channels)
    again = proof.strokes(np.random.default_rng(0), 2, 20, channels)
    assert drawn.shape == (2, 20, 20, channels) and drawn.dtype == np.float32
    assert drawn.min() == 0.0 and 0.5 <= drawn.max() <= 1.0
    assert 0.5 < (drawn == 0).mean() < 0.95
    assert np.array_equal(drawn, again) and not np.array_equal(drawn[0], drawn[1])


def test_an_input_that_float32_parts_on_is_replaced_by_strokes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next input is of another kind, and a note says why it was drawn."""
    model = port.ImageAutoencoder(port.config.from_flat(TINY), seed=0)
    variables = convert.to_tf(model)
    words = "a part's winning capsule"
    told = iter([(words, np.array([True, False])), ("", np.array([False, False])),  # of either side
                 (words, np.array([True, False])), (words, np.array([False, True])), *[("", np.zeros(2, bool))] * 2])
    seen: list[bool] = []
    made = proof.Input.__init__

    def noted(self: proof.Input, *given, drawn: bool = False) -> None:
        seen.append(drawn)
        made(self, *given, drawn=drawn)
    monkeypatch.setattr(proof.Input, "__init__", noted)
    monkeypatch.setattr(proof, "other_piece", lambda run, truth: next(told))
    report = Report("here")
    proof.forward(report, model.config, variables, variables)
    assert seen == [False, True, False]
    assert [note for note in report.notes if "drawn anew" in note] == [
        f"input {k}, example {which}: float32 falls on the other side of {words} than float64; drawn anew"
        for k, which in enumerate(("0", "0 and 1"))]
    assert not [row for section in report.sections for row in section.rows if row.verdict == "fail"]


def test_only_the_example_that_parts_is_drawn_anew() -> None:
    """Image, label and noise of the other one stay; another piece of one example is one of that example alone."""
    config = port.config.from_flat(TINY | {"n_classes": 10})
    own, other = proof.Input(config, 0), proof.Input(config, 1, drawn=True)
    before = [own.image, *(() if own.label is None else [own.label]), *own.noise]
    own.replace(np.array([False, True]), other)
    after, theirs = ([one.image, *(() if one.label is None else [one.label]), *one.noise] for one in (own, other))
    for kept, now, new in zip(before, after, theirs, strict=True):
        assert np.array_equal(now[0], kept[0]) and np.array_equal(now[1], new[1]) and now.dtype == kept.dtype

    truth = models.ModelOutcome({"res/is_from_capsule": np.array([[0, 1, 2], [2, 1, 0]]),
                                 "obj_enc/presence": np.array([[0.2, 0.8], [0.6, 0.4]])}, {})
    assert proof.other_piece(truth, truth)[0] == "" and not proof.other_piece(truth, truth)[1].any()
    run = models.ModelOutcome(truth.taps | {"res/is_from_capsule": np.array([[0, 1, 2], [2, 1, 1]])}, {})
    words, parted = proof.other_piece(run, truth)
    assert words == "a part's winning capsule" and parted.tolist() == [False, True]
    run.taps["obj_enc/presence"] = np.array([[0.6, 0.5], [0.6, 0.4]])
    words, parted = proof.other_piece(run, truth)
    assert words == "the most present part" and parted.tolist() == [True, True]
