"""What makes two runs the same: settings that decide nothing are left out, all others count."""

from __future__ import annotations

import pytest

from pipelines.support.identity import IGNORED, INERT, differences, identity


def of(**training: object) -> dict:
    return identity({"train": training})


@pytest.mark.parametrize(("changed", "counts"), [
    ({"lr": 0.5}, True), ({"steps": 7}, True), ({"batch_size": 3}, True), ({"noise": False}, True),
    ({"lr_schedule": "linear"}, True), ({"device": "cuda"}, False), ({"seed": 9}, False),
    ({"held_out_every": 5}, False), ({"log_every": 3}, False), ({"threads": 4}, False)])
def test_what_counts(changed: dict, counts: bool) -> None:
    """Against the defaults, which a setting that a run did not know yet counts as."""
    assert bool(differences(of(**changed), of())) == counts


@pytest.mark.parametrize(("key", "value"), INERT)
def test_inert_settings(key: str, value: str) -> None:
    """They count only while the setting that they serve has another value."""
    name = key.removeprefix("train.")
    other = {"lr_schedule": "exponential", "amp": "fp16"}[name]
    for inert in INERT[key, value]:
        changed = {inert.removeprefix("train."): 0.125}
        assert not differences(of(**{name: value}, **changed), of(**{name: value}))
        assert differences(of(**{name: other}, **changed), of(**{name: other}))


def test_the_model_counts_by_its_arguments() -> None:
    """The flat keys are left out; lists and tuples are the same."""
    assert identity({"train": {}, "model": {"n_obj_caps": 3}}) == of()
    assert "train.device" in IGNORED and not any(key in of() for key in IGNORED)


def test_differences_name_the_key_and_both_values() -> None:
    assert differences({"x": 1, "z": 3}, {"x": 2, "y": 1, "z": 3}) == [
        "x is 1, not 2", "y is left out, not 1"]
