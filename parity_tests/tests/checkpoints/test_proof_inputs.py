"""The inputs of a conversion's proof: noise, then strokes where float32 parts from float64 on noise."""

from __future__ import annotations

import numpy as np
import pytest

import port
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
    told = iter(["a part's winning capsule"] * 2 + [""] * 2)  # of either side; the first that parts is enough
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
    assert [note for note in report.notes if "another input is drawn" in note] == [
        f"input {k}: float32 falls on the other side of a part's winning capsule than float64; another input is drawn"
        for k in range(2)]
    assert not [row for section in report.sections for row in section.rows if row.verdict == "fail"]
