"""Small training runs that the tests of the training loop share.

    python -m parity_tests.harness.runs FOLDER [die_in_save]

trains with checkpoints in FOLDER and prints each step, slowly, so that somebody can stop it; with
`die_in_save` it kills itself in the middle of its second checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

import port
from port.data import dataset as data
from port.training import loop as train
from port.training import resume

# Every loss term on; the between-example terms are those that look at the whole batch.
TINY = {"canvas_size": 14, "n_channels": 1, "output_channels": [4, 4], "strides": [2, 2],
        "n_part_caps": 4, "n_part_special_features": 4, "n_obj_caps": 5, "n_obj_caps_params": 6,
        "n_output_dims": 12, "n_dims": 8, "n_hiddens": 8, "template_size": 5,
        "colorize_templates": True, "use_alpha_channel": True, "template_nonlin": "sigmoid",
        "color_nonlin": "sigmoid", "prior_within_example_sparsity_weight": 2.0,
        "prior_between_example_sparsity_weight": 0.35,
        "posterior_within_example_sparsity_weight": 0.7,
        "posterior_between_example_sparsity_weight": 0.2}
SETTINGS = {"batch_size": 8, "lr": 1e-3, "steps": 12, "log_every": 4, "checkpoint_every": 5,
            "seed": 3}


def model(seed: int = 1, **changed: Any) -> port.ImageAutoencoder:
    """A model of 5,000 weights or so."""
    return port.ImageAutoencoder(port.config.from_flat(TINY | changed), seed=seed)


def dataset(n: int = 40, classes: list[int] | None = None) -> data.Dataset:
    """Random squares on black, whose size is their class; `classes` gives their order."""
    generator = torch.Generator().manual_seed(7)
    labels = torch.tensor(classes) if classes else torch.randint(0, 10, (n,), generator=generator)
    images = torch.zeros(len(labels), 1, 12, 12, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist()):
        side = 2 + label
        corner = torch.randint(0, 12 - side + 1, (2,), generator=generator).tolist()
        patch = torch.randint(60, 256, (side, side), generator=generator)
        image[0, corner[0]:corner[0] + side, corner[1]:corner[1] + side] = patch.to(torch.uint8)
    split = data.Split(images, labels)
    return data.Dataset("squares", split, split, 10)


def settings(**changed: Any) -> train.Settings:
    return train.Settings(**SETTINGS | changed)


def run(folder: Path | None = None, on_step: Any = None, model_keys: dict | None = None,
        **changed: Any) -> tuple[dict[str, torch.Tensor], train.Trained]:
    """Train a new model; every tensor it leaves, weights and slots by name."""
    made = model(**model_keys or {})
    trained = train.train(made, dataset(), settings(**changed), folder, on_step)
    return left(made, trained), trained


def left(made: torch.nn.Module, trained: train.Trained) -> dict[str, torch.Tensor]:
    """Weights and slots after a run."""
    return dict(made.state_dict()) | resume.read_slots(made, trained.optimizer)


def rows(trained: train.Trained) -> list[dict[str, float]]:
    """The history without times."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in trained.history]


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that are not equal bit by bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def main(folder: str, fate: str = "") -> None:
    torch.set_num_threads(1)
    if fate == "die_in_save":
        write, written = resume.write_tensors, []

        def write_and_die(where: Path, stem: str, tensors: dict[str, torch.Tensor]) -> None:
            written.append(stem)
            if written.count("optimizer") == 2:
                write(where, stem, dict(list(tensors.items())[:3]))
                os.kill(os.getpid(), signal.SIGKILL)
            write(where, stem, tensors)
        resume.write_tensors = write_and_die

    def on_step(step: int) -> None:
        print(step, flush=True)
        time.sleep(0.05)
    try:
        run(Path(folder), on_step)
    except train.Interrupted as error:
        print("stopped", error.step, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
