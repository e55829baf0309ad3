"""docs/parity_in_your_ci.md in somebody else's repository: the wheel, an environment of its own, the action's steps.

The steps are read from action.yml and run as they stand there; only what a runner of GitHub's would do around them
(inputs, folders, variables) is done here. Needs no network: what the wheel declares is linked from this environment.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from parity_tests.goldens import REPOSITORY
from parity_tests.tests.pipelines.built_wheel import build_wheel, environment_of

pytestmark = pytest.mark.skipif(not (find_spec("setuptools") and find_spec("ensurepip") and find_spec("packaging")),
                                reason="setuptools, ensurepip or packaging is not installed")
ACTION = REPOSITORY / ".github/actions/parity/action.yml"
ORIGINAL = '''
import tensorflow as tf


def centred(x):
    """x - mean over the features."""
    return x - tf.reduce_mean(x, -1, keepdims=True)


def normalized(x, gain):
    """gain · centred / √(variance + 1e-5)."""
    y = centred(x)
    return gain * y / tf.sqrt(tf.reduce_mean(y * y, -1, keepdims=True) + 1e-5)
'''
PORT = '''
import torch


def centred(x):
    return x - x.mean(-1, keepdim=True)


def normalized(x, gain):
    y = centred(x)
    return gain * y / torch.sqrt((y * y).mean(-1, keepdim=True) + 1e-5)
'''
REGISTRY = '''
from parity_tests.given import Pair
from parity_tests.harness.sides import Recipe
from parity_tests.mutants.planting import Mutant
from parity_tests.registry import OpCase

PAIR = Pair(reference="model_tf", port="model_torch")


def _centred(m):
    batch, features = m.sizes(2, 2, 6)
    return m.case(terms=features, x=m.normal(batch, features))


def _normalized(m):
    batch, features = m.sizes(2, 2, 6)
    return m.case(terms=features, x=m.normal(batch, features), gain=m.normal(features))


ROWS = (OpCase("stats.centred", Recipe(lambda lib, x, a, _: PAIR.of(lib).centred(**x)), _centred),
        OpCase("stats.normalized", Recipe(lambda lib, x, a, _: PAIR.of(lib).normalized(**x)), _normalized))
MUTANTS = (Mutant("axis", "model_torch.py", "x.mean(-1, keepdim=True)", "x.mean(0, keepdim=True)", "mean over images"),)
'''
# Two differences. The first leaves every value as it is: only the gradient of the part tells.
WRONG = (("x.mean(-1, keepdim=True)", "x.mean(-1, keepdim=True).detach()"), ("+ 1e-5", "+ 1e-3"))


class Ran(NamedTuple):
    """What a run of the action leaves: exit code, log, job summary, folder of results."""

    code: int
    log: str
    summary: str
    results: Path


def repository(at: Path, *differences: tuple[str, str]) -> Path:
    """Somebody else's repository, with tests of its own that must not run."""
    port = PORT
    for right, wrong in differences:
        assert port.count(right) == 1
        port = port.replace(right, wrong)
    files = {"parity/model_tf.py": ORIGINAL, "parity/model_torch.py": port, "parity/registry.py": REGISTRY,
             "pyproject.toml": '[tool.pytest.ini_options]\ntestpaths = ["tests"]\naddopts = "-q"\n',
             "tests/conftest.py": "raise AssertionError('their own tests were not asked for')\n",
             "tests/test_theirs.py": "def test_theirs():\n    assert False\n"}
    for name, text in files.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_text(text)
    return at


def run_action(checkout: Path, environment: Path, home: Path, **given: str) -> Ran:
    """The shell steps of action.yml as a runner takes them, with nothing of this process's environment."""
    action = yaml.safe_load(ACTION.read_text())
    values = {name: told.get("default", "") for name, told in action["inputs"].items()} | given
    assert set(values) == set(action["inputs"])

    def filled(text: str) -> str:
        text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: values[match[1]], text)
        assert "${{" not in text
        return text
    home.mkdir()
    summary = home / "summary.md"
    summary.touch()
    around = {"PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(home), "PIP_NO_INDEX": "1",
              "GITHUB_STEP_SUMMARY": str(summary), "GITHUB_ACTION_PATH": str(ACTION.parent), "OMP_NUM_THREADS": "1",
              "PIP_NO_COMPILE": "1"}
    code, log = 0, ""
    for step in action["runs"]["steps"]:
        if "run" not in step:
            assert step["uses"].startswith("actions/upload-artifact@") and not cancelled(step["if"])
            continue
        assert step["shell"] == "bash"
        script = home / "step.sh"
        script.write_text(filled(step["run"]))
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", script], stdin=subprocess.DEVNULL,
            cwd=checkout / filled(step.get("working-directory", ".")), capture_output=True, text=True,
            env=around | {name: filled(value) for name, value in step.get("env", {}).items()})
        code, log = done.returncode, log + done.stdout + done.stderr
        if code:
            break
    return Ran(code, log, summary.read_text(), checkout / values["working-directory"] / values["results"])


