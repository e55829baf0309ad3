"""The commands on original checkpoints with and without TensorFlow, and strangers."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import port
import reference
from parity_tests.harness.converted import FIXTURE, ckpt, refused
from parity_tests.harness.fresh import fresh
from pipelines import cli
from pipelines.checkpoints import child
from pipelines.support.values import BadInput, CheckFailed
from port.checkpoints import contents, model_folder
from port.checkpoints.convert import ConversionError
from port.checkpoints.strangers import Choices, choose

# -------------------------------------------------------------------------- with and without TensorFlow

WITHOUT = """
import sys, time
sys.modules["tensorflow"] = None
from pipelines import cli
from pipelines.commands import inspect
from pipelines.support import console
started = time.process_time()
code = cli.main(["inspect", CKPT])
assert code == 0 and time.process_time() - started < 1.0, (code, time.process_time() - started)
assert cli.main(["convert", CKPT, "out", "--config", CONFIG, "--no-verify"]) == 0
assert cli.main(["convert", CKPT, "half", "--config", CONFIG]) == 0
assert cli.main(["convert", "--to", "tf", "half", "back/model.ckpt-20"]) == 0
assert cli.main(["verify", CKPT, "half"]) == 0
assert cli.main(["record", CKPT, "recorded", "--config", CONFIG]) == 2
assert not any(name.startswith("tensorflow.") for name in sys.modules)
"""


def test_without_tensorflow(tmp_path: Path, tier: str) -> None:
    """All of it but the comparison with the reference, which is said to be missing, in the card too."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    done = fresh(f"CKPT, CONFIG = {ckpt(FIXTURE)!r}, {str(FIXTURE.folder)!r}\n{WITHOUT}", tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout.replace("\n", " ")
    assert "not proven: that it computes what the original does" in said and child.HOW in said
    assert "not proven: that TensorFlow reads it" in said and "verified in part" in said
    assert done.stderr.count("\n") == 1 and "record needs TensorFlow" in done.stderr
    card = (tmp_path / "half" / "README.md").read_text()
    assert "**in part**" in card and "scae verify" in card
    assert "unverified" in (tmp_path / "out" / "README.md").read_text()
    back, source = reference.read_checkpoint(tmp_path / "back"), reference.read_checkpoint(ckpt(FIXTURE))
    assert set(back) <= set(source) and all(back[name].tobytes() == source[name].tobytes() for name in back)


WITH = """
import sys
from pipelines import cli
assert cli.main(["convert", CKPT, "out", "--config", CONFIG]) == 0
assert cli.main(["convert", "--to", "tf", "out", "back/model.ckpt-20"]) == 0
assert "tensorflow" not in sys.modules and sys.modules.get("triton", True) is not None
import torch
torch.compile(lambda x: x * 2, backend="eager")(torch.ones(2))
"""


