"""Rows and soaks of a visit: what of them comes along, and which are taken in at home.

The whole way, with training and signals, is in test_visit_rehearsed.py (deep tier).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from parity_tests.tests.pipelines.visit_parcels import checkpoint, packed
from parity_tests.tests.training.test_beside import SMALL
from pipelines import ablation, soak
from pipelines import train as training
from pipelines.evaluation import row_measures
from pipelines.support.output import write_json
from pipelines.training import rows
from pipelines.visit import beside, bring_home, parcel
from port.training import sound

MIB = 2**20


def test_the_whole_state_of_what_is_under_way_comes_along(tmp_path: Path) -> None:
    """Of what only waits to be measured the weights; before soaks, after every other run."""
    sizes = {"model": int(1.4 * MIB), "optimizer": int(2.8 * MIB)}
    for name in ("soak_mnist_small-0-a", "ablation-complete-0-a", "ablation-no_noise-1-b", "mnist-0-a"):
        checkpoint(tmp_path / "work", name, 7, sizes)
    write_json(tmp_path / "work/checkpoints/ablation-no_noise-1-b" / rows.TRAINED, {"row": "no_noise"})
    write_json(tmp_path / "work/results/ablation_small/no_noise/0/metrics.json", {"row": "no_noise"})
    write_json(tmp_path / "work/results/soak/mnist_small/x3/0/metrics.json", {"factor": 3})
    found = packed(tmp_path)
    assert list(found["brought"]) == [f"{name} step-00000007 {what}" for name, what in (
        ("mnist-0-a", "weights"), ("mnist-0-a", "slots"), ("ablation-no_noise-1-b", "weights"),
        ("ablation-complete-0-a", "state"), ("soak_mnist_small-0-a", "state"))]
    there = tmp_path / "next"
    parcel.unpack(tmp_path / "out", there)
    assert (there / "checkpoints/ablation-no_noise-1-b" / rows.TRAINED).exists()
    assert (there / "results/ablation_small/no_noise/0/metrics.json").exists()
    assert (there / "results/soak/mnist_small/x3/0/metrics.json").exists()
    assert beside.counted(there) == {"rows": 1, "soaks": 1, "waiting": 1, "under_way": 2}


def test_what_does_not_fit_begins_anew(tmp_path: Path) -> None:
    """Its small files come all the same, and must not be taken for a checkpoint."""
    for seed in range(20):
        folder = checkpoint(tmp_path / "work", f"ablation-complete-{seed}-a", 7, {
            "model": int(1.4 * MIB), "optimizer": int(2.8 * MIB)})
        sound.write_checksums(folder)
    found = packed(tmp_path)
    assert len(found["brought"]) + len(found["left_out"]) == 20 and len(found["left_out"]) >= 4
    parcel.unpack(tmp_path / "out", tmp_path / "next")
    parcel.forget_halves(tmp_path / "next")
    assert len(parcel.newest_checkpoints(tmp_path / "next")) == len(found["brought"])


def test_the_commands_of_the_phases() -> None:
    """What they say is what the programs take; training ends before the phase does."""
    for phase, program, most in (("ablation", ablation.main, 440.0), ("soak", soak.main, 485.0)):
        words = beside.command(phase, 500.0, Path("work"), "cuda", "params.yaml", "ablation_small", 50, 19)
        options = {name for parameter in program.command.params for name in parameter.opts}
        assert {word for word in words[2:] if word.startswith("--")} <= options
        assert float(words[words.index("--seconds") + 1]) == most
        assert words[words.index("--runs") + 1] == "work/checkpoints"
    assert beside.environment(True)["SCAE_KERNELS"] == "off" and "SCAE_KERNELS" not in beside.environment(False)


def test_only_what_is_done_on_this_type_of_device_counts(tmp_path: Path) -> None:
    for row, device in (("complete", "cuda"), ("no_noise", "cpu")):
        write_json(tmp_path / f"results/ablation_small/{row}/0/environment.json", {"device": device})
    beside.bring_along(tmp_path / "results", tmp_path / "work", "cuda")
    assert [path.name for path in (tmp_path / "work/results/ablation_small").iterdir()] == ["complete"]


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A parcel of two rows, one of them not measured, and a soak."""
    small = SMALL | {"ablation": SMALL["ablation"] | {"steps": 3, "seeds": [0]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(small))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "RUNS", tmp_path / "work/checkpoints")
    assert ablation.main(["--row", "whole", "--results", "work/results"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(row_measures, "measure_trained", lambda *given, **more: None)
        assert ablation.main(["--row", "plain", "--results", "work/results"]) == 0
    assert soak.main(["--preset", "small", "--steps", "2", "--results", "work/results"]) == 0
    packed(tmp_path)
    return tmp_path / "out"


def home(brought: Path, *more: str) -> int:
    return bring_home.main([str(brought), "--results", "home", *more])


def test_rows_and_soaks_come_home(brought: Path, capsys: pytest.CaptureFixture) -> None:
    """Row, soak, and the row that was only trained; the second time they are here already."""
    assert home(brought) == 0
    wanted = rows.section("params.yaml")
    assert all(rows.is_done(wanted, name, 0, "home", "params.yaml") for name in ("whole", "plain"))
    measured = json.loads(Path("home/ablation/plain/0/metrics.json").read_text())["protocols"]
    assert "posterior_kmeans" in measured["clean"]
    assert Path("home/soak/small/x3/0/metrics.json").exists()
    assert (Path("home/ablation/whole/0/metrics.json").read_text()
            == Path("work/results/ablation/whole/0/metrics.json").read_text())
    assert "3 new in home, 0 here already, 0 not measured" in capsys.readouterr().out
    assert home(brought, "--no-evaluate") == 0
    assert "0 new in home, 2 here already, 1 not measured" in capsys.readouterr().out


def other_settings(here: Path) -> str:
    given = yaml.safe_load((here / "params.yaml").read_text())
    given["presets"]["small"]["train"]["lr"] = 0.5
    (here / "params.yaml").write_text(yaml.safe_dump(given))
    return "ablation/whole/0: run with other settings"


def another_device(here: Path) -> str:
    shutil.copytree("work/results/ablation/whole/0", "home/ablation/whole/0")
    write_json("home/ablation/whole/0/environment.json", {"device": "cuda"})
    return "ablation/whole/0: one trained on cuda is there, this is from cpu; move it away, or take --replace"


def another_row(here: Path) -> str:
    write_json("home/ablation/whole/0/metrics.json", {"seed": 0, "steps": 7, "protocol": None, "protocols": {}})
    write_json("home/ablation/whole/0/config.json", {"model": {}, "train": {}})
    return "ablation/whole/0: one with other settings is there"


def no_such_row(here: Path) -> str:
    given = yaml.safe_load((here / "params.yaml").read_text())
    given["ablation"] |= {"rows": ["plain"], "changes": {"plain": given["ablation"]["changes"]["plain"]}}
    (here / "params.yaml").write_text(yaml.safe_dump(given))
    return "ablation/whole/0: unknown row of the ablation 'whole'"


def test_a_damaged_row_does_not_end_the_rest(brought: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The row that is whole comes home, the other one is named; likewise of soaks."""
    for damaged, kept in (("ablation/whole/0", "soak/small/x3/0"), ("soak/small/x3/0", "ablation/whole/0")):
        path = tmp_path / "work/results" / damaged / "metrics.json"
        whole = path.read_text()
        path.write_text("{}")
        packed(tmp_path)
        assert home(brought, "--no-evaluate") == 2
        path.write_text(whole)
        error = capsys.readouterr().err
        assert f"{damaged}: " in error and "is missing" in error and error.count("\n") == 1
        assert not (tmp_path / "home" / damaged).exists() and (tmp_path / "home" / kept).is_dir()
        shutil.rmtree(tmp_path / "home")


@pytest.mark.parametrize("changed", [other_settings, another_device, another_row, no_such_row])
def test_what_is_not_that_of_here_is_refused(brought: Path, changed, capsys: pytest.CaptureFixture) -> None:
    """With one line; what is right is taken in, and what was here stays."""
    says = changed(Path())
    kept = Path("home/ablation/whole/0/config.json")
    before = kept.read_bytes() if kept.exists() else None
    assert home(brought, "--no-evaluate") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert says in line and "the rest is here" in line
    assert (kept.read_bytes() if kept.exists() else None) == before
    assert Path("home/soak/small/x3/0").exists() == (changed is not other_settings)
    if changed in (another_device, another_row):
        assert home(brought, "--no-evaluate", "--replace") == 0
        device = json.loads(Path("home/ablation/whole/0/environment.json").read_text())["device"]
        assert device == "cpu" and kept.read_bytes() == Path("work/results/ablation/whole/0/config.json").read_bytes()
