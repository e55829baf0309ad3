"""Every piece of Python that the README and the pages show runs as it stands, each in a fresh process."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import port
from parity_tests import goldens
from parity_tests.harness.fresh import fresh
from parity_tests.tests.training import test_train_stage
from pipelines import cli
from pipelines import train as stage

PAGES = sorted(["README.md", *(path.relative_to(goldens.REPOSITORY).as_posix()
                                 for path in (goldens.REPOSITORY / "docs").rglob("*.md"))])
PREFIX = "model.ckpt-300001"
SAID = {"template_nonlin": "sigmoid", "color_nonlin": "sigmoid", "canvas_size": 40}
# What a reader of the page has at hand.
GIVEN = """
import torch, numpy, port
side = {side}
image, label = torch.rand(2, 1, side, side), torch.tensor([1, 2])
uint8_images = images = torch.zeros(2, 1, 12, 12, dtype=torch.uint8)  # digits of the run below
"""
SIDE = {"docs/routing_ancestors.md": 28}


def snippets() -> dict[str, str]:
    """Paragraphs of Python about this project, by place: indented stretches between empty lines."""
    found = {}
    for page in PAGES:
        text = (goldens.REPOSITORY / page).read_text()
        for paragraph in re.findall(r"(?:(?<=\n\n)|\A)((?: {4}.*\n)+)", text):
            code = "\n".join(line[4:] for line in paragraph.splitlines())
            command = re.search(r"python -c ('.*')", code)
            if command:
                found[f"{page}: {command[1]}"] = shlex.split(command[1])[0]
            elif re.search(r"\bport\b", code) and is_python(code):
                found[f"{page}: {code.strip().splitlines()[0]}"] = code
    return found


def is_python(text: str) -> bool:
    """Whether a paragraph parses, and does more than name something."""
    try:
        return not all(isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call)
                       for node in ast.parse(text).body)
    except SyntaxError:
        return False


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that has what the pages speak of: a checkpoint, it converted, and a run of digits."""
    folder = tmp_path_factory.mktemp("shown")
    config = port.config.from_flat(SAID | {
        "n_part_caps": 3, "n_obj_caps": 2, "n_hiddens": 5, "n_output_dims": 6, "n_dims": 4, "n_heads": 1,
        "template_size": 5, "n_part_special_features": 4, "n_obj_caps_params": 4,
        "colorize_templates": True, "output_channels": [4, 4, 4, 4]})
    found = port.to_tf(port.ImageAutoencoder(config))
    found |= {f"{name}/{slot}": np.zeros_like(value) for name, value in found.items()
              for slot in ("RMSProp", "RMSProp_1")}
    for place in ("", "run/"):
        port.write_checkpoint(folder / f"{place}{PREFIX}", found | {"global_step": np.int64(300001)})
    (folder / "said.yaml").write_text("".join(f"{key}: {value}\n" for key, value in SAID.items()))
    assert cli.main(["convert", str(folder / PREFIX), str(folder / "OUT"), "--no-verify", "--config",
                     str(folder / "said.yaml")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(goldens.REPOSITORY)
        patch.setattr(stage, "RUNS", folder / "runs")
        stage.run(test_train_stage.preset("train.steps=1"), 0, folder / "results")
    return folder


def test_the_pages_have_snippets() -> None:
    """Or the test below would be empty."""
    pages = [name.partition(":")[0] for name in snippets()]
    assert pages.count("README.md") >= 2 and pages.count("docs/converting.md") >= 3
    assert {"docs/looking.md", "docs/routing_ancestors.md"} <= set(pages)


@pytest.mark.parametrize("name", snippets())
def test_snippets(name: str, shown: Path, tier: str) -> None:
    """Each runs as it stands, with images and labels at hand."""
    code = snippets()[name]
    if 'load("mnist"' in code and tier != "deep":
        pytest.skip("deep tier: trains on MNIST for a minute")
    done = fresh(GIVEN.format(side=SIDE.get(name.partition(":")[0], 40)) + code, shown)
    assert done.returncode == 0, done.stderr
    if "read_checkpoint" in code:
        assert "TensorFlow" not in done.stderr and "LLVM" not in done.stderr


def test_the_first_lines_that_people_come_for() -> None:
    """The README reads a checkpoint with the port and runs the model."""
    code = next(code for name, code in snippets().items() if "read_checkpoint" in code)
    assert "port.from_tf(port.read_checkpoint(" in code and "model(image, label)" in code
