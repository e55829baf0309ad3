"""Stage `capsnet_dimensions`: what each number of a class capsule draws.

    python -m pipelines.capsnet_dimensions --preset capsnet_mnist_small --seed 0

Takes, for each class, the first test image that the trained model gets right, changes one number of its
class capsule at a time from -l·δ to +l·δ, and decodes: one picture a class, a row a number, the unchanged
reconstruction in the middle column. Leaves results/capsnet_dimensions/<preset>/<seed>/ with
pictures/class_<number>.png, metrics.json (how much the image changes for each number) and config.json.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipelines.evaluation import classes as classify
from pipelines.prepare import dataset_for
from pipelines.support import environment, pictures, sections, settings
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.data import dataset
from port.evaluation import classes as evaluate_classes
from port.evaluation import looks


def run(preset: settings.Preset, seed: int, wanted: sections.CapsnetDimensions,
        results: str | os.PathLike = settings.RESULTS, device: str | None = None) -> Path:
    """Write the pictures.

    Raises:
        BadInput: no trained model, or one without a decoder.
    """
    model = decoding_model(preset, seed, results, device)
    place = next(model.parameters()).device
    test = dataset_for(preset, results).test.to(place)
    folder = settings.folder_of("capsnet_dimensions", preset.name, seed, results)
    shutil.rmtree(folder / "pictures", ignore_errors=True)
    (folder / "pictures").mkdir(parents=True)
    evaluated, changes, missing = preset.evaluate(), {}, []
    shift = looks.still(preset.train(seed)[0].shift)
    seen = evaluate_classes.collect(model, test, evaluated.batch_size, shift)
    for label in range(model.config.n_classes):
        right = np.flatnonzero(seen.correct & (seen.labels == label))
        if not len(right):
            missing.append(label)
            continue
        image = dataset.arrange(test.images[right[:1]], model.config.canvas, shift, None)
        drawn = perturbed(model, image, label, wanted.delta, wanted.steps)
        pictures.save_png(folder / "pictures" / f"class_{label}.png", pictures.grid(
            [classify.shown(row) for row in drawn.cpu().numpy()]))
        middle = drawn[:, wanted.steps:wanted.steps + 1]
        changes[label] = (drawn - middle).square().flatten(2).sum(2).mean(1).tolist()
    metrics = {"preset": preset.name, "seed": seed, "never_right": missing,
               "mean_squared_change": {str(label): row for label, row in changes.items()}}
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "config.json", {"preset": preset.name, "capsnet_dimensions": asdict(wanted)})
    return folder


def decoding_model(preset: settings.Preset, seed: int, results: str | os.PathLike,
                   device: str | None = None) -> torch.nn.Module:
    """The trained CapsNet of a preset.

    Raises:
        BadInput: another model, none that is trained, or one without a decoder.
    """
    if preset.config().kind != "capsnet":
        raise BadInput(f"preset {preset.name} is no CapsNet, whose class capsules draw images; "
                       "take capsnet_mnist or capsnet_mnist_small")
    model = settings.load_model(settings.folder_of("train", preset.name, seed, results) / "model")
    if model.decoder is None:
        raise BadInput(f"preset {preset.name}: its network has no decoder; set model.decoder")
    return model.to(environment.choose_device(device or preset.evaluate().device))


@torch.no_grad()
def perturbed(model: torch.nn.Module, image: Tensor, label: int, delta: float, steps: int) -> Tensor:
    """Decoded images with one number of a class capsule changed at a time.

    v[d] + k·δ for k = -l, …, l.

    Args:
        model: a CapsNet with a decoder.
        image: `[1, C, S, S]`.
        label: whose capsule is changed.
        delta: δ.
        steps: l.

    Returns:
        `[atoms, 2·l + 1, C, S, S]`; the middle column is unchanged.

    Source: CapsNet paper, section 5.1 (0.05, -0.25 to 0.25).
    """
    capsules = model.encode(image)
    atoms, columns = capsules.shape[2], 2 * steps + 1
    offsets = delta * torch.arange(-steps, steps + 1, dtype=capsules.dtype, device=capsules.device)
    changed = capsules.expand(atoms * columns, -1, -1).clone().unflatten(0, (atoms, columns))
    numbers = torch.arange(atoms, device=capsules.device)
    changed[numbers, :, label, numbers] += offsets
    keep = torch.full((atoms * columns,), label, device=capsules.device)
    return model.decode(changed.flatten(0, 1), keep).unflatten(0, (atoms, columns))


def command(preset: Preset = "digits", seed: Seed = 0, overrides: Set = None, device: Device = None,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """What each number of a class capsule draws."""
    chosen = settings.load_preset(preset, overrides, params)
    wanted = sections.section(sections.CapsnetDimensions, "capsnet_dimensions", params)
    print(f"capsnet_dimensions: pictures in {run(chosen, seed, wanted, results, device)}")


main = Program("python -m pipelines.capsnet_dimensions", command)


if __name__ == "__main__":
    raise SystemExit(main())