@pytest.mark.slow
def test_with_tensorflow_in_a_child(tmp_path: Path, tier: str) -> None:
    """A user's process proves a conversion and never loads TensorFlow."""
    if tier != "deep":
        pytest.skip("deep tier: TensorFlow is loaded twice")
    done = fresh(f"CKPT, CONFIG = {ckpt(FIXTURE)!r}, {str(FIXTURE.folder)!r}\n{WITH}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "done and proven" in done.stdout and "by TensorFlow too" in done.stdout
    assert "verified: 292 arrays" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
def test_the_child(tmp_path: Path, tier: str) -> None:
    """TensorFlow's reading of a checkpoint, asked for by a process without TensorFlow."""
    if tier != "deep":
        pytest.skip("deep tier: TensorFlow is loaded once more")
    done = fresh(f"""
import sys
from pipelines.checkpoints import child
found = child.ask("read back", source={ckpt(FIXTURE)!r})
assert len(found["sections"][0]["rows"]) == 292 and not found["notes"]
assert {{row["verdict"] for row in found["sections"][0]["rows"]}} == {{"exact"}}
assert "tensorflow" not in sys.modules
""", tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("does", "kind", "says"), [
    ("""cat > /dev/null; echo '{"answer": 7}' > "$5" """, None, "7"),
    ("""echo '{"BadInput": "no such file"}' > "$5" """, BadInput, "no such file"),
    ("""echo '{"CheckFailed": "w differs"}' > "$5" """, CheckFailed, "w differs"),
    ("echo one >&2; echo ImportError: two >&2; exit 3", CheckFailed, "exit code 3: ImportError: two"),
    ("kill -ABRT $$", CheckFailed, "SIGABRT"), ("kill -INT $$", KeyboardInterrupt, ""),
    ("exit 1", CheckFailed, "it said nothing")])
def test_what_a_child_says(does: str, kind: type[BaseException] | None, says: str, tmp_path: Path,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer, its refusals and its ends, as the parent gives them on."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    if kind is None:
        assert child.in_child("verify", {"source": "x"}) == int(says)
        return
    with pytest.raises(kind, match=says):
        child.in_child("verify", {"source": "x"})


def test_every_task_is_there() -> None:
    """Each names a function that takes what it is asked with."""
    for task in child.TASKS.values():
        module, _, function = task.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


# ------------------------------------------------------------------------------------------- strangers

def arrays() -> dict[str, np.ndarray]:
    return reference.read_checkpoint(ckpt(FIXTURE))


def convert(folder: Path, changed: dict[str, np.ndarray], *words: str) -> list[str]:
    """The command that converts changed arrays."""
    port.write_checkpoint(folder / "ckpt" / "model.ckpt-20", changed)
    return ["convert", str(folder / "ckpt"), str(folder / "out"), "--config", str(FIXTURE.folder), *words]


def scoped(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name if name == "global_step" else f"model/{name}": value for name, value in found.items()}


def averaged(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every weight with an average that differs from it."""
    return found | {f"{name}/ExponentialMovingAverage": value * np.float32(0.99)
                    for name, value in found.items() if "RMSProp" not in name and name != "global_step"}


def test_strangers(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Skipped, renamed, scoped; each is offered when it is missing, and listed in the card."""
    changed = scoped(arrays() | {"learning_rate": np.float32(0.1), "beta1_power": np.float32(0.9)})
    scope = "model/set_transformer"
    for end in ("", "/RMSProp", "/RMSProp_1"):
        changed[f"{scope}/first/w{end}"] = changed.pop(f"{scope}/linear/w{end}")
    words = ("--rename", "model/=", "--skip", "*learning_rate", "--skip", "*beta?_power", "--rename",
             "set_transformer/first/w=set_transformer/linear/w")
    command = convert(tmp_path, changed, "--no-verify")
    assert "--rename model/=" in refused(capsys, *command)
    assert "--skip NAME" in refused(capsys, *command, *words[:2])
    assert cli.main([*command, *words]) == 0
    out = tmp_path / "out"
    card = (out / "README.md").read_text()
    for line in ("left out (--skip *learning_rate): model/learning_rate", "renamed (--rename model/=)",
                 "renamed (--rename set_transformer/first/w=set_transformer/linear/w): 3 arrays"):
        assert line in card and line in capsys.readouterr().out + card
    model = port.load(out)
    assert all(value.tobytes() == arrays()[name].tobytes() for name, value in port.to_tf(model).items())
    assert json.loads(model_folder.load_metadata(out)["choices"])["rename"] == ["model/=", words[-1]]
    assert cli.main(["inspect", str(tmp_path / "ckpt"), *words]) == 0


def test_averages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The averages stand for the weights, slots are left out, nothing is mixed; else they are named."""
    changed = averaged(arrays())
    command = convert(tmp_path, changed, "--no-verify")
    assert "--averages takes them" in refused(capsys, *command)
    assert cli.main([*command, "--averages"]) == 0
    out = tmp_path / "out"
    for name, value in port.to_tf(port.load(out)).items():
        assert value.tobytes() == changed[f"{name}/ExponentialMovingAverage"].tobytes(), name
    assert not (out / "optimizer.safetensors").exists()
    assert "the weights are moving averages (--averages)" in (out / "README.md").read_text()
    assert cli.main([*command, "--skip", "*/ExponentialMovingAverage"]) == 0
    assert port.to_tf(port.load(out))["set_transformer/linear/w"].tobytes() == changed[
        "set_transformer/linear/w"].tobytes()
    del changed["set_transformer/linear/w/ExponentialMovingAverage"]
    assert "set_transformer/linear/w has none" in refused(capsys, *convert(tmp_path, changed, "--averages"))


def test_a_proven_one(tmp_path: Path, tier: str) -> None:
    """A renamed checkpoint is proven like any other, and verify knows what was renamed."""
    if tier != "deep":
        pytest.skip("deep tier: the proof is the same as of any checkpoint")
    command = convert(tmp_path, scoped(averaged(arrays())), "--rename", "model/=", "--averages")
    assert cli.main(command) == 0
    assert cli.main(["verify", command[1], command[2]]) == 0


def test_a_step_of_32_bits(tmp_path: Path) -> None:
    changed = arrays()
    changed["global_step"] = changed["global_step"].astype(np.int32)
    assert cli.main(convert(tmp_path, changed, "--no-verify")) == 0
    assert "the step was stored as int32" in (tmp_path / "out" / "README.md").read_text()
    assert model_folder.load_slots(tmp_path / "out", port.load(tmp_path / "out"))[1] == 20


@pytest.mark.parametrize(("choices", "says"), [
    (Choices(skip=["x"]), "no array of that name"),
    (Choices(rename=["x=y"]), "no array of that name or scope"),
    (Choices(rename=["ab"]), "expected OLD=NEW"), (Choices(rename=["a=b"]), "which another array has"),
    (Choices(rename=["a="]), "would get no name"), (Choices(averages=True), "no weight has one"),
    (Choices(skip=["\x1b[2J"]), r"--skip \x1b[2J")])
def test_choices_that_fit_nothing(choices: Choices, says: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(says)):
        choose({"a": np.zeros(2), "b": np.zeros(2)}, choices)


def test_names_reach_no_terminal_raw(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Control characters in names, in the list and in the message."""
    port.write_checkpoint(tmp_path / "model.ckpt-1", {"a\x1b]0;title\x07": np.zeros(2, np.float32)})
    assert r"a\x1b]0;title\x07" in refused(capsys, "inspect", str(tmp_path))
    cli.main(["inspect", str(tmp_path)])
    both = capsys.readouterr()
    assert "\x1b" not in both.out + both.err and r"a\x1b]0;title\x07" in both.out
    with pytest.raises(contents.Strangers, match="x1b"):
        port.from_tf(port.read_checkpoint(tmp_path))
