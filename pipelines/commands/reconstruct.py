"""Command `scae reconstruct`: pictures of what a trained model sees.

    python -m pipelines.commands.reconstruct results/train/digits/0
    python -m pipelines.commands.reconstruct results/train/digits/0 --images digit.png
    python -m pipelines.commands.reconstruct --preset digits --seed 0

A run's folder is enough: preset, data and seed stand in it. Leaves reconstruct/<preset>/<seed>/ in the results that it
lies in, with reconstructions.png (bottom-up, top-down), templates.png, parts.png (the most present in place),
transformed.png (all of them), capsules.png (each object capsule alone), explained.png and explained.json
(which capsule explains which part); of a constellation run points_run.png, coloured by capsule.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import port
from pipelines.commands import given_images
from pipelines.evaluation import constellation, parts
from pipelines.prepare import dataset_for
from pipelines.support import environment, pictures, settings
from pipelines.support.command_line import Params, Preset, Program, ResultsOfRun, Seed, Set
from pipelines.support.values import BadInput
from port.core import swap
from port.data import dataset

IMAGES = 16
MOST_IMAGES = 1000


def run(preset: settings.Preset, seed: int, results: str | os.PathLike = settings.RESULTS,
        model: str | os.PathLike | None = None, images: int | str = IMAGES,
        device: str | None = None, out: str | os.PathLike | None = None) -> list[Path]:
    """Write the pictures of the first test images, or of a file's.

    Args:
        preset: whose data is shown.
        seed: of the run, and of the shifts.
        results: folder of the results.
        model: a folder with a model, or a run's; None is the trained model of this preset and seed.
        images: how many test images, or a file or folder of them (`pipelines.commands.given_images`).
        device: auto, cpu or cuda.
        out: folder of the pictures; None is results/reconstruct/<preset>/<seed>.

    Raises:
        BadInput: no model there, or images that do not fit it.
    """
    folder = Path(model) if model else settings.folder_of("train", preset.name, seed, results)
    loaded = settings.load_model(folder).to(environment.choose_device(device or "auto"))
    out = Path(out) if out else settings.folder_of("reconstruct", preset.name, seed, results)
    number = count(images)
    if isinstance(loaded, port.ConstellationAutoencoder):
        if number is None:
            raise BadInput(f"images {images}: the model in {folder} is a constellation's; give the"
                           " number of test examples to show")
        place = next(loaded.parameters()).device
        test = dataset_for(preset, results).to(place).test
        return _together(out, constellation.write_pictures, {"run": loaded}, test, number)
    if not isinstance(loaded, port.ImageAutoencoder | port.PartAutoencoder):
        raise BadInput(f"the model in {folder} is a classifier; `scae evaluate` leaves its pictures in "
                       "results/evaluate/<preset>/<seed>/pictures")
    config = loaded.config
    split = given_images.read(images, config.channels, config.canvas) if number is None \
        else test_images(preset, results, config, folder)
    write = parts.write_pictures if isinstance(loaded, port.PartAutoencoder) else pictures.write
    shift = preset.train(seed)[0].shift  # as it was trained and is evaluated
    return _together(out, write, loaded, split, len(split) if number is None else number, seed, shift)


def _together(out: Path, write: Callable[..., list[Path]], *given: object) -> list[Path]:
    """All the pictures, or none: the disk may be full after some of them."""
    with swap.together(out) as made:
        written = write(made, *given)
    return [out / path.name for path in written]


def of_run(folder: str | os.PathLike, results: str | os.PathLike | None = None,
           images: int | str = IMAGES, device: str | None = None,
           out: str | os.PathLike | None = None) -> list[Path]:
    """The pictures of a run, whose folder says everything else; they go to the results that it lies in.

    Raises:
        BadInput: no run's folder, or images that do not fit its model.
    """
    preset, seed = settings.preset_of_run(folder)
    return run(preset, seed, settings.results_of_run(folder, results), folder, images, device, out)


def count(images: int | str) -> int | None:
    """A number of test images, or None where a file or folder is named.

    Raises:
        BadInput: a number below 1 or above `MOST_IMAGES`, or neither a number nor a file or folder that
            is there.
    """
    try:
        number = int(images)
    except ValueError:
        if not Path(images).exists():
            raise BadInput(f"images {images}: neither a number nor a file or folder that is there") \
                from None
        return None
    if number < 1:
        raise BadInput(f"images {number}: give at least 1")
    if number > MOST_IMAGES:
        raise BadInput(f"images {number}: at most {MOST_IMAGES:,} fit into the pictures")
    return number


def test_images(preset: settings.Preset, results: str | os.PathLike, config: port.Config, folder: Path
                ) -> dataset.Split:
    """The preset's test images, refused where the model does not take them."""
    split = dataset_for(preset, results).test
    channels, height, width = split.images.shape[1:]
    if channels != config.channels or max(height, width) > config.canvas:
        raise BadInput(f"images of {channels}x{height}x{width} do not fit the model in "
                       f"{folder}: it takes {config.channels} channel(s) on a canvas of "
                       f"{config.canvas}")
    return split


def command(folder: Annotated[str | None, typer.Argument(
                metavar="[RUN]", help="Folder of a run; it says preset and seed.")] = None,
            preset: Preset = "digits", seed: Seed = 0, overrides: Set = None,
            model: Annotated[str | None, typer.Option(
                metavar="DIR", help="Folder of a model; default: the preset's trained one.")] = None,
            images: Annotated[str, typer.Option(
                metavar="FILE|DIR|N", help="How many test images, or a file or folder.")] = IMAGES,
            out: Annotated[str | None, typer.Option(metavar="DIR", help="Folder of the pictures.")] = None,
            params: Params = "params.yaml", results: ResultsOfRun = None) -> None:
    """Pictures of what a trained model sees."""
    if folder:
        paths = of_run(folder, results, images, out=out)
    else:
        paths = run(settings.load_preset(preset, overrides, params), seed, results or settings.RESULTS, model, images,
                    out=out)
    for path in paths:
        print(path)


main = Program("python -m pipelines.commands.reconstruct", command)


if __name__ == "__main__":
    raise SystemExit(main())