def cancelled(condition: str) -> bool:
    """Whether a step with this condition is left out after a failure; only one condition is used."""
    return condition != "${{ !cancelled() }}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of(wheel, ("parity", "reference"), tmp_path_factory.mktemp("environment") / "venv")


def test_two_planted_differences(wheel: Path, environment: Path, tmp_path: Path) -> None:
    """The job fails, and summary, JUnit file, page and JSON name the first differing tap: a gradient of the part."""
    checkout = repository(tmp_path / "theirs", *WRONG)
    ran = run_action(checkout, environment, tmp_path / "home", requirement=f"{wheel}[parity,reference]",
                     registry="parity/registry.py", tier="smoke")
    assert ran.code == 1, ran.log
    first = "stats.centred  tap grad/x: port float64 differs from reference float64"
    assert "## Parity: failed" in ran.summary and f"First difference: {first}" in ran.summary.replace("\\", "")
    assert f"First difference: {first}" in (ran.results / "parity.html").read_text()
    told = [one.get("value") for one in ElementTree.parse(ran.results / "junit.xml").iter("property")
            if one.get("name") == "parity.difference"]
    assert [value.partition("  ")[0] for value in told] == ["stats.centred", "stats.normalized"]
    assert told[0].startswith(first) and "reproduce: python -m pytest --registry=" in told[0]
    verdicts = {row["op"]: row["verdict"] for row in json.loads((ran.results / "parity.json").read_text())["ops"]}
    assert verdicts == {"stats.centred": "fail", "stats.normalized": "fail"}
    # Nothing of the checkout took part, nor of the tests of that repository.
    assert str(REPOSITORY) not in ran.log and "theirs" not in ran.log.replace(str(checkout), "")


@pytest.mark.deep
def test_a_right_port(wheel: Path, environment: Path, tmp_path: Path, tier: str) -> None:
    """The same repository without them: everything agrees, the planted bug is caught, nothing else is written."""
    if tier != "deep":
        pytest.skip("deep tier: one more run of an environment of its own")
    checkout = repository(tmp_path / "theirs")
    before = {path for path in checkout.rglob("*") if "__pycache__" not in path.parts}
    ran = run_action(checkout, environment, tmp_path / "home", requirement=f"{wheel}[parity,reference]",
                     registry="registry.py", **{"working-directory": "parity"})
    assert ran.code == 0, ran.log
    assert "## Parity: passed" in ran.summary and "All 3 checks agree" in ran.summary
    after = {path for path in checkout.rglob("*") if not {"__pycache__", ".pytest_cache"} & set(path.parts)}
    assert {path.name for path in after - before} == {"parity-results", "junit.xml", "parity.html", "parity.json"}


@pytest.mark.deep
def test_a_program_that_is_not_there(wheel: Path, environment: Path, tmp_path: Path, tier: str) -> None:
    """No comparison is no agreement: the summary says what is missing."""
    if tier != "deep":
        pytest.skip("deep tier: one more run of an environment of its own")
    checkout = repository(tmp_path / "theirs")
    (checkout / "parity/model_torch.py").unlink()
    ran = run_action(checkout, environment, tmp_path / "home", requirement=f"{wheel}[parity,reference]",
                     registry="parity/registry.py", tier="smoke")
    assert ran.code == 1 and "No module named 'model_torch'" in ran.summary.replace("\\", ""), ran.log
    ran = run_action(checkout, environment, tmp_path / "second", requirement=f"{wheel}[parity,reference]",
                     registry="parity/nowhere.py")
    assert ran.code == 4 and "Nothing was compared" in ran.summary, ran.log
