"""`scae add`: a finished run from elsewhere becomes a result here, or is refused with one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines import train as stage
from pipelines.support import settings

CHANGED = ["prepare.options={enlarge: 12, test_share: 0.25, split_seed: 0}", "train.steps=2", "train.log_every=1",
           "train.held_out_every=0", "train.batch_size=8", "evaluate.bootstrap_draws=10", "evaluate.tsne_images=0",
           "evaluate.baseline_images=50", "evaluate.fit_images=256", "evaluate.require_learning=false",
           *(f"model.{key}={str(value).lower() if value is True else value}" for key, value in runs.TINY.items())]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A params file with the preset `digits` cut small, and a numbered run of it that says another revision."""
    away = tmp_path_factory.mktemp("away")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        preset = settings.load_preset("digits", CHANGED)
        preset.write(away / "params.json")
        stage.run(preset, 0, away / "runs" / "1", runs=away / "runs" / "1" / "checkpoints")
    path = away / "runs" / "1" / "train" / "digits" / "0" / "environment.json"
    facts = json.loads(path.read_text()) | {"revision": "0123456789", "device_name": "another machine"}
    del facts["weights"], facts["files"]  # as an earlier version left it
    path.write_text(json.dumps(facts))
    return away


def add(away: Path, results: Path, *more: str) -> int:
    return cli.main(["add", str(away / "runs" / "1"), "--params", str(away / "params.json"), "--results", str(results),
                     *more])


def copied(away: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(away, tmp_path / "copy"))


def changed(path: Path, change) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


def test_a_run_becomes_a_result(elsewhere: Path, tmp_path: Path, capsys) -> None:
    """Its numbers, where it was trained, and which revision read it; the second time nothing is done."""
    before = {path: path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}
    assert add(elsewhere, tmp_path) == 0
    said = capsys.readouterr().out
    assert "trained on the data that are here" in said
    assert "trained at revision 0123456789, which is no commit of this repository, on another machine" in said
    facts = json.loads((tmp_path / "train/digits/0/environment.json").read_text())
    assert facts["revision"] == "0123456789" and facts["imported_at"] and facts["weights"]
    found = json.loads((tmp_path / "aggregate/digits/metrics.json").read_text())
    assert (found["seeds"], found["steps"], found["unlike_preset"]) == ([0], 2, [])
    assert found["environments"][0]["device"] == "another machine"
    assert {path: path.read_bytes() for path in before} == before
    assert add(elsewhere, tmp_path, "--no-evaluate") == 0 and "is there already" in capsys.readouterr().out


def test_settings_unlike_the_preset_are_named(elsewhere: Path, tmp_path: Path, capsys) -> None:
    away = copied(elsewhere, tmp_path)
    changed(away / "params.json", lambda found: found["presets"]["digits"]["train"].update(lr=0.125))
    assert add(away, tmp_path, "--no-evaluate") == 0
    assert "unlike preset digits" in (said := capsys.readouterr().out) and "train.lr is 0.0006, not 0.125" in said


def test_the_aggregate_says_it_too(elsewhere: Path, tmp_path: Path) -> None:
    """Held against the preset as it stands here, not as the run had it."""
    away = copied(elsewhere, tmp_path)
    changed(away / "params.json", lambda found: found["presets"]["digits"]["train"].update(validation_images=20))
    assert add(away, tmp_path) == 0
    found = json.loads((tmp_path / "aggregate/digits/metrics.json").read_text())
    assert found["unlike_preset"] == ["train.validation_images is 0, not 20"]


def other_pixels(away: Path) -> None:
    path = away / "runs/1/prepare/digits/data.npz"
    held = dict(np.load(path))
    held["train_x"] = 255 - held["train_x"]
    np.savez_compressed(path, **held)


def wider(away: Path) -> None:
    changed(away / "runs/1/train/digits/0/config.json", lambda found: found["model"].update(n_obj_caps=6))


def unfinished(away: Path) -> None:
    (away / "runs/1/train/digits/0/metrics.json").unlink()


def no_such_preset(away: Path) -> None:
    changed(away / "params.json", lambda found: found.update(presets={"others": found["presets"]["digits"]}))


@pytest.mark.parametrize(("damage", "says"), [
    (other_pixels, "trained on other data than there are here"), (wider, "another model's than its config.json says"),
    (unfinished, "holds no finished run: metrics.json is not there"), (no_such_preset, "unknown preset")])
def test_refused_with_one_line(elsewhere: Path, tmp_path: Path, capsys, damage, says: str) -> None:
    away = copied(elsewhere, tmp_path)
    damage(away)
    assert add(away, tmp_path / "results", "--no-evaluate") == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1 and not (tmp_path / "results" / "train").exists()


def test_another_run_in_its_place(elsewhere: Path, tmp_path: Path, capsys) -> None:
    away = copied(elsewhere, tmp_path)
    assert add(away, tmp_path, "--no-evaluate") == 0
    here = tmp_path / "train/digits/0"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(REPOSITORY)
        other = settings.load_preset("digits", [*CHANGED, "train.lr=0.125"])
        stage.run(other, 0, away / "other", runs=away / "other" / "checkpoints")
    command = ["add", str(away / "other"), "--params", str(away / "params.json"), "--results", str(tmp_path),
               "--no-evaluate"]
    capsys.readouterr()
    assert cli.main(command) == 2 and "holds another run" in capsys.readouterr().err
    assert json.loads((here / "config.json").read_text())["train"]["lr"] == 0.0006
    assert cli.main([*command, "--replace"]) == 0
    assert json.loads((here / "config.json").read_text())["train"]["lr"] == 0.125
