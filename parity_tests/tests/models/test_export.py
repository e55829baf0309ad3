"""Graphs with a free batch size: `torch.export` for every family, ONNX where onnxruntime is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests.harness import every_family
from pipelines import cli
from pipelines import export as command
from port.checkpoints import export

# The rest is made of what these are made of, and takes as long again.
DEFAULT = ("scae", "pcae", "constellation", "capsnet", "em")
SHORTER = {"em": {"iterations": 2}}  # a graph of two thirds
ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture(params=every_family.KINDS)
def kind(request: pytest.FixtureRequest, tier: str) -> str:
    if request.param not in DEFAULT and tier != "deep":
        pytest.skip("made of what scae is made of: only with --tier=deep")
    return request.param


def test_every_batch_size(kind: str) -> None:
    made = every_family.model(kind, **SHORTER.get(kind, {}))
    program = export.program(made)
    module = program.module()

    def answers(given: torch.Tensor) -> dict[str, np.ndarray]:
        with torch.no_grad():
            return {name: value.numpy() for name, value in module(given).items()}
    shares = command.compare(made, answers)
    assert shares and max(shares.values()) <= 1, shares
    # Only operations that every PyTorch knows.
    own = [str(node.target) for node in program.graph.nodes if "scae" in str(node.target)]
    assert not own, own


def test_the_plain_call() -> None:
    """As people write it, with gradients on and without this project's wrapper."""

    class Presence(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.model(image).mass_explained_by_capsule

    made = every_family.model("scae")
    program = torch.export.export(Presence(made), (every_family.examples(made, 2),),
                                  dynamic_shapes={"image": {0: torch.export.Dim("b", min=1, max=64)}})
    given = every_family.examples(made, 7, seed=3)
    torch.testing.assert_close(program.module()(given), made(given).mass_explained_by_capsule)


def test_another_function_is_refused() -> None:
    made = every_family.model("capsnet")

    def answers(given: torch.Tensor) -> dict[str, np.ndarray]:
        with torch.no_grad():
            said = {name: value.numpy().copy() for name, value in export.Outputs(made)(given).items()}
        said["reconstruction"][0, 0, 0, 0] += 1e-3
        return said
    shares = command.compare(made, answers)
    assert shares["reconstruction"] > 1 >= shares["evidence"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = every_family.model("pcae")
    port.save(made, tmp_path / "model", "tiny")
    out = tmp_path / "there" / "parts.pt2"
    assert cli.main(["export", str(tmp_path / "model"), str(out)]) == 0
    assert "gives part_presence, part_pose, reconstruction" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == ["parts.pt2"]
    given = every_family.examples(made, 4)
    found = torch.export.load(out).module()(given)
    torch.testing.assert_close(found["part_presence"], made(given).part_presence.detach())


REFUSED = {  # words → file name, format, what the line says
    "no kind": ("parts", None, "end its name with .pt2 or .onnx"),
    "unknown kind": ("parts.pt2", "tflite", "--format pt2, onnx or folder"),
    "a folder in its place": ("model", "pt2", "that is a folder")}


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    name, kind, says = REFUSED[words]
    port.save(every_family.model("pcae"), tmp_path / "model", "tiny")
    before = sorted(tmp_path.rglob("*"))
    options = [] if kind is None else ["--format", kind]
    assert cli.main(["export", str(tmp_path / "model"), str(tmp_path / name), *options]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(ONNX, reason="onnx and onnxscript are installed")
def test_onnx_without_its_packages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    port.save(every_family.model("pcae"), tmp_path / "model", "tiny")
    assert cli.main(["export", str(tmp_path / "model"), str(tmp_path / "parts.onnx")]) == 2
    assert "install the extra `export`" in capsys.readouterr().err


@pytest.mark.skipif(not ONNX, reason="onnx, onnxscript and onnxruntime are not installed (extra `export`)")
@pytest.mark.parametrize("family", every_family.KINDS)
def test_onnx(family: str, tmp_path: Path) -> None:
    port.save(every_family.model(family), tmp_path / "model", "tiny")
    shares = command.run(tmp_path / "model", tmp_path / "model.onnx")
    assert shares and max(shares.values()) <= 1, shares
    assert not list(tmp_path.glob(".*"))
