"""One graph without breaks for the training step of every family, in one process without TensorFlow."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from parity_tests.goldens import REPOSITORY

# One layer of the set transformer has what three have.
ONE = "model.n_layers=1"
LAYERED = ("cifar10", "constellation", "ocae", "digits_three_levels", "mlab")
DEFAULT = (*(f"{name}:{ONE}" for name in LAYERED), "capsnet_mnist_small", "em_mnist_small")
DEEP = (*DEFAULT, "mnist", "pcae", "capsnet_cifar10", "em_mnist", "em_smallnorb")


def printed(*arguments: str, **environment: str) -> list[dict]:
    """What the process prints, a dictionary a line."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, "-m", "parity_tests.harness.graphs", *arguments], cwd=REPOSITORY, text=True,
        env=kept | {"OMP_NUM_THREADS": "1", **environment}, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_one_graph(tier: str) -> None:
    """Of the forward pass; in the deep tier of more presets, and of the backward pass too."""
    if tier == "smoke":
        pytest.skip("smoke tier: eager only")
    deep = tier == "deep"
    for found in printed(*(["--backward", *DEEP] if deep else DEFAULT)):
        assert (found["graphs"], found["backward"], found["breaks"]) == (1, int(deep), []), found


@pytest.mark.slow
def test_a_break_is_counted(tier: str) -> None:
    if tier != "deep":
        pytest.skip("deep tier")
    (found,) = printed("--planted", f"ocae:{ONE}")
    assert found["graphs"] > 1 and found["breaks"]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_compiled_is_eager(kernels: str, tier: str) -> None:
    """The routing ancestors in float64, forward and backward, with the kernels of the CPU and without.

    The same operations in the same order but for decompositions, which round the last bits anew: 2⁻⁵² each,
    a few thousand in a row at most.
    """
    if tier != "deep":
        pytest.skip("deep tier")
    for found in printed("--compare", "capsnet_mnist_small", "em_mnist_small", SCAE_KERNELS=kernels):
        assert found["difference"] < 5000 * 2.0**-52, found
