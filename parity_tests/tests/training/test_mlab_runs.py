"""Runs of the ML@B port's command line are numbered, resume, and find one another."""

from __future__ import annotations

import json

import torch

from parity_tests.goldens import REPOSITORY
from parity_tests.harness.mlab import SMALL, base, small, weights
from pipelines import cli
from pipelines.support import settings
from pipelines.training import numbered


def test_numbered_runs_and_resume(tmp_path, monkeypatch, capsys) -> None:
    """1, 2, …; --resume goes on with the latest, bit by bit, and refuses other settings."""
    monkeypatch.chdir(tmp_path)
    command = ["train", *SMALL, *base(), "--log-run-name", "mine"]
    assert [cli.main(command), cli.main([*command, "--set", "train.steps=6"])] == [0, 0]
    runs = tmp_path / "runs/mine"
    assert sorted(path.name for path in runs.iterdir()) == ["1", "2"]
    whole = weights(runs / "2/train/mlab/0")
    (runs / "2").rename(tmp_path / "whole")
    resume = ["train", "--resume", "--log-run-name", "mine"]
    assert cli.main([*resume, "--set", "train.steps=6"]) == 0
    assert "continuing from step 3" in capsys.readouterr().out
    again = weights(runs / "1/train/mlab/0")
    assert all(torch.equal(again[key], value) for key, value in whole.items())
    assert cli.main([*resume, "--pcae-lr", "0.1"]) == 2
    assert "was started with" in capsys.readouterr().err


def test_resume_without_a_name_takes_the_run_begun_last(tmp_path, monkeypatch, capsys) -> None:
    """Of whatever name; a name of a run goes first."""
    monkeypatch.chdir(tmp_path)
    command = ["train", *SMALL, *base(), "--set", "train.steps=1", "--log-run-name"]
    assert [cli.main([*command, name]) for name in ("old", "new")] == [0, 0]
    for words, name in (((), "new"), (("--log-run-name", "old"), "old"), (("--preset", "mlab"), None)):
        capsys.readouterr()
        assert cli.main(["train", "--resume", *words]) == (0 if name else 2)
        told = capsys.readouterr()
        assert f"this is runs/{name}/1" in told.out if name else "no run in runs/mlab" in told.err


def test_steps_stand_in_place_of_a_preset_s_epochs(ran, tmp_path, monkeypatch, capsys) -> None:
    """--set train.steps is not lost on the 3,000 epochs of mlab; beside -N it is refused."""
    preset = settings.load_preset("mlab", path=REPOSITORY / "params.yaml")
    assert "epochs" not in settings.overridden(preset, ["train.steps=3"]).sections["train"]
    both = settings.overridden(preset, ["train.steps=3", "train.epochs=2"]).sections["train"]
    assert both["epochs"] == 2
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *small(), *base(), "-N", "2"]) == 2
    assert "give one of them" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    assert cli.main(["train", *small(), *base()]) == 0
    assert json.loads((tmp_path / "runs/mlab/1/train/mlab/0/metrics.json").read_text())["steps"] == 3


def test_objects_find_the_parts_of_a_numbered_run(ran, tmp_path, monkeypatch, capsys) -> None:
    """A preset's name as train.parts is its latest run; what cannot be used leaves no folder behind."""
    monkeypatch.chdir(tmp_path)
    objects = ["train", *SMALL, *base("--model", "ocae"), "--model", "ocae", "--alpha-channel",
               "--log-run-name", "objects", "--parts"]
    assert cli.main([*objects, "mlab"]) == 2
    assert "train.parts: no run of mlab with seed 0 in runs" in capsys.readouterr().err
    given = ran("--model", "pcae", "--alpha-channel")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mlab").symlink_to(given.parents[3], target_is_directory=True)
    assert cli.main([*objects, "mlab"]) == 0
    after = weights(tmp_path / "runs/objects/1/train/mlab/0")
    assert all(torch.equal(after[key], value) for key, value in weights(given).items())
    params = json.loads((tmp_path / "runs/objects/1/params.json").read_text())
    assert params["presets"]["mlab"]["train"]["parts"] == "runs/mlab/1/train/mlab/0"
    for words, message in (("runs/mlab/2", "holds no model.safetensors"),
                           ("runs/mlab/1", "has cnn with output_channels")):
        more = ("--set", "model.output_channels=[3,4]") * (words == "runs/mlab/1")
        assert cli.main([*objects, words, *more]) == 2
        assert message in capsys.readouterr().err
        assert [path.name for path in (tmp_path / "runs/objects").iterdir()] == ["1"]
    refused = [*objects, "runs/mlab/1", "--set", "model.output_channels=[3,4]", "--log-run-name", "never"]
    assert cli.main(refused) == 2 and not (tmp_path / "runs/never").exists()


def test_a_stored_preset_gives_the_same_run(ran, tmp_path, monkeypatch) -> None:
    """params.json of a run, and results given: the same weights, no numbered folder."""
    first = ran()
    monkeypatch.chdir(tmp_path)
    params = first.parents[2] / numbered.PARAMS
    assert cli.main(["train", "--params", str(params), "--preset", "mlab", "--results", "out"]) == 0
    again = weights(tmp_path / "out/train/mlab/0")
    assert all(torch.equal(again[key], value) for key, value in weights(first).items())
    assert not any((tmp_path / "runs").glob("mlab/*"))
