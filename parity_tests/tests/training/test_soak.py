"""A soak: finite to the end, or the step and the cause; both are results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from parity_tests.harness import runs
from pipelines import soak
from pipelines import train as training
from pipelines.support import settings

SMALL = {"prepare": {"download": False}, "presets": {"small": {
    "prepare": {"source": "digits", "options": {"enlarge": 12, "test_share": 0.25, "split_seed": 0}},
    "model": {key: list(v) if isinstance(v, list) else v for key, v in runs.TINY.items()},
    "train": {"device": "cpu", "threads": 1, "batch_size": 8, "steps": 99, "lr": 1e-4, "log_every": 2,
              "held_out_every": 4, "validation_images": 20, "checkpoint_every": 2}, "evaluate": {}}}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(SMALL))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "RUNS", tmp_path / "runs")
    return tmp_path


def soaked(factor: str, *more: str) -> int:
    return soak.main(["--preset", "small", "--factor", factor, "--steps", "6", *more])


def read(here: Path, factor: str, seed: int = 0) -> dict:
    return json.loads((here / f"results/soak/small/x{factor}/{seed}/metrics.json").read_text())


def test_finite_and_not(here: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ends with 0; the summary has a sentence for each factor; what is done is left alone."""
    assert soaked("3") == 0 and soaked("3", "--seed", "1") == 0 and soaked("1e30") == 0
    fine, bad = read(here, "3"), read(here, "1e+30")
    assert (fine["finite"], fine["step"], fine["cause"]) == (True, 6, None) and fine["lr"] == pytest.approx(3e-4)
    assert {"dead_capsules0", "vote_spread"} <= set(fine["looks"][-1])
    assert not bad["finite"] and 1 <= bad["step"] <= 6 and "first non-finite tap" in bad["cause"]
    assert f"(step {bad['step']})" in bad["cause"]
    capsys.readouterr()
    assert soak.main(["--preset", "small", "--summary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "seeds 0, 1, 6 steps: every number stayed finite" in lines[0]
    assert "1 of 1 left the finite numbers" in lines[1] and bad["cause"] in lines[1]
    assert json.loads((here / "results/soak/small/metrics.json").read_text())["sentences"] == lines

    begun = []
    monkeypatch.setattr(soak, "run", lambda preset, factor, seed, *rest: begun.append((factor, seed)))
    for factor, more in (("3", ()), ("1e30", ()), ("3", ("--seed", "5")), ("3", ("--set", "train.batch_size=4"))):
        assert soaked(factor, "--unless-done", *more) == 0
    assert begun == [(3.0, 5), (3.0, 0)]


def test_a_longer_soak_is_another(here: Path) -> None:
    """One that ended sooner is done for fewer steps alone; one that broke is done however long it was to be."""
    preset = settings.load_preset("small", ["train.steps=6"], "params.yaml")
    longer = settings.overridden(preset, ["train.steps=8"])
    assert soaked("3") == 0 and soaked("1e30") == 0
    for factor, expected in ((3.0, [True, False]), (1e30, [True, True])):
        assert [soak.done(one, factor, 0, Path("results")) for one in (preset, longer)] == expected


def test_the_first_cause_and_its_step() -> None:
    """The step of the cause where it names one, else the last that the message names."""
    told = soak.cause_of("loss not finite between step 1 and 9; first non-finite tap: res/vote (step 7)")
    assert (told["step"], told["cause"]) == (7, "first non-finite tap: res/vote (step 7)")
    told = soak.cause_of("x not finite after step 12; repeated eagerly from the last good state, everything was finite")
    assert told["step"] == 12


def test_looks_are_thinned_and_the_last_row_is_kept() -> None:
    n = 3 * soak.LOOKS
    rows = [{"step": step, **({"held_out_rec_ll": 0.0} if step % 2 == 0 else {})} for step in range(1, 2 * n + 2)]
    found = [row["step"] for row in soak.looks(rows)]
    assert found == [*range(2, 2 * n + 1, 6), 2 * n + 1]


def test_what_came_before_the_break_is_kept(here: Path) -> None:
    """Rows of the checkpoint that it went on from, then its own; the largest loss is that of all of them."""
    wanted = settings.load_preset("small", ["train.steps=6"], "params.yaml")
    one = soak.Soak.make(wanted, 2, 0, Path("results"))
    checkpoint = here / "runs/any/step-00000004"
    checkpoint.mkdir(parents=True)
    before = [{"step": step, "loss": float(step), "held_out_rec_ll": 0.0} for step in (2, 4)]
    (checkpoint / "state.json").write_text(json.dumps({"history": before, "seconds": 5.0}))
    one.rows.append({"step": 6, "loss": 1.0, "held_out_rec_ll": 0.0})
    one.broke(checkpoint.parent, soak.resume.NonFiniteLoss("loss not finite; first non-finite tap: x (step 7)"))
    told = read(here, "2")
    assert [row["step"] for row in told["looks"]] == [2, 4, 6] and told["largest_loss"] == 4.0
    assert (told["step"], told["seconds"], told["finite"]) == (7, 5.0, False)


def test_a_stopped_one_goes_on(here: Path) -> None:
    """Its looks from before the stop are kept."""
    wanted = settings.load_preset("small", ["train.steps=6"], "params.yaml")
    counted = soak.console.Progress.step

    def stop(bar: soak.console.Progress, step: int) -> None:
        counted(bar, step)
        if step == 5:
            raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soak.console.Progress, "step", stop)
        with pytest.raises(KeyboardInterrupt):
            soak.run(wanted, 2, 0, Path("results"))
    soak.run(wanted, 2, 0, Path("results"))
    assert [row["step"] for row in read(here, "2")["looks"]] == [4, 6]


@pytest.mark.parametrize(("arguments", "says"), [
    (["--preset", "small", "--factor", "0"], "--factor must be a number above 0"),
    (["--preset", "small", "--set", "train.start_from=other"], "train.start_from must not be set"),
    (["--preset", "small", "--set", "model.model=ocae"], "objects alone (ocae) need given parts"),
    (["--preset", "small", "--summary"], "no run in"), (["--preset", "none"], "unknown preset")])
def test_bad_input(here: Path, capsys, arguments: list, says: str) -> None:
    assert soak.main(arguments) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
