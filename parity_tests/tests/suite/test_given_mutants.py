"""Planted bugs in somebody's program: in packages and helper files, and where the port is wrong already."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity_tests import given
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import recorder
from parity_tests.mutants.planting import Mutant
from parity_tests.tests.suite.test_given import caught, differences

NET_TF = '''
import tensorflow as tf


def centred(x):
    return 2 * (x - tf.reduce_mean(x, -1, keepdims=True))
'''
PARTS = '''
def mean(x):
    return x.mean(-1, keepdim=True)
'''
NET_TORCH = '''
from {parts} import mean


def centred(x):
    return 2 * (x - mean(x))
'''
REGISTRY = '''
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "{folder}"))

from parity_tests.given import Pair
from parity_tests.harness.sides import Recipe
from parity_tests.mutants.planting import Mutant
from parity_tests.registry import OpCase

{more}
PAIR = Pair(reference="{package}net_tf", port="{package}net_torch")


def _centred(m):
    batch, features = m.sizes(2, 2, 6)
    return m.case(terms=features, x=m.normal(batch, features))


ROWS = (OpCase("net.centred", Recipe(lambda lib, x, a, _: {call}(**x)), _centred),)
MUTANTS = (Mutant("comment", "net_torch.py", "2 * (x", "2 * (  x", "no bug at all"),
           Mutant("factor", "net_torch.py", "2 * (x", "3 * (x", "another factor"))
'''
# Registry's folder → the programs' folder, their package, how the port imports its helper, what the row calls.
BY_PAIR, BY_NAME = "PAIR.of(lib).centred", "(tf_side if lib.side == 'reference' else centred)"
LAYOUTS = {"package": ("../src", "given_net", "given_net.parts_torch", BY_PAIR),
           "relative": ("../src", "given_net", ".parts_torch", BY_PAIR),
           "flat": (".", "", "parts_torch", BY_PAIR), "named": ("../src", "given_net", ".parts_torch", BY_NAME)}


NORMALIZED = """
import {library}


def normalized(x, gain):
    y = x - {mean}(x, -1, keepdims=True)
    return gain * y / {library}.sqrt({mean}(y * y, -1, keepdims=True) + 1e-5)
"""


def test_the_smallest_registry_of_the_page(tmp_path: Path, clean: None) -> None:
    """It runs as it stands on the page: both sides agree, and the bug is caught."""
    page = (REPOSITORY / "docs" / "port_your_own_model.md").read_text()
    shown = re.search(r"((?: {4}.*\n)+)", page[page.index("The smallest registry"):])[1]
    (tmp_path / "registry.py").write_text("".join(line[4:] for line in shown.splitlines(keepends=True)))
    for side, library, mean in (("tf", "tensorflow", "tensorflow.reduce_mean"), ("torch", "torch", "torch.mean")):
        (tmp_path / f"model_{side}.py").write_text(NORMALIZED.format(library=library, mean=mean))
    registry = given.load(tmp_path / "registry.py")
    with recorder.aside():
        assert not differences(registry)
        with given.planted(registry, registry.mutants[0]) as mutated:
            assert caught(mutated)


def test_the_names_of_the_page_are_where_it_says() -> None:
    """The table of names and modules."""
    page = (REPOSITORY / "docs" / "port_your_own_model.md").read_text()
    rows = re.findall(r"\| `(\w+)`(?:, `(\w+)`)? \| `(parity_tests[\w.]+)` \|", page)
    assert len(rows) == 5
    assert all(hasattr(importlib.import_module(module), each) for *names, module in rows for each in names if each)


@pytest.fixture
def clean() -> Iterator[None]:
    """The import system as it was before."""
    modules, folders = dict(sys.modules), list(sys.path)
    yield
    sys.path[:] = folders
    for name in set(sys.modules) - set(modules):
        if name.partition(".")[0] in ("given_net", "net_tf", "net_torch", "parts_torch", "model_tf", "model_torch"):
            del sys.modules[name]


def written(at: Path, layout: str) -> tuple[Path, str]:
    """Programs and registry of a layout: the registry file, and the programs' folder seen from it."""
    folder, package, parts, call = LAYOUTS[layout]
    programs = (at / "parity" / folder / package).resolve()
    for each in (programs, at / "parity"):
        each.mkdir(parents=True, exist_ok=True)
    if package:
        (programs / "__init__.py").write_text("")
    (programs / "net_tf.py").write_text(NET_TF)
    (programs / "net_torch.py").write_text(NET_TORCH.format(parts=parts))
    (programs / "parts_torch.py").write_text(PARTS)
    more = ("from given_net.net_tf import centred as tf_side\nfrom given_net.net_torch import centred\n"
            if call == BY_NAME else "")
    path = at / "parity" / "registry.py"
    path.write_text(REGISTRY.format(folder=folder, package=package and f"{package}.", call=call, more=more))
    return path, f"{folder}/{package}"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("file", "old", "new"), [
    ("net_torch.py", "2 * (x", "3 * (x"), ("parts_torch.py", "mean(-1", "mean(0")])
def test_a_bug_is_met_wherever_it_stands(layout: str, file: str, old: str, new: str, tmp_path: Path,
                                         clean: None) -> None:
    """In the module itself and in a helper; afterwards the sound program is back, module for module."""
    path, folder = written(tmp_path, layout)
    registry = given.load(path)
    with recorder.aside():
        assert not differences(registry)
        before = dict(sys.modules)
        with given.planted(registry, Mutant("bug", f"{folder}/{file}", old, new, "")) as mutated:
            assert caught(mutated)
        after = {name: module for name, module in sys.modules.items() if name in before}
        assert after == before and not differences(given.load(path))


