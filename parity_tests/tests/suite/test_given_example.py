"""The committed example of a pair from outside the packages, and how its registry file is read."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from parity_tests import given, goldens
from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError
from parity_tests.harness.sides import Lib, ProgramError
from parity_tests.harness.strategies import Case
from parity_tests.harness.verify import verify
from parity_tests.mutants.planting import Mutant
from parity_tests.registry import OpCase
from parity_tests.tests.suite.test_given import EXAMPLE, caught


def test_the_example_is_short_and_agrees_with_its_page() -> None:
    """At most 80 lines for both sides together; the page shows the command and the files."""
    page = (goldens.REPOSITORY / "docs" / "port_your_own_model.md").read_text()
    sides = ("gated_tf.py", "gated_torch.py")
    assert sum(len((EXAMPLE.parent / side).read_text().splitlines()) for side in sides) <= 80
    assert all(side in page for side in sides)
    assert f"pytest --registry={EXAMPLE.relative_to(goldens.REPOSITORY)}" in page


def test_an_altered_recording_is_named(tmp_path: Path) -> None:
    """A copy of the example, one recorded number moved."""
    registry = copied(tmp_path)
    path = tmp_path / "recording.npz"
    arrays = dict(np.load(path))
    arrays["grad/var/block/gate/bias"][0] += 1e-9
    np.savez(path, **arrays)
    with pytest.raises(ParityError, match="grad/var/block/gate/bias"):
        given.verify_recording(registry, registry.recordings[0], "port")


@pytest.mark.parametrize(("old", "new", "found"), [
    ("value * torch.sigmoid(gate)", "value * torch.sigmoid(-gate)", True), ("1e-30", "1e-31", False)])
def test_drawn_examples_judge_mutants(tmp_path: Path, old: str, new: str, found: bool,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    """Without recordings and special cases a bug is caught by what is drawn; what is no bug survives."""
    for side in ("gated_tf", "gated_torch"):  # of the example itself, or of another copy
        monkeypatch.delitem(sys.modules, side, raising=False)
    registry = copied(tmp_path)
    rows = {op: replace(row, special=()) for op, row in registry.rows.items()}
    with given.planted(registry, Mutant("bug", "gated_torch.py", old, new, "")), recorder.aside():
        assert caught(replace(registry, rows=rows, recordings=())) is found


def copied(folder: Path) -> given.Registry:
    for path in EXAMPLE.parent.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return given.load(folder / "registry.py")


@pytest.mark.parametrize(("change", "says"), [
    (lambda path: path.unlink(), "no such file; name a Python file with ROWS"),
    (lambda path: path.write_text("ROWS = ()\n"), "defines no ROWS"),
    (lambda path: path.with_name("recording.npz").unlink(), "RECORDINGS name recording.npz, which is not"),
    (lambda path: path.write_text(path.read_text() + """
