"""Stage `prepare`: a data set as uint8 arrays in one file, with a summary.

    python -m pipelines.prepare --preset digits

Leaves results/prepare/<preset>/data.npz, metrics.json (counts), config.json. The random places on
the canvas are not stored: they are drawn anew for each batch, on the device.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from pipelines.evaluation import constellation
from pipelines.support import console, sections, settings
from pipelines.support.values import BadInput, unknown
from port.constellation import batches as constellation_batches
from port.data import dataset as data
from port.data import sources


def run(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS) -> Path:
    """Load, write and summarise the data set of a preset.

    Raises:
        DataError: the source is not there and could not be fetched.
        BadInput: unknown settings.
    """
    wanted = preset.prepare()
    folder = settings.folder_of("prepare", preset.name, results=results)
    if constellation.is_one(preset):
        write_json(folder / "metrics.json", constellation.prepare(preset, folder))
        write_json(folder / "config.json", preset.sections["prepare"])
        return folder
    dataset = load(wanted)
    _check_fits(dataset, preset)
    folder.mkdir(parents=True, exist_ok=True)
    data.save(dataset, folder / "data.npz")
    write_json(folder / "metrics.json", summary(dataset))
    write_json(folder / "config.json", preset.sections["prepare"])
    return folder


def dataset_for(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS) \
        -> data.Dataset | constellation_batches.Dataset:
    """The prepared data of a preset; prepared first if missing or made with other settings."""
    folder = settings.folder_of("prepare", preset.name, results=results)
    try:
        same = json.loads((folder / "config.json").read_text()) == preset.sections["prepare"]
    except (OSError, ValueError):
        same = False
    if not (same and (folder / "data.npz").exists()):
        run(preset, results)
    if constellation.is_one(preset):
        return constellation.read(preset, folder)
    dataset = data.read(folder / "data.npz")
    _check_fits(dataset, preset)
    return dataset


def summary(dataset: data.Dataset) -> dict:
    """Counts, shape and range, as measured on the arrays."""
    found: dict = {"name": dataset.name, "n_classes": dataset.n_classes}
    for part in ("train", "test"):
        split = getattr(dataset, part)
        counts = torch.bincount(split.labels, minlength=dataset.n_classes).tolist()
        found[part] = {"images": len(split), "per_class": counts}
        if len(split):
            found[part]["mean_pixel"] = split.images.to(torch.float32).mean().item() / 255
    channels, height, width = dataset.test.images.shape[1:]
    return found | {"channels": channels, "height": height, "width": width}


def write_json(path: Path, values) -> None:
    """Write values as JSON under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, path)


def load(wanted: sections.Prepare) -> data.Dataset:
    """A data source as section `prepare` names it.

    Raises:
        BadInput: an unknown source or option.
        DataError: it is not there and could not be fetched.
    """
    root = os.environ.get("SCAE_DATA") or wanted.data_root
    if wanted.source not in sources.SOURCES:
        raise BadInput(unknown("source", wanted.source, sources.SOURCES))
    try:
        return sources.load(wanted.source, root, wanted.download, **(wanted.options or {}))
    except TypeError as error:
        raise BadInput(f"prepare: options {wanted.options} do not fit source "
                       f"{wanted.source}: {error}") from None


def _check_fits(dataset: data.Dataset, preset: settings.Preset) -> None:
    """The model must take these images."""
    config = preset.config()
    channels, height, width = dataset.test.images.shape[1:]
    if not fits(preset, channels, height, width):
        raise BadInput(
            f"preset {preset.name}: images are {channels}x{height}x{width}, the model expects "
            f"{config.channels} channel(s) on a canvas of {config.canvas}; set "
            + ("n_channels and canvas_size" if config.kind == "scae" else "its channels and canvas")
            + " to fit")


def fits(preset: settings.Preset, channels: int, height: int, width: int) -> bool:
    """Whether a preset's model takes images of a size: all of them, or with `shift: crop` a part."""
    config, sides = preset.config(), (height, width)
    cropped = preset.sections["train"].get("shift") == "crop"
    return channels == config.channels and (min(sides) >= config.canvas if cropped
                                            else max(sides) <= config.canvas)


def main(arguments: list[str] | None = None) -> int:
    given = console.stage_parser("prepare", __doc__.splitlines()[0], seed=False) \
        .parse_args(arguments)

    def work():
        preset = settings.load_preset(given.preset, given.overrides, given.params)
        folder = run(preset, given.results)
        counts = json.loads((folder / "metrics.json").read_text())
        if "points" in counts:
            print(f"prepare: {counts['name']}, {counts['test']['examples']} test examples of "
                  f"{counts['points']} points in {folder / 'data.npz'}")
            return
        print(f"prepare: {counts['name']}, {counts['train']['images']} training and "
              f"{counts['test']['images']} test images of {counts['channels']}x{counts['height']}x"
              f"{counts['width']} in {folder / 'data.npz'}")
    return console.exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
