"""Which folder a name may lead to: plain names, a run's own data, no other model's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import port
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from pipelines import cli
from pipelines.support import run_folders, settings, values
from pipelines.training import numbered
from port.data import dataset, standard_sets

PARAMS = str(REPOSITORY / "params.yaml")


def preset() -> settings.Preset:
    return settings.load_preset("digits", path=PARAMS)


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# -------------------------------------------------------------------------------------------------- names

OUTSIDE = ("", ".", "..", "../x", "a/b", "/tmp/x", "a\\b", ".hidden", "a\nb", "a\0b", "x" * 300)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, capsys, name) -> None:
    """Where folders are named, and so by every stage and command; nothing is written."""
    params = tmp_path / "params.json"
    params.write_text(json.dumps({"presets": {name: preset().as_params()}}))
    for refused in (lambda: settings.load_preset(name, path=params), lambda: numbered.begin(preset(), name),
                    lambda: numbered.latest(name), lambda: settings.folder_of("train", name, 0),
                    lambda: settings.folder_of("evaluate", settings.evaluation_name("digits", name))
                    if name not in ("", ".", "..", ".hidden") else settings.folder_of("evaluate", name)):
        with pytest.raises(values.BadInput) as error:
            refused()
        assert "\n" not in str(error.value) and "\0" not in str(error.value)
    if "\0" not in name:
        for words in (["train"], ["evaluate"], ["reconstruct"], ["aggregate"]):
            assert cli.main([*words, "--preset", name, "--params", str(params)]) == 2
            assert capsys.readouterr().err.count("\n") == 1
        assert cli.main(["train", "--log-run-name", name]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["params.json"]


def test_a_run_s_own_file_names_no_folder_elsewhere(tmp_path) -> None:
    folder = tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    given = preset()
    (folder / "config.json").write_text(json.dumps(given.resolved() | {"preset": "../../x"}))
    with pytest.raises(values.BadInput, match="plain word"):
        settings.preset_of_run(folder)


# ------------------------------------------------------------------------------------- data of a run

def test_a_run_on_other_data_is_another_run(tmp_path, monkeypatch, capsys) -> None:
    """Its checkpoints lie elsewhere; in a folder of one run alone they are refused; old ones go on."""
    one, other = runs.dataset(), runs.dataset(classes=[1, 2, 3] * 4)
    decides = [{"lr": 1}]
    own, place = (run_folders.checkpoints(tmp_path, "p", 0, decides, each, False) for each in (one, other))
    before = run_folders.checkpoints(tmp_path, "p", 0, decides, None, False)
    assert len({own, place, before}) == 3 and own.name.startswith("p-0-")
    made = own / "step-00000002"
    made.mkdir(parents=True)
    (made / "state.json").write_text(json.dumps({"data": standard_sets.digest_of(one)}))
    assert run_folders.checkpoints(tmp_path, "p", 0, decides, one, True) == own
    capsys.readouterr()
    assert run_folders.checkpoints(tmp_path, "p", 0, decides, other, False) == place
    assert "begun on other data" in capsys.readouterr().out
    with pytest.raises(values.BadInput, match="begun on other data"):
        run_folders.checkpoints(tmp_path, "p", 0, decides, other, True)
    shutil.move(own, before)
    (before / "step-00000002" / "state.json").write_text("{}")
    assert run_folders.checkpoints(tmp_path, "p", 0, decides, other, True) == before
    assert isinstance(other, dataset.Dataset)


# -------------------------------------------------------------------------------------- another model there

FIXTURE = REPOSITORY / "parity_tests" / "fixtures" / "goldens" / "options"


def test_convert_asks_before_it_replaces_another_model(tmp_path, capsys) -> None:
    """The same checkpoint again does not; another one, a trained model or a damaged one does."""
    def convert(name: str, *words: str) -> int:
        golden = FIXTURE / name
        return cli.main(["convert", str(golden / "checkpoint"), "out", "--config", str(golden),
                         "--no-verify", *words])
    assert convert("enc_linear") == 0 == convert("enc_linear")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    other = next(folder.name for folder in sorted(FIXTURE.iterdir())
                 if (folder / "checkpoint").is_dir() and folder.name != "enc_linear")
    capsys.readouterr()
    assert convert(other) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "another model" in line and "--overwrite" in line
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert convert(other, "--overwrite") == 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != before
    port.save(runs.model(), tmp_path / "out")
    assert convert(other) == 2
    (tmp_path / "out" / "model.safetensors").write_bytes(b"damaged")
    assert convert(other) == 2 and convert(other, "--overwrite") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
