"""The recipe of CONTRIBUTING.md for a family of models, followed in a copy of the packages with a toy family.

The toy is a linear classifier. What is written here is exactly what the recipe lists: a folder on each side, rows and
mutants under the same path, one line in `families.py`, one in `config.py`, and the new file's name in `ROOMS`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY

FILES = {
    "port/toy/__init__.py": "",
    "port/toy/config.py": '''
import dataclasses
import typing
from typing import Any, ClassVar

from port.configuration.plain import PlainConfig, Spelling, as_plain


@dataclasses.dataclass(frozen=True)
class ToyConfig(PlainConfig):
    """A linear classifier of square images."""

    kind: ClassVar[str] = "toy"
    canvas: int = 5
    channels: int = 2
    n_classes: int = 3

    def to_arguments(self) -> dict[str, Any]:
        return as_plain({"model": self.kind} | dataclasses.asdict(self))


SPELLING = Spelling(typing.get_type_hints(ToyConfig), {}, lambda values: ToyConfig(**values))
SPELLING.hints.pop("kind"), SPELLING.hints.pop("repairs"), SPELLING.hints.pop("unset")
''',
    "port/toy/network.py": '''
import numpy as np
import torch
from torch import Tensor, nn

from port.core.classified import Classified
from port.core.gathering import alone


def scores(x: Tensor, weight: Tensor) -> Tensor:
    """exp(x w) / Σ exp(x w), `[batch, class]`."""
    return torch.softmax(x @ weight, -1)


class Toy(nn.Module):
    """The classifier of a configuration."""

    def __init__(self, config, seed: int = 0) -> None:
        super().__init__()
        self.config, self.gather = config, alone
        size = (config.channels * config.canvas ** 2, config.n_classes)
        self.weight = nn.Parameter(torch.from_numpy(
            np.random.default_rng(seed).standard_normal(size).astype(np.float32)))

    def forward(self, image, label=None, noise=None, taps: bool = False) -> Classified:
        evidence = scores(image.flatten(1), self.weight)
        loss = evidence.sum() if label is None else -torch.log(evidence.gather(1, label[:, None])).mean()
        return Classified(loss, {}, evidence, evidence[..., None], None, None)
''',
    "reference/toy/__init__.py": "",
    "reference/toy/network.py": '''
import numpy as np
import tensorflow as tf


def scores(x: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """exp(x w) / Σ exp(x w), `[batch, class]`."""
    return tf.nn.softmax(tf.matmul(x, weight), -1)


class Toy:
    """The classifier of a configuration."""

    def __init__(self, arguments, seed: int = 0, dtype: tf.DType = tf.float32) -> None:
        size = (arguments["channels"] * arguments["canvas"] ** 2, arguments["n_classes"])
        self.weight = tf.Variable(np.random.default_rng(seed).standard_normal(size).astype(np.float32), dtype=dtype)
''',
    "parity_tests/registry/toy/__init__.py": "",
    "parity_tests/registry/toy/network.py": '''
from parity_tests.goldens.ops import function
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _scores(m: Maker) -> Case:
    batch, features, classes = m.sizes(3, 2, 6)
    return m.case(terms=features, x=m.normal(batch, features), weight=m.normal(features, classes))


ROWS = (OpCase("toy.network.scores", function("toy.network.scores"), _scores),
        OpCase("toy.network.Toy", tested_by="test_recipes.py"))
''',
    "parity_tests/mutants/toy/__init__.py": "",
    "parity_tests/mutants/toy/network.py": '''
from parity_tests.mutants.planting import Mutant

FILE = "port/toy/network.py"
MUTANTS = (Mutant("toy-axis", FILE, "torch.softmax(x @ weight, -1)", "torch.softmax(x @ weight, 0)",
                  "softmax over the batch"),)
''',
}
# The lines that the recipe names: file → (a line that is there, what comes before it).
LINES = {
    "port/families.py": ((
        "from port.scae.pcae import PartAutoencoder\n",
        "from port.toy.config import ToyConfig\nfrom port.toy.network import Toy\n"), (
        "FAMILIES: dict[str, Family] = {\n",
        '    ToyConfig.kind: Family("Toy", lambda c: f"{c.n_classes} classes", Toy, "classes", draws=False),\n')),
    "port/config.py": ((
        "from port.em.config import EMConfig\n", "from port.toy import config as toy_config\n"), (
        "SPELLINGS: dict[str, Spelling] = {", "toy_config.ToyConfig.kind: toy_config.SPELLING, ")),
    "parity_tests/registry/__init__.py": (("ROOMS = (", '"toy.network", '),),
}
CHECK = """
import sys
sys.modules["triton"] = None  # beside TensorFlow, see conftest.py
import torch, port
from parity_tests import registry
from parity_tests.mutants.collection import MUTANTS
from parity_tests.mutants.planting import catch, check_row
config = port.config.from_flat({"model": "toy", "n_classes": 4})
model = port.build(config, seed=1)
result = model(torch.rand(3, 2, 5, 5), torch.tensor([0, 1, 3]))
result.loss.backward()
assert result.evidence.shape == (3, 4) and model.weight.grad.abs().sum() > 0
assert port.config.from_flat(port.config.to_flat(config)) == config
port.save(model, "OUT")
assert torch.equal(port.load("OUT").weight, model.weight)
assert registry.public_names("port", "toy.network") == registry.public_names("reference", "toy.network")
check_row(registry.rows()["toy.network.scores"], examples=5)
(mutant,) = [mutant for mutant in MUTANTS if mutant.file == "port/toy/network.py"]
assert catch(mutant, models=0).by == "toy.network.scores"
print("followed")
"""


def test_a_family_is_added_by_the_recipe(tmp_path: Path, tier: str) -> None:
    """Built, saved, loaded, compared with its reference, and its planted bug caught."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    for package in ("port", "reference", "parity_tests"):
        shutil.copytree(REPOSITORY / package, tmp_path / package, ignore=shutil.ignore_patterns(
            "__pycache__", "fixtures", "tests"))
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, changes in LINES.items():
        text = (tmp_path / name).read_text()
        for line, added in changes:
            assert text.count(line) == 1, f"{name}: {line!r}"
            text = text.replace(line, line + added)
        (tmp_path / name).write_text(text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, text=True, capture_output=True,
                          env=environment | {"PYTHONPATH": str(tmp_path), "SCAE_KERNELS": "off"})
    assert done.stdout.endswith("followed\n"), done.stderr[-3000:]


def test_the_recipe_is_the_one_of_the_page() -> None:
    """CONTRIBUTING.md names this file and the places that it changes."""
    page = (REPOSITORY / "CONTRIBUTING.md").read_text()
    for name in ("FAMILIES", "SPELLINGS", "ROOMS", "parity_tests/tests/suite/test_recipes.py", "config.py"):
        assert name in page
