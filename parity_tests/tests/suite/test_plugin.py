"""The pytest plug-in of an installed package, and the page and summary of a run of `--registry`."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

import scae_parity
from parity_tests import conftest
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import recorder
from parity_tests.harness.pages import Pages

FAILED = ("net.block  tap grad/x: port float64 differs from reference float64\n"
          "  1 of 4 entries beyond the bound 1.000e-12\n  reproduce: …")
ACTION = REPOSITORY / ".github/actions/parity/action.yml"


# ------------------------------------------------------------------------------------------- the plug-in

@pytest.mark.parametrize(("words", "asked"), [
    ([], False), (["tests", "-k", "registry"], False), (["--registry=parity/registry.py"], True),
    (["--registry", "parity/registry.py", "-q"], True), (["--registry=images.example.org/team"], False),
    (["--registry"], False), (["--registry-file=registry.py"], False)])
def test_who_asks(words: list[str], asked: bool) -> None:
    """Only a registry file is meant for us; then the session is registered once, under pytest's own name.

    Without a path the registry's folder is where conftest.py files are looked for, not `testpaths`.
    """
    named: list[str] = []
    known = SimpleNamespace(file_or_dir=[])
    manager = SimpleNamespace(hasplugin=named.__contains__, register=lambda plugin, name: named.append(name))
    for _ in range(2):
        scae_parity.pytest_load_initial_conftests(
            SimpleNamespace(pluginmanager=manager, known_args_namespace=known), words)
    assert named == [conftest.__file__] * asked and known.file_or_dir == ["parity/registry.py"] * asked


def test_the_entry_point_resolves() -> None:
    """As pyproject.toml declares it, and as it is installed where it is."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    points = declared["project"]["entry-points"]["pytest11"]
    assert points == {"scae_parity": scae_parity.__name__}
    assert scae_parity.__name__ in declared["tool"]["setuptools"]["py-modules"]
    for point in importlib.metadata.entry_points(group="pytest11", name="scae_parity"):
        assert point.load() is scae_parity


def test_a_repository_that_did_not_ask(tmp_path: Path, tier: str) -> None:
    """Its own options of our names work, no option of ours is there, and nothing heavy is imported."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    for name in ('--tier', '--registry', '--parity-json'):\n"
        "        parser.addoption(name, default='theirs')\n")
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n\ndef test_theirs(pytestconfig):\n    assert pytestconfig.getoption('--tier') == 'theirs'\n"
        "    assert pytestconfig.getoption('--registry') == 'images.example.org'\n"
        "    assert 'scae_parity' in sys.modules\n"
        "    heavy = {'torch', 'tensorflow', 'numpy', 'hypothesis', 'port', 'reference', 'parity_tests', 'pipelines'}\n"
        "    assert not heavy & set(sys.modules)\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "scae_parity", "-p", "no:cacheprovider",
         "--registry=images.example.org"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(REPOSITORY), "PYTEST_ADDOPTS": ""})
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------------------------- what is written

def told(pages: Pages, test: str, kind: str, op: str, difference: str = "") -> None:
    """A test's report, as pytest or a worker of pytest-xdist hands it over."""
    pages.pytest_runtest_logreport(SimpleNamespace(
        when="call", failed=bool(difference), outcome="failed" if difference else "passed",
        nodeid=f"parity/registry.py::{test}", user_properties=[
            ("parity.kind", kind), ("parity.op", op), ("parity.difference", difference)]))


def ended(pages: Pages, code: int) -> None:
    pages.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()), code)


@pytest.fixture
def pages(tmp_path: Path) -> Any:
    """A run of two ops, the part before the block that is made of it."""
    with recorder.aside():
        recorder.reset()
        for op in ("net.part", "net.block"):
            recorder.op_entry(op)["tests"] += 1
        yield Pages(str(tmp_path / "out/parity.html"), str(tmp_path / "out/summary.md"))


def test_the_first_difference_is_that_of_the_first_row(pages: Pages) -> None:
    """Whatever ends first; the summary is appended, the page escapes what it shows."""
    summary, page = Path(pages.summary), Path(pages.page)
    summary.parent.mkdir()
    summary.write_text("an earlier step\n")
    told(pages, "test_mutant[axis]", "mutant", "", "mutant axis survives")
    told(pages, "test_op[net.block]", "op", "net.block", FAILED)
    told(pages, "test_op[net.part]", "special", "net.part", FAILED.replace("block", "part").replace("…", "<x>"))
    ended(pages, 1)
    said = summary.read_text()
    assert said.startswith("an earlier step\n## Parity: failed\n")
    assert "First difference: net.part  tap grad/x: port float64 differs" in said and "1 of 4 entries beyond" in said
    assert "net.block  tap" not in said and "| net.block | fail |" in said
    shown = page.read_text()
    assert "&lt;x&gt;" in shown and "<x>" not in shown and "First difference: net.part  tap grad/x" in shown


def test_all_agrees(pages: Pages) -> None:
    for op in ("net.part", "net.block"):
        recorder.op_entry(op)["passed"] += 1
        told(pages, f"test_op[{op}]", "op", op)
    told(pages, "test_recording[a.npz-port]", "recording", "net.block")
    ended(pages, 0)
    said = Path(pages.summary).read_text()
    assert "## Parity: passed\n\nAll 3 checks agree\n" in said and "| net.part | pass |" in said
    assert "| test\\_recording\\[a.npz-port\\] | pass |" in said


def test_nothing_could_be_compared(pages: Pages) -> None:
    """A program that cannot be imported is no agreement, and is named."""
    pages.pytest_collectreport(SimpleNamespace(failed=True, nodeid="parity/registry.py", longrepr=(
        "parity/registry.py:3: in <module>\nE   ModuleNotFoundError: No module named 'model_torch'\n")))
    ended(pages, 2)
    assert "Nothing was compared: ModuleNotFoundError: No module named 'model\\_torch'" in Path(
        pages.summary).read_text()
    pages.broken.clear()
    assert pages.headline(5) == "Nothing was compared: pytest ended with exit code 5"


# -------------------------------------------------------------------------------------- action and page

def test_the_page_shows_the_action_as_it_is() -> None:
    """Every input with its default, and a workflow that uses only inputs that there are."""
    page = (REPOSITORY / "docs/parity_in_your_ci.md").read_text()
    inputs = yaml.safe_load(ACTION.read_text())["inputs"]
    for name, told in inputs.items():
        unset = "none" if name == "arguments" else "the action's own revision"
        default = told.get("default", "must be given") or unset
        assert f"| `{name}` | {default} |" in page.replace(f"`{default}`", default), name
    workflow = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
    *_, last = workflow["jobs"]["parity"]["steps"]
    assert last["uses"] == f"OWNER/scae-port/{ACTION.parent.relative_to(REPOSITORY)}@REVISION"
    assert set(last["with"]) <= set(inputs)