def test_only_what_leads_to_the_file_is_imported_anew(tmp_path: Path, clean: None) -> None:
    """The original's side stays, so that what it registers with TensorFlow is registered once."""
    path, folder = written(tmp_path, "package")
    registry = given.load(path)
    with recorder.aside():
        differences(registry)
    original, port = sys.modules["given_net.net_tf"], sys.modules["given_net.net_torch"]
    with given.planted(registry, Mutant("bug", f"{folder}/parts_torch.py", "-1", "0", "")):
        assert sys.modules["given_net.net_tf"] is original and "given_net.net_torch" not in sys.modules
        assert sys.modules["given_net"].parts_torch is sys.modules["given_net.parts_torch"]
    assert sys.modules["given_net.net_torch"] is port


@pytest.mark.parametrize(("file", "says"), [
    ("other/net_torch.py", "is not what is imported as net_torch"), ("nowhere.py", "there is no"),
    ("apart/alone.py", "lies in no folder of sys.path")])
def test_a_bug_in_a_file_that_nothing_imports_is_said(file: str, says: str, tmp_path: Path, clean: None) -> None:
    path, _ = written(tmp_path, "flat")
    for name in ("other/net_torch.py", "apart/alone.py"):
        (path.parent / name).parent.mkdir()
        (path.parent / name).write_text("x = 1\n")
    registry = given.load(path)
    with recorder.aside():
        differences(registry)
    if file == "apart/alone.py":
        sys.path.remove(str(path.parent))
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != path.parent]
    else:
        sys.path.append(str(path.parent / "other"))
    with pytest.raises(ValueError, match=says), given.planted(registry, Mutant("bug", file, "x = 1", "x = 2", "")):
        pass


@pytest.mark.parametrize("new", ["x.item() * (x", "[] * (x", "2 / (lambda: 0)() * (x", "x.transpose(0, 1) * (x"])
def test_a_bug_that_ends_in_an_error_is_caught(new: str, tmp_path: Path, clean: None) -> None:
    """Whatever the port raises; a file that cannot be imported is no bug in a program, and says so."""
    registry = given.load(written(tmp_path, "flat")[0])
    with recorder.aside():
        wrong = differences(registry)
        with given.planted(registry, Mutant("error", "net_torch.py", "2 * (x", new, "")) as mutated:
            assert not wrong and caught(mutated, wrong)
        no_python = Mutant("none", "net_torch.py", "2 * (x", "2 * ((x", "")
        with pytest.raises(SyntaxError), given.planted(registry, no_python):
            pass


@pytest.mark.parametrize(("wrong", "words", "outcomes"), [
    (True, [], {"failed": 1, "skipped": 5}), (True, ["-k", "mutant"], {"failed": 2}),
    (False, ["-k", "mutant"], {"failed": 1, "passed": 1})])
def test_a_wrong_port_says_nothing_of_bugs(wrong: bool, words: list[str], outcomes: dict[str, int], tmp_path: Path,
                                           tier: str) -> None:
    """No bug passes, as it fails without it too; alone the check fails, so that the run is not green."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    path, _ = written(tmp_path, "flat")
    if wrong:
        helper = path.with_name("parts_torch.py")
        helper.write_text(helper.read_text().replace("x.mean", "1.000001 * x.mean"))
    done = session(path, "--tier=smoke", "-rs", "--parity-summary=summary.md", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (failed|passed|skipped)", done.stdout.splitlines()[-1])}
    assert counts == outcomes, done.stdout
    summary = (path.parent / "summary.md").read_text()
    if wrong:
        assert "the port differs without any planted bug, so nothing can be said" in done.stdout
    if wrong and not words:
        assert re.search(r"^net +1 +0 +\d+ +– .*FAILED: net\.centred$", done.stdout, re.MULTILINE), done.stdout
        assert "| pass |" not in summary


def test_a_run_leaves_nothing_where_nobody_asked(tmp_path: Path, tier: str) -> None:
    """Neither a report in the clone that the packages are imported from, nor Hypothesis's folder."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    path, _ = written(tmp_path, "flat")
    report = REPOSITORY / "results" / "tests" / "parity.json"
    before = report.read_bytes() if report.is_file() else None, (REPOSITORY / ".hypothesis").exists()
    done = session(path, "--tier=smoke", "-k", "test_op", "-p", "no:cacheprovider", cwd=tmp_path)
    assert done.returncode == 0 and "report:" not in done.stdout, done.stdout + done.stderr
    assert (report.read_bytes() if report.is_file() else None, (REPOSITORY / ".hypothesis").exists()) == before
    left = {each.name for each in tmp_path.rglob("*") if "__pycache__" not in each.parts}
    assert left == {"parity", "registry.py", "net_tf.py", "net_torch.py", "parts_torch.py"}
    done = session(path, "--tier=smoke", "-k", "test_op", "--parity-json=asked.json")
    assert done.returncode == 0 and (path.parent / "asked.json").is_file()


def session(path: Path, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """A run of `--registry` with this tree's packages, in the registry's folder unless said otherwise."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "scae_parity", f"--registry={path}", *words],
        cwd=cwd or path.parent, capture_output=True, text=True,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(REPOSITORY), "PYTEST_ADDOPTS": ""})
