"""Small runs by the options of the ML@B port: the words of their commands, and the folders they leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parity_tests.goldens import REPOSITORY
from pipelines import cli

CHANGED = ("model.output_channels=[3,3]", "model.strides=[2,2]", "model.n_output_dims=6",
           "model.n_hiddens=5", "model.n_dims=4", "model.n_layers=1", "model.template_size=4",
           "model.n_obj_caps=3", "model.n_obj_caps_params=4", "train.threads=1", "train.steps=3")
OF_OBJECTS = ("n_output_dims", "n_hiddens", "n_dims", "n_layers", "n_obj_caps", "n_obj_caps_params")
EPOCHS = "train.epochs=null"  # the steps count


def small(*more: str) -> list[str]:
    """What makes a run small."""
    words = ["--dataset", "digits", "--params", str(REPOSITORY / "params.yaml"), "--device", "cpu"]
    return words + [word for change in (*CHANGED, *more) for word in ("--set", change)]


def without_objects(words: list[str]) -> list[str]:
    """The same for part capsules alone."""
    own = tuple(f"model.{key}=" for key in OF_OBJECTS)
    return [word for name, value in zip(words[::2], words[1::2], strict=True)
            if not value.startswith(own) for word in (name, value)]


SMALL = small(EPOCHS)
EPOCHED = [word for name, value in zip(small()[::2], small()[1::2], strict=True)
           if not value.startswith("train.steps") for word in (name, value)]


def base(*options: str) -> list[str]:
    """Few capsules at small rates: theirs blow a model of this size up (RAdam begins with plain steps)."""
    model = options[options.index("--model") + 1] if "--model" in options else "scae"
    rates = [*["--pcae-lr", "1e-6"] * (model != "ocae"), *["--ocae-lr", "2e-6"] * (model != "pcae")]
    return ["-n", "600", "--pcae-num-caps", "3", "--pcae-feat-dim", "2", *rates]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Of a run."""
    return load_file(folder / "model/model.safetensors")


def trained(new_folder: Callable[[], Path]) -> Callable[..., Path]:
    """A function that trains with options, in folders of its own, and knows runs by their options."""
    known: dict[tuple[str, ...], Path] = {}

    def train(*options: str) -> Path:
        if options not in known:
            place = new_folder()
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(place)
                words = EPOCHED if "-N" in options else SMALL
                words = without_objects(words) if "pcae" in options else words
                assert cli.main(["train", *words, *base(*options), *options]) == 0
            known[options] = place / "runs/mlab/1"
        return known[options] / "train/mlab/0"
    return train
