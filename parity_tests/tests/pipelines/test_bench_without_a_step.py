"""`scae bench --floors` where no step of the port could be made."""

from __future__ import annotations

from dataclasses import replace

from pipelines.bench import training_step


def test_the_floors_are_compared_with_nothing() -> None:
    """The table says so in one line, and why in its notes."""
    options = replace(training_step.Options(), batch_size=2, floors=True)
    found = training_step.summary({"reference step": [0.5]}, options) | {
        "notes": ["port step eager fast: no memory"], "threads": 1, "pixel_likelihood": "plain", "floors": {"a": 1}}
    said = training_step.table(found)
    assert "no step of the port could be made" in said and "note: port step eager fast: no memory" in said
