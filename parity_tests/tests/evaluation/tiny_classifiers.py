"""CapsNet and matrix capsules cut small, as presets on scikit-learn's digits."""

from __future__ import annotations

import torch

import port
from parity_tests import goldens
from pipelines.support import settings
from port.data import dataset as data

PARAMS = goldens.REPOSITORY / "params.yaml"
DIGITS = ["prepare.source=digits", "prepare.options={enlarge: 16, test_share: 0.25, split_seed: 0}",
          "train.batch_size=8", "train.steps=6", "train.log_every=3", "train.held_out_every=3",
          "train.held_out_images=40", "train.checkpoint_every=2", "train.checkpoint_seconds=0",
          "evaluate.require_learning=false",
          "evaluate.bootstrap_draws=50", "evaluate.n_pictures=4", "train.device=cpu", "train.threads=1",
          "evaluate.device=cpu", "evaluate.threads=1"]
TINY = {
    "capsnet_mnist": [*DIGITS, "model.canvas=16", "model.kernel=5", "model.conv1_channels=4",
                      "model.primary_types=2", "model.primary_atoms=3", "model.class_atoms=4",
                      "model.decoder=[6]"],
    "em_mnist": [*DIGITS, "model.canvas=18", "model.channels=4", "model.types=[2, 3, 3]"]}


def preset(name: str, *more: str) -> settings.Preset:
    return settings.load_preset(name, [*TINY[name], *more], PARAMS)


def generated() -> data.Dataset:
    images = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    split = data.Split(images, torch.arange(24) % 10)
    return data.Dataset("generated", split, split)


def tiny_model(name: str) -> torch.nn.Module:
    return port.build(preset(name).config(), 0)
