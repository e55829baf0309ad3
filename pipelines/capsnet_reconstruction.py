"""Stage `capsnet_reconstruction`: a decoder trained with its capsules beside one on a frozen encoder.

    python -m pipelines.capsnet_reconstruction --preset capsnet_mnist_small \\
        --frozen capsnet_mnist_small_frozen --seed 0

Both models decode the longest capsule of the same test images. Leaves
results/capsnet_reconstruction/<preset>/<seed>/ with reconstructions.png (images, joint, frozen),
metrics.json (accuracy and Σ (x - r)² of each, with a mean grey image as the measure) and config.json.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from pipelines.capsnet_dimensions import decoding_model
from pipelines.evaluation import classes as classify
from pipelines.prepare import dataset_for
from pipelines.support import pictures, sections, settings
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.data import dataset as data
from port.evaluation import classes as evaluate_classes
from port.evaluation import looks


@torch.no_grad()
def run(joint: settings.Preset, frozen: settings.Preset, seed: int, wanted: sections.CapsnetReconstruction,
        results: str | os.PathLike = settings.RESULTS, device: str | None = None) -> Path:
    """Write pictures and numbers.

    Args:
        joint: the preset whose decoder trained the capsules too.
        frozen: the one whose capsules were constants.
        seed: of both runs.
        wanted: how many images.
        results: folder of the results.
        device: auto, cpu or cuda; None is the presets'.

    Raises:
        BadInput: a model that is not there, without a decoder, or of another image size.
    """
    models = {preset.name: decoding_model(preset, seed, results, device) for preset in (joint, frozen)}
    first, second = (model.config for model in models.values())
    if (first.canvas, first.channels) != (second.canvas, second.channels):
        raise BadInput(f"presets {joint.name} and {frozen.name} have images of different size")
    shift = looks.still(joint.train(seed)[0].shift)
    dataset = dataset_for(joint, results).to(next(models[joint.name].parameters()).device)
    test = dataset.test
    image = data.arrange(test.images[:wanted.n_images], first.canvas, shift, None)
    rows, measured = [image], {}
    for name, model in models.items():
        seen = evaluate_classes.collect(model, test, wanted.batch_size, shift)
        measured[name] = {"accuracy": float(seen.correct.mean()), "squared_error": seen.error}
        rows.append(model(image).reconstruction)
    folder = settings.folder_of("capsnet_reconstruction", joint.name, seed, results)
    folder.mkdir(parents=True, exist_ok=True)
    pictures.save_png(folder / "reconstructions.png", pictures.grid(
        [classify.shown(row.cpu().numpy()) for row in rows]))
    write_json(folder / "metrics.json", {
        "joint": joint.name, "frozen": frozen.name, "seed": seed, "models": measured,
        "mean_image_squared_error": mean_image_error(dataset, first.canvas, shift)})
    write_json(folder / "config.json", {"joint": joint.name, "frozen": frozen.name,
                                        "capsnet_reconstruction": asdict(wanted)})
    return folder


def mean_image_error(dataset: data.Dataset, canvas: int, shift: str) -> float:
    """Σ (x - m)² of test images to the mean m of the training images: what no capsule is needed for."""
    def placed(split: data.Split, start: int) -> torch.Tensor:
        return data.arrange(split.images[start:start + 1000], canvas, shift, None)
    train, test = dataset.train, dataset.test
    mean = sum(placed(train, i).sum(0) for i in range(0, len(train), 1000)) / len(train)
    return float(sum((placed(test, i) - mean).square().sum() for i in range(0, len(test), 1000))
                 / len(test))


def command(frozen: Annotated[str, typer.Option(help="Preset whose decoder was trained alone.")],
            preset: Preset = "digits", seed: Seed = 0, overrides: Set = None, device: Device = None,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """A decoder trained with its capsules beside one on a frozen encoder."""
    joint, alone = (settings.load_preset(name, overrides, params) for name in (preset, frozen))
    wanted = sections.section(sections.CapsnetReconstruction, "capsnet_reconstruction", params)
    print(f"capsnet_reconstruction: pictures in {run(joint, alone, seed, wanted, results, device)}")


main = Program("python -m pipelines.capsnet_reconstruction", command)


if __name__ == "__main__":
    raise SystemExit(main())
