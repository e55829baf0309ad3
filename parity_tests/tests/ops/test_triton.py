"""The kernel for a GPU under the checks of the other fast paths, by Triton's interpreter.

Its rows, special cases and bounds are those of `registry_fast`; `triton_side` runs the port. What the
interpreter cannot show (the compiled exponentials, products of tensor cores) waits for a GPU; that the
kernels compile for one is checked by `python -m pipelines.bench.triton`.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import hypothesis
import pytest
import torch

from parity_tests import goldens, registry
from parity_tests.goldens.verify_models import variables_of
from parity_tests.harness import recorder
from parity_tests.harness.strategies import Case, cases
from parity_tests.harness.triton_side import TritonSide
from parity_tests.harness.verify import verify
from parity_tests.mutants.planting import Mutant
from parity_tests.mutants.scae.pixel_kernel_triton import MUTANTS
from parity_tests.registry import OpCase
from parity_tests.tests.ops.test_fast_paths import RUNS
from pipelines.bench import triton as triton_offline
from port.core import backends
from port.scae import pixel_launch, pixel_likelihood


def _installed() -> bool:
    """The tests' own process hides Triton from importlib."""
    try:
        importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _installed(), reason="Triton is not installed")
ROWS = [row for row in registry.fast_rows() if "scae.pixel_forward" in row.judges]
SPECIAL = [(row, name, case) for row in ROWS for name, case in row.special]
EXAMPLES = {"smoke": 1, "default": 2, "deep": 60}
WHY = "the same row by the interpreter: parity_tests/tests/ops/test_triton.py"


@pytest.fixture(scope="module")
def side() -> Iterator[TritonSide]:
    """One process for all tests of this file."""
    with TritonSide() as process:
        yield process


@pytest.mark.parametrize(("row", "name", "case"), SPECIAL,
                         ids=[f"{row.op}-{name}" for row, name, _ in SPECIAL])
def test_special(row: OpCase, name: str, case: Case, side: TritonSide) -> None:
    """Ties, footprints off the canvas, singular poses, absent parts, logits far apart; both dtypes."""
    with side.as_port(), recorder.aside():
        verify(row, case, WHY, strict=True)


@pytest.mark.parametrize("row", ROWS, ids=[row.op for row in ROWS])
def test_op(row: OpCase, side: TritonSide, tier: str) -> None:
    """Random examples."""
    @hypothesis.settings(max_examples=EXAMPLES[tier])
    @hypothesis.given(cases(row.draw))
    def parity(case: Case) -> None:
        verify(row, case, WHY)

    with side.as_port(), recorder.aside():
        parity()


@pytest.mark.golden
def test_recording(side: TritonSide, tier: str) -> None:
    """Loss, scalars and gradients of a committed recording, as `test_fast_paths.test_recording`."""
    runs = [run for run in RUNS if run[0].folder.is_relative_to(goldens.HERE) and run[1] == "noise"]
    for run in runs if tier == "deep" else runs[:2]:
        side.ask("recording", variables_of(run[0]), run, "default")


@pytest.mark.parametrize("name", ["described", "one graph"])
def test_whole_model(name: str, side: TritonSide) -> None:
    """The path that is printed; torch.compile takes the model with the kernel as one graph."""
    side.ask("checks", name)


GPU = torch.device("cuda")
SIZES = pixel_likelihood.Sizes(3, 1, (5, 5), (9, 9), True, torch.float32)


@pytest.mark.parametrize(("installed", "changed", "reason"), [
    (False, {}, "Triton is not installed"),
    (True, {"template": (17, 5)}, "templates of more than 16 pixels a side"),
    (True, {"channels": 4}, "more than 3 channels"),
    (True, {"dtype": torch.bfloat16}, "in bfloat16"),
    (True, {}, "Triton fails: "),
])
def test_reasons_for_the_plain_path(installed: bool, changed: dict, reason: str,
                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Said, and found once; on a GPU that is not there the launch fails."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(backends, "TRITON_INSTALLED", installed)
    monkeypatch.setattr(pixel_launch, "tried", {})
    sizes = SIZES._replace(**changed)
    assert pixel_likelihood.reason_against(GPU, True, True, sizes).startswith(reason)
    assert len(pixel_launch.tried) == installed
    monkeypatch.setenv("SCAE_KERNELS", "off")
    assert pixel_likelihood.reason_against(GPU, True, True, sizes) == "SCAE_KERNELS=off"


def test_a_lack_of_memory_is_no_reason_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain path would need more of it; the next trial may find room."""
    def full(*given: torch.Tensor) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(pixel_launch, "tried", {})
    monkeypatch.setattr(pixel_launch, "forward", full)
    on_cpu = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *shape, device, **more: on_cpu(*shape, **more))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        pixel_launch.trial(SIZES, GPU)
    assert not pixel_launch.tried


def test_compiles_for_a_gpu(tier: str, tmp_path: Path) -> None:
    """The compiler takes both kernels at a preset's real size; nothing of float32 is spilled to memory."""
    if tier == "smoke":
        pytest.skip("smoke tier: by the interpreter alone")
    few = ["--presets", "mnist", "--dtypes", "float32"] if tier == "default" else []
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-m", "pipelines.bench.triton", *few, "--json",
                           str(tmp_path / "found.json")], cwd=goldens.REPOSITORY, capture_output=True,
                          text=True, env=environment | {"TRITON_CACHE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert len(rows) == (2 if few else 12)
    assert all(row["spilled"] == 0 for row in rows if row["dtype"] == "float32"), rows


def test_offline_refuses(capsys: pytest.CaptureFixture) -> None:
    """A preset without such a decoder: one line."""
    with mock.patch.object(triton_offline.programs, "triton", object()):
        assert triton_offline.main(["--presets", "mnist_coupled"]) == 2
    error = capsys.readouterr().err
    assert "mnist_coupled: no template decoder with an alpha channel" in error
    assert len(error.strip().splitlines()) == 1


def test_bytes_are_those_of_the_arrays() -> None:
    """What the operator takes and returns, and the gradients, each once; sums read what they add."""
    sizes = pixel_likelihood.Sizes(3, 2, (4, 5), (6, 7), True, torch.float64)
    target, templates, alpha = torch.empty(2, 2, 6, 7), torch.empty(2, 3, 2, 4, 5), torch.empty(3, 4, 5)
    per_part = torch.empty(2, 3, 7)
    sums = pixel_likelihood.outputs_like(target)
    given = [target, templates, alpha, per_part]
    grads = [templates, alpha.expand(2, -1, -1, -1), per_part]
    moved = triton_offline.moved_bytes(sizes, 2)
    assert moved["forward"] == 8 * sum(t.numel() for t in (*given, *sums))
    assert moved["backward"] == 8 * sum(t.numel() for t in (*given, *sums[1:], target, *grads, grads[1]))


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.id for mutant in MUTANTS])
def test_mutant_is_caught(mutant: Mutant, side: TritonSide, tier: str) -> None:
    """A special case says no."""
    if tier == "smoke":
        pytest.skip("smoke tier: no mutants")
    # An odd seed leaves float32 out: only overflow needs it.
    attempts = [(row, replace(case, seed=seed)) for seed in (1, 0) for row, _, case in reversed(SPECIAL)]
    with side.as_port(), side.planted(mutant.source()), recorder.aside():
        for row, case in attempts:
            try:
                verify(row, case, WHY, strict=True)
            except Exception:  # whatever it is, the mutant did not pass
                return
    pytest.fail(f"{mutant.id} survives: {mutant.what}, in {mutant.file}")
