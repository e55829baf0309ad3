"""Several ranks equal one process: values, gradients, weights, checkpoints, signals, failures.

Each number of ranks is started once; everything that is compared is recorded in that one start.
"""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from parity_tests.harness import ranks, runs
from port.training import distributed, resume
from port.training import loop as train

# 1e-6 of the largest entry of the same tensor. Where the gradients of the rows (12 examples of 4 parts)
# cancel, what is left keeps the rounding of the terms: half an ulp (2^-24) of G, the largest entry of any
# gradient of the step, at each of 48 additions, whose errors walk randomly. Weights carry the difference
# of a step into all later ones, so this floor grows with the number of steps.
RELATIVE = 1e-6
CANCELLED = 48 ** 0.5 * 2.0 ** -24
# RMSProp divides the gradient by sqrt(0.9 ms + 0.1 g²), ms from ones: at most this much of it is a step.
MOVED = ranks.RATE / 0.9 ** 0.5


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, np.ndarray]]:
    return {case: ranks.record(case, distributed.World()) for case in ranks.CASES}


@pytest.fixture(scope="module", params=[2, 4])
def together(request, tmp_path_factory, tier):
    """Folder with what the ranks left."""
    if tier == "smoke" and request.param > 2:
        pytest.skip("smoke tier: two ranks")
    folder = tmp_path_factory.mktemp(f"ranks{request.param}")
    ranks.run_to(3, folder / "from_one", distributed.World())
    processes = ranks.start(request.param, ["-m", "parity_tests.harness.ranks", str(folder)],
                            cwd=ranks.REPOSITORY)
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-3000:]
    return request.param, folder


def excess(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Difference over bound of every recorded value, by name."""
    assert one.keys() == other.keys()
    found = {}
    for name, expected in one.items():
        step, kind, _ = name.split("/", 2)
        scale = float(np.abs(expected).max())
        bound = RELATIVE * scale
        if kind == "scalar":
            bound = max(bound, RELATIVE)  # entropies and accuracies: of sums whose terms reach 1
        else:
            largest = max(float(np.abs(v).max()) for n, v in one.items()
                          if n.startswith(f"{step}/gradient/"))
            bound += CANCELLED * largest * int(step) * (1.0 if kind == "gradient" else MOVED)
        found[name] = float(np.abs(other[name] - expected).max()) / bound if bound else 0.0
    return found


@pytest.mark.parametrize("case", ranks.CASES)
def test_ranks_equal_one_process(together, alone, case):
    _, folder = together
    found = excess(alone[case], dict(np.load(folder / f"{case}.npz")))
    worst = max(found, key=found.get)
    assert found[worst] <= 1.0, f"{worst}: {found[worst]:.2f} times the bound"
    assert {name.split("/")[1] for name in found} == {"scalar", "gradient", "weight"}


@pytest.mark.parametrize("case", ranks.CASES)
def test_statistics_of_each_rank_alone_would_be_noticed(together, alone, case):
    """The twin without `gather` is off by hundreds of bounds, in loss, gradients and weights."""
    _, folder = together
    found = excess(alone[case], dict(np.load(folder / f"{case}_per_rank.npz")))
    for kind in ("scalar/loss", "gradient/", "weight/"):
        assert max(v for name, v in found.items() if f"/{kind}" in name) > 100.0, kind


def test_checkpoints_go_from_one_to_many_and_back(together):
    """Three steps on one side, two on the other; the same weights as five alone, to the same bounds."""
    size, folder = together
    expected = ranks.run_to(5, None, distributed.World())
    for found in (dict(np.load(folder / "continued.npz")),
                  ranks.run_to(5, folder / "from_many", distributed.World())):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            bound = RELATIVE * np.abs(value).max() + CANCELLED * 5 * MOVED
            assert np.abs(found[name] - value).max() <= bound, name


def test_a_signal_to_one_rank_stops_all_at_the_same_step(together):
    size, folder = together
    stopped = [json.loads((folder / f"stopped-{rank}.json").read_text()) for rank in range(size)]
    assert stopped == [{"step": 2, "signum": 15}] * size
    assert [path.name for path in resume.checkpoints(folder / "stopped")] == ["step-00000002"]


def test_what_is_not_finite_on_one_rank_is_named_on_all(together):
    size, folder = together
    for rank in range(size):
        message = (folder / f"non-finite-{rank}.txt").read_text()
        assert "first non-finite tap: part_dec/pose_in (step 1)" in message, (rank, message)
    assert not resume.checkpoints(folder / "non_finite")


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="a batch of 8 cannot be split equally over 3 ranks"):
        train.train(runs.model(), runs.dataset(), runs.settings(), world=distributed.World(0, 3))


def test_one_process_communicates_nothing():
    rows = torch.arange(6.0).reshape(3, 2)
    world = distributed.World()
    assert world.share(rows).equal(rows) and world.gather(rows) is rows and world.main
    assert world.collect("x") == ["x"]


def test_training_alone_is_imported_without_compiler_and_scikit_learn() -> None:
    """They are 240 MB, for what a process without peers that fits nothing never calls."""
    code = ("import sys, pipelines.train; from port.evaluation import clustering, collected; "
            "print([name for name in ('torch._dynamo', 'sklearn', 'scipy') if name in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
