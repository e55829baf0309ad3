"""Checkpoints of CapsNet and of both programs of matrix capsules: inspect, convert, verify, and back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import port
import reference
from parity_tests.goldens import capsnet as golden_capsnet
from parity_tests.goldens import routing as goldens_routing
from parity_tests.goldens.routing import RoutingRecord
from parity_tests.goldens.verify_em import network_settings
from parity_tests.harness.converted import refused
from pipelines import cli
from port.checkpoints import model_folder
from port.checkpoints import programs as origins
from port.core import adam as optim_adam
from port.em import settings as em_settings

RECORDS = {"capsnet": "net_tiny_s51_f64", "em_official": "gr_net_tiny_s161_f64",
           "em_ibm": "ibm_net_tiny_s261_f64"}


def record_of(name: str) -> RoutingRecord:
    return next(record for record in goldens_routing.records(name.split("_")[0])
                if record.name == RECORDS[name])


def said_of(name: str) -> dict:
    """What names and shapes do not tell of a recorded network."""
    record = record_of(name)
    if name == "capsnet":
        settings = golden_capsnet.network_settings(record)
        return {key: settings[key] for key in ("conv1_stride", "primary_stride", "iterations", "leaky")}
    return {"canvas": int(record.inputs["images"].shape[2])}


def arrays_of(name: str, slots: bool = True) -> dict[str, np.ndarray]:
    """A recorded network's variables as its program would save them, with Adam's slots and the step."""
    rng = np.random.default_rng(3)
    arrays: dict[str, np.ndarray] = {key: value.astype(np.float32)
                                     for key, value in record_of(name).variables.items()}
    if slots:
        for key in list(arrays):
            arrays[f"{key}/Adam"] = (1e-3 * rng.standard_normal(arrays[key].shape)).astype(np.float32)
            arrays[f"{key}/Adam_1"] = (1e-6 * rng.random(arrays[key].shape)).astype(np.float32)
        arrays |= {"beta1_power": np.float32(0.9 ** 7), "beta2_power": np.float32(0.999 ** 7),
                   "global_step": np.int64(7)}
    return arrays


def written(name: str, folder: Path, slots: bool = True) -> tuple[str, str]:
    """A checkpoint and the file of what is said."""
    reference.write_checkpoint(folder / "model.ckpt-7", arrays_of(name, slots))
    (folder / "said.json").write_text(json.dumps(said_of(name)))
    return str(folder / "model.ckpt-7"), str(folder / "said.json")


@pytest.mark.golden
@pytest.mark.parametrize("name", RECORDS)
def test_there_and_back(name: str, tmp_path: Path, capsys: pytest.CaptureFixture, tier: str) -> None:
    """Converted and proven on both sides, verified again, loaded, and back in every bit."""
    if tier == "smoke" and name != "capsnet":
        pytest.skip("smoke tier: one program")
    prefix, said = written(name, tmp_path)
    out, back, table = str(tmp_path / "out"), str(tmp_path / "back" / "model.ckpt-7"), tmp_path / "t.json"
    assert cli.main(["convert", prefix, out, "--config", said]) == 0
    printed = capsys.readouterr().out
    assert "done and proven" in printed and "step 7" in printed
    assert cli.main(["verify", prefix, out, "--json", str(table)]) == 0
    rows = [row for section in json.loads(table.read_text())["sections"] for row in section["rows"]]
    taps = {row["name"] for row in rows}
    assert ("capsules" in taps and "reconstruction" in taps) or {"capsules0/pose", "classes/logit"} <= taps
    assert cli.main(["convert", "--to", "tf", out, back]) == 0
    source, again = arrays_of(name), reference.read_checkpoint(back)
    assert set(again) == set(source) - {"beta1_power", "beta2_power"}
    for key, value in again.items():
        assert value.tobytes() == np.asarray(source[key]).tobytes(), key

    model = port.load(out)
    adam = optim_adam.Adam(model.named_parameters(), lr=1e-3)
    assert model_folder.continue_from(out, model, adam) == 7
    layer = (model.conv1 if name == "capsnet" else model.conv).weight
    first = next(key for key in source if key.endswith("conv1/weights"))
    assert torch.equal(adam.state[layer]["m"],
                       torch.from_numpy(source[f"{first}/Adam"].transpose(3, 2, 0, 1).copy()))
    assert float(adam.state[layer]["step"]) == 7


@pytest.mark.golden
@pytest.mark.parametrize("name", RECORDS)
def test_the_architecture_is_read(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Sizes and program from names and shapes alone."""
    prefix, _ = written(name, tmp_path, slots=False)
    assert cli.main(["inspect", prefix, "--json", str(tmp_path / "facts.json")]) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    record = record_of(name)
    assert facts["model"] == name.split("_")[0] and not facts["slots"] and facts["step"] is None
    assert facts["parameters"] == sum(value.size for value in record.variables.values())
    if name == "capsnet":
        wanted = golden_capsnet.network_settings(record)
        sizes = {key: wanted[key] for key in ("kernel", "primary_types", "primary_atoms", "classes",
                                              "class_atoms", "canvas", "conv1_channels")}
    else:
        class Lib:  # the port's settings alone
            em = SimpleNamespace(settings=em_settings)
        network = network_settings(record, Lib)
        sizes = {"types": list(network.types), "kernels": list(network.kernels),
                 "channels": network.channels, "classes": network.classes,
                 "image_channels": network.image_channels}
        assert "canvas" in facts["required"]
    assert {key: facts[key] for key in sizes} == sizes
    assert facts["assumed"]["program"] == {"capsnet": "official"}.get(name, name.removeprefix("em_"))


