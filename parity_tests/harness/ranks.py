"""Short training runs on several processes: what each rank starts, and what the tests compare.

    python -m parity_tests.harness.ranks FOLDER

runs every case on the ranks that the environment names (as torchrun sets it) and leaves what they saw
in FOLDER.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity_tests.harness import runs
from port.training import distributed, resume
from port.training import loop as train

REPOSITORY = Path(__file__).parents[2]

# Stored in the order of their classes and not shuffled, so every rank sees other classes.
CLASSES = [i * 10 // 48 for i in range(48)]
SPARSE = {"posterior_within_example_sparsity_weight": 3.0,
          "posterior_between_example_sparsity_weight": 2.0,
          "prior_between_example_sparsity_weight": 1.5}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "l2_entropy": (SPARSE, {}),
    "entropy_kl_decay": (SPARSE | {"prior_sparsity_loss_type": "entropy", "weight_decay": 1e-3,
                                   "posterior_sparsity_loss_type": "kl"}, {}),
    "kl_l2_clipped": (SPARSE | {"prior_sparsity_loss_type": "kl",
                                "posterior_sparsity_loss_type": "l2"},
                      # By the norm: by value would cut large entries and keep their rounding.
                      {"grad_norm_clip": 1e-2, "lr_schedule": "exponential", "lr_decay": 0.5,
                       "lr_decay_steps": 3}),
}
STEPS, RATE = 5, 1e-3


def record(case: str, world: distributed.World) -> dict[str, np.ndarray]:
    """Scalars, gradients and weights after each step of a case."""
    keys, changed = CASES[case.removesuffix("_per_rank")]
    made = runs.model(**keys)
    wanted = runs.settings(batch_size=12, steps=STEPS, lr=RATE, log_every=1, shuffle=False, **changed)
    found: dict[str, np.ndarray] = {}

    def on_step(step: int) -> None:
        for name, parameter in made.named_parameters():
            if parameter.grad is not None:
                found[f"{step}/gradient/{name}"] = parameter.grad.numpy().copy()
            found[f"{step}/weight/{name}"] = parameter.detach().numpy().copy()

    def on_row(row: dict[str, float]) -> None:
        for name, value in row.items():
            if name not in ("step", "seconds"):
                found[f"{row['step']}/scalar/{name}"] = np.float64(value)
    if case.endswith("_per_rank"):  # the twin: statistics over each rank's share alone
        world.gather = lambda rows: rows
    train.train(made, runs.dataset(classes=CLASSES), wanted, on_step=on_step, on_row=on_row,
                world=world)
    return found


def start(size: int, arguments: list[str], **options: Any) -> list[subprocess.Popen]:
    """Start `python ARGUMENTS` on so many ranks of this machine, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"} | {
        "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo"}
    return [subprocess.Popen([sys.executable, *arguments], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE,
                             env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
            for rank in range(size)]


def run_to(steps: int, folder: Path | None, world: distributed.World,
           **callbacks: Any) -> dict[str, np.ndarray]:
    """Train or continue to so many steps; the weights and slots."""
    made = runs.model(**SPARSE)
    trained = train.train(made, runs.dataset(classes=CLASSES),
                          runs.settings(batch_size=12, steps=steps, lr=RATE), folder, world=world,
                          **callbacks)
    return {name: value.detach().numpy() for name, value in runs.left(made, trained).items()}


def stop_one(folder: Path, world: distributed.World) -> None:
    """The last rank is told to stop at step 2."""
    def on_step(step: int) -> None:
        if step == 2 and world.rank == world.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)
    try:
        run_to(50, folder / "stopped", world, on_step=on_step)
    except train.Interrupted as error:
        (folder / f"stopped-{world.rank}.json").write_text(
            json.dumps({"step": error.step, "signum": error.signum}))


def break_one(folder: Path, world: distributed.World) -> None:
    """The last rank's parts have a pose of 0 / 0."""
    made = runs.model()
    if world.rank == world.size - 1:
        made.part_encoder.register_forward_hook(
            lambda module, given, parts: parts._replace(pose=0 * parts.pose / 0))
    try:
        train.train(made, runs.dataset(), runs.settings(), folder / "non_finite", world=world)
    except resume.NonFiniteLoss as error:
        (folder / f"non-finite-{world.rank}.txt").write_text(str(error))


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    world, _ = distributed.join(torch.device("cpu"))
    for case in (name + twin for name in CASES for twin in ("", "_per_rank")):
        found = record(case, distributed.World(world.rank, world.size))
        if world.main:
            np.savez(folder / f"{case}.npz", **found)
    continued = run_to(5, folder / "from_one", world)
    run_to(3, folder / "from_many", world)
    if world.main:
        np.savez(folder / "continued.npz", **continued)
    stop_one(folder, world)
    break_one(folder, world)
    distributed.leave(world)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