import dataclasses
RECORDINGS = [dataclasses.replace(RECORDINGS[0], op="gated.none")]
"""), "is of gated.none, which has no row")])
def test_a_bad_registry_is_said(tmp_path: Path, change, says: str) -> None:
    copied(tmp_path)
    change(tmp_path / "registry.py")
    with pytest.raises((FileNotFoundError, AttributeError, ValueError), match=says):
        given.load(tmp_path / "registry.py")


@pytest.mark.parametrize(("words", "says"), [
    ([], "usage: python -m parity_tests.given PATH"), (["--all"], "usage: python -m parity_tests.given PATH"),
    (["nowhere.py"], "nowhere.py: no such file; name a")])
def test_recording_without_a_registry(words: list[str], says: str, monkeypatch: pytest.MonkeyPatch,
                                      capsys: pytest.CaptureFixture) -> None:
    """One line and exit code 2."""
    monkeypatch.setattr(sys, "argv", ["given", *words])
    assert given.main() == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_registry_without_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       capsys: pytest.CaptureFixture) -> None:
    """There is nothing to write: one line and exit code 2, and no recording is touched."""
    registry = copied(tmp_path)
    registry.path.write_text(registry.path.read_text() + "RECORDINGS = ()\n")
    before = (tmp_path / "recording.npz").read_bytes()
    monkeypatch.setattr(sys, "argv", ["given", str(registry.path)])
    assert given.main() == 2
    said = capsys.readouterr()
    assert not said.out and said.err == f"error: no RECORDINGS in {registry.path}: there is nothing to write\n"
    assert (tmp_path / "recording.npz").read_bytes() == before


class Bare:
    """A module of the original that does not say its variables."""

    def __init__(self, scope: str, features: int, rng: object = None, dtype: object = None) -> None:
        self.features = features


class Plain(Bare):
    """Without `rng` and `dtype`."""

    def __init__(self, scope: str, features: int) -> None:
        super().__init__(scope, features)


@pytest.mark.parametrize(("side", "cls", "says"), [
    ("reference", Bare, r"Bare, which .* on the reference side, lacks `variables_by_name` \(.*tf.Variable"
     r"\) and `load_variables` \(.*\); derive it from reference.core.module.NamedModule"),
    ("port", Bare, r"Bare does not take \(\d, rng=\), with which PAIR.build makes it: missing a required argument"),
    ("reference", Plain, r"Plain does not take \('block', \d, rng=, dtype=\), with which PAIR.build makes it: "),
    ("reference", None, r"gated_tf has no GatedAttention, which PAIR.build makes on the reference side"),
    ("port", lambda features, rng: object(), r"object, which the recipe builds on the port side, lacks "
     r"`named_parameters` \(of torch.nn.Module\); derive it from torch.nn.Module")])
def test_what_a_module_lacks_is_said(side: str, cls: object, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, which names it, in the place of an error from inside the harness."""
    row = given.load(EXAMPLE).rows["gated.GatedAttention"]
    monkeypatch.setattr(given.Pair("gated_tf", "gated_torch").of(Lib(side, "float32")), "GatedAttention", cls)
    with pytest.raises(ProgramError, match=says) as error, recorder.aside():
        verify(row, first_case(row), "")
    assert "\n" not in str(error.value)


def first_case(row: OpCase) -> Case:
    return Case(given.example(row, {"features": 4}), {"features": 4})


@pytest.mark.parametrize("initial", [True, False])
def test_initial_weights_may_differ_where_the_row_says_so(initial: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that draws its own; all else is compared as ever, the names of the variables too."""
    row = replace(given.load(EXAMPLE).rows["gated.GatedAttention"], initial=initial)
    port = given.Pair("gated_tf", "gated_torch").port_module()
    sound = port.GatedAttention
    monkeypatch.setattr(port, "GatedAttention", lambda features, rng: sound(features, np.random.default_rng(5)))
    case = first_case(row)
    with recorder.aside():
        if initial:
            with pytest.raises(ParityError, match="tap initial block/"):
                verify(row, case, "")
        else:
            verify(row, case, "")
            monkeypatch.setattr(port, "MAPPING", (port.Row("block/qkv/other", "qkv.weight", "transpose"),
                                                  *port.MAPPING[1:]))
            with pytest.raises(ParityError, match="tap initial weights.*\n.*block/qkv/other"):
                verify(row, case, "")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_no_file(word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "argv", ["given", word])
    assert given.main() == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: python -m parity_tests.given PATH") and not said.err


def test_the_command(tmp_path: Path, tier: str) -> None:
    """`pytest --registry=PATH` runs that file's checks alone."""
    if tier == "smoke":
        pytest.skip("smoke tier: no processes")
    copied(tmp_path)
    words = [f"--registry={tmp_path / 'registry.py'}", "--tier=smoke", "--collect-only", "-q"]
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=goldens.REPOSITORY,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_op[gated.GatedAttention]" in done.stdout and "test_ops.py" not in done.stdout
    (tmp_path / "registry.py").unlink()
    done = subprocess.run([sys.executable, "-m", "pytest", *words], cwd=goldens.REPOSITORY,
                          capture_output=True, text=True)
    assert done.returncode == 4 and "Traceback" not in done.stdout + done.stderr
    assert f"ERROR: {words[0].replace('=', ' ')}: no such file; name a Python file" in done.stderr
