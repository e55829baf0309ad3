"""Command `scae reconstruct`: pictures of what a trained model sees.

    python -m pipelines.reconstruct --preset digits --seed 0

Leaves results/reconstruct/<preset>/<seed>/ with reconstructions.png, templates.png,
parts.png and capsules.png.
"""

from __future__ import annotations

import os
from pathlib import Path

import port
from pipelines import console, environment, pictures, settings
from pipelines.prepare import dataset_for


def run(preset: settings.Preset, seed: int, results: str | os.PathLike = settings.RESULTS,
        model: str | os.PathLike | None = None, n_images: int = 16,
        device: str | None = None) -> list[Path]:
    """Write the pictures of the first test images.

    Args:
        preset: whose data is shown.
        seed: of the run, and of the shifts.
        results: folder of the results.
        model: a folder with a model; None is the trained model of this preset and seed.
        n_images: how many images.
        device: auto, cpu or cuda.

    Raises:
        BadInput: no model there, or one that does not fit the data.
    """
    folder = Path(model) if model else settings.folder_of("train", preset.name, seed, results) \
        / "model"
    loaded = settings.load_model(folder).to(environment.choose_device(device or "auto"))
    dataset = dataset_for(preset, results)
    config: port.Config = loaded.config
    channels, height, width = dataset.test.images.shape[1:]
    if channels != config.channels or max(height, width) > config.canvas:
        raise settings.BadInput(f"images of {channels}x{height}x{width} do not fit the model in "
                                f"{folder}: it takes {config.channels} channel(s) on a canvas of "
                                f"{config.canvas}")
    out = settings.folder_of("reconstruct", preset.name, seed, results)
    return pictures.write(out, loaded, dataset.test, n_images, seed)


def main(arguments: list[str] | None = None) -> int:
    parser = console.stage_parser("reconstruct", __doc__.splitlines()[0])
    parser.add_argument("--model", help="folder of a model; default: the preset's trained one")
    given = parser.parse_args(arguments)

    def work():
        preset = settings.load_preset(given.preset, given.overrides, given.params)
        for path in run(preset, given.seed, given.results, given.model):
            print(path)
    return console.exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
