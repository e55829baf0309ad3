"""Every planted porting bug is caught by a registry-driven check that was not written for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parity_tests import registry
from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError
from parity_tests.harness.reference_values import keeping
from parity_tests.mutants.collection import MUTANTS
from parity_tests.mutants.planting import KERNELS, REPOSITORY, Mutant, catch, check_row, planted

ON_DISK = "grid-float64"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The planted bugs that `--mutants` chooses: a fixed third is every third of the list."""
    if "mutant" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--mutants")
        mutants = [mutant for i, mutant in enumerate(MUTANTS) if chosen == "all"
                   or chosen == "third" and i % 3 == 0 or chosen == "rest" and i % 3]
        metafunc.parametrize("mutant", mutants, ids=[mutant.id for mutant in mutants])


def test_enough_mutants() -> None:
    """At least forty, each named once."""
    assert len(MUTANTS) >= 40
    assert len({mutant.id for mutant in MUTANTS}) == len(MUTANTS)


def test_mutant_is_caught(mutant: Mutant) -> None:
    """Some row, drawn model or recording says no."""
    if mutant.room in KERNELS and importlib.util.find_spec("numba") is None:
        pytest.skip("the kernel needs Numba, which is not installed")
    caught = catch(mutant)
    assert caught is not None, f"{mutant.id} survives: {mutant.what}, in {mutant.file}"


@pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")
@pytest.mark.parametrize("kernel", ["scae.pixel_forward", "em.kernel"])
def test_sound_kernel_as_python(kernel: str) -> None:
    """What catches the kernels' mutants passes the kernels themselves, interpreted in the same way."""
    first = "from __future__ import annotations"
    with planted(Mutant("sound", f"port/{kernel.replace('.', '/')}.py", first, first, "nothing")), recorder.aside():
        for row in [row for row in (*registry.rows().values(), *registry.fast_rows())
                    if kernel in row.judges]:
            check_row(row, examples=2)


@pytest.mark.parametrize("file", ["port/core/layers.py", "reference/core/layers.py"])
def test_sound_package_passes(file: str) -> None:
    """A package that was only imported again passes, so what catches a mutant is its bug."""
    first = "from __future__ import annotations"
    assert catch(Mutant("sound", file, first, first, "nothing"), examples=2, models=1) is None


@pytest.mark.parametrize("file", ["port/core/mixture.py", "reference/core/mixture.py"])
def test_kept_values_hide_nothing(file: str) -> None:
    """With the reference's values kept from a sound run, a bug planted afterwards on either side shows."""
    row = registry.rows()["core.mixture.mixture_log_prob"]
    text = (REPOSITORY / file).read_text()
    name = "def mixture_log_prob("
    bug = Mutant("late", file, name, f"def mixture_log_prob(*args, **kwargs):\n"
                 f"    return _sound(*args, **kwargs) * (1 + 1e-9)\n\n\n"
                 f"{name.replace('mixture_log_prob', '_sound')}", "a result off by 1e-9")
    assert text.count(name) == 1
    with keeping(), recorder.aside():
        check_row(row, examples=3)
        with planted(bug), pytest.raises(ParityError):
            check_row(row, examples=3)
        check_row(row, examples=3)


def test_same_on_disk(tmp_path: Path) -> None:
    """The same patch written into the file fails pytest by the check that caught it in memory."""
    mutant = next(mutant for mutant in MUTANTS if mutant.id == ON_DISK)
    caught = catch(mutant)
    copy = tmp_path / "tree"
    shutil.copytree(REPOSITORY, copy, ignore=shutil.ignore_patterns(
        ".*", "results", "data", "runs", "__pycache__", "fixtures", "*.egg-info"))
    (copy / mutant.file).write_text(mutant.source())
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--tier=smoke", "-x", "-p", "no:cacheprovider", "-p", "no:xdist",
         f"parity_tests/tests/ops/test_ops.py::test_op[{caught.by}]", "--parity-json", str(tmp_path / "p.json")],
        cwd=copy, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env={**{k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
             "PYTHONPATH": str(copy)})
    assert run.returncode == 1, run.stdout[-2000:] + run.stderr[-2000:]
    assert f"FAILED parity_tests/tests/ops/test_ops.py::test_op[{caught.by}]" in run.stdout