@pytest.mark.golden
@pytest.mark.parametrize(("name", "change", "config", "says"), [
    ("em_ibm", lambda a: a, {}, "does not tell canvas"),
    ("capsnet", lambda a: a, {"classes": 3}, "classes is 3, the checkpoint has"),
    ("capsnet", lambda a: a, {"program": "offical"}, "did you mean 'official'"),
    ("capsnet", lambda a: a, {"program": "paper"}, "routing_bias is False, the checkpoint has True"),
    ("capsnet", lambda a: a | {"capsule3/weights": np.zeros(3, np.float32)}, {}, "none of the original"),
    ("capsnet", lambda a: a | {"relu_conv1/weights": np.zeros(3, np.float32)}, {}, "none of the original"),
    ("em_official", lambda a: {k: v for k, v in a.items() if k != "capsule2/weights/Adam"}, {"canvas": 14},
     "the optimizer slot capsule2/weights/Adam is missing"),
    ("em_official", lambda a: {k: v for k, v in a.items() if not k.startswith("convCaps0/weights")},
     {"canvas": 14}, "the variable convCaps0/weights is missing")])
def test_refused(name: str, change, config: dict, says: str, tmp_path: Path, capsys) -> None:
    """One line and exit code 2."""
    reference.write_checkpoint(tmp_path / "model.ckpt-7", change(arrays_of(name)))
    (tmp_path / "said.json").write_text(json.dumps(config))
    assert says in refused(capsys, "convert", str(tmp_path / "model.ckpt-7"), str(tmp_path / "out"),
                           "--config", str(tmp_path / "said.json"))
    assert not (tmp_path / "out").exists()


@pytest.mark.golden
@pytest.mark.parametrize(("name", "program"), [("capsnet", "official"), ("em_ibm", "ibm"),
                                               ("em_official", "official"), ("em_ibm", "paper")])
def test_a_program_said_is_no_contradiction(name: str, program: str) -> None:
    """Of a program that is said only what makes it that program counts, not the sizes of its preset."""
    arrays = arrays_of(name, slots=False)
    model = port.from_tf(arrays, said_of(name) | {"program": program})
    again = port.from_tf(arrays, said_of(name))
    assert (model.config == again.config) == (program != "paper")
    with pytest.raises(port.ConfigError, match="classes is 9, the checkpoint has"):
        port.from_tf(arrays, said_of(name) | {"program": program, "classes": 9})


def test_every_program_is_told_apart() -> None:
    """No recorded variable name is a mark of two programs."""
    for name in RECORDS:
        found = origins.candidates(list(record_of(name).variables))
        assert len(found) == 1 and found[0].kind == name.split("_")[0]
    assert len({origin.program for origin in origins.ORIGINS}) == len(origins.ORIGINS)
