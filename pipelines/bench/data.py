"""Examples without meaning, of the size of a preset's own, for what is timed or counted."""

from __future__ import annotations

import torch

from pipelines.evaluation import constellation
from pipelines.support import settings
from port.data import dataset as data
from port.data.streams import Examples

SIDES = {"digits": 16, "usps": 16, "mnist": 28, "svhn": 32, "svhn_head": 32, "cifar10": 32, "smallnorb": 48}
N_BATCHES = 4


def dataset(preset: settings.Preset, batch_size: int, device: torch.device | str) -> Examples:
    """Random bytes, or constellations, placed and augmented in training as a preset's own are.

    Args:
        preset: says which data and which canvas.
        batch_size: of the training; there are four batches of examples, and those that the preset keeps out.
        device: where they lie.
    """
    if constellation.is_one(preset):
        options = dict(preset.sections["prepare"].get("options") or {}) | {"examples": batch_size}
        return constellation.draw(options).to(device)
    config = preset.config()
    training = preset.sections["train"]
    n = N_BATCHES * batch_size + training.get("validation_images", 0)
    side = SIDES.get(preset.prepare().source, config.canvas)
    if training.get("shift") != "crop":
        side = min(side, config.canvas)
    images = torch.randint(0, 256, (n, config.channels, side, side), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(0))
    split = data.Split(images.to(device), (torch.arange(n) % 5).to(device))
    return data.Dataset("synthetic", split, split)
