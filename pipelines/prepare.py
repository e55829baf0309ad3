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

from pipelines.support import fit_images, locks, own_images, sections, settings
from pipelines.support.command_line import Params, Preset, Program, Results, Set
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.configuration.fields import unknown
from port.constellation import batches as constellation_batches
from port.core import inputs
from port.data import dataset as data
from port.data import dataset_file, root, sources, standard_sets


def run(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS) -> Path:
    """Load, write and summarise the data set of a preset.

    Raises:
        DataError: the source is not there and could not be fetched.
        BadInput: unknown settings.
    """
    from pipelines.evaluation import constellation  # here: SciPy and scikit-learn, for which --help need not wait

    wanted = preset.prepare()
    folder = settings.folder_of("prepare", preset.name, results=results)
    if constellation.is_one(preset):
        write_json(folder / "metrics.json", constellation.prepare(preset, folder))
        write_json(folder / "config.json", preset.sections["prepare"])
        return folder
    dataset = load(wanted)
    _check_fits(dataset, preset)
    raw = raw_digest(wanted)
    if standard_sets.is_other(dataset.name):
        print(f"prepare: the files of {wanted.source} in {root.resolve(root_of(wanted))} hold another "
              f"data set, which is called {dataset.name} in every result", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    dataset_file.save(dataset, folder / "data.npz")
    write_json(folder / "metrics.json", summary(dataset) | {
        "sha256": standard_sets.digest_of(dataset), "raw_sha256": raw})
    write_json(folder / "config.json", preset.sections["prepare"])
    return folder


def dataset_for(preset: settings.Preset, results: str | os.PathLike = settings.RESULTS) \
        -> data.Dataset | constellation_batches.Dataset:
    """The prepared data of a preset; prepared first if missing or made with other settings or raw files.

    Processes that want the same wait for each other, so that one of them prepares.
    """
    from pipelines.evaluation import constellation  # here: SciPy and scikit-learn, for which --help need not wait

    folder = settings.folder_of("prepare", preset.name, results=results)
    if not is_current(preset, folder):
        with locks.awaited(folder):
            if not is_current(preset, folder):
                run(preset, results)
    if constellation.is_one(preset):
        return constellation.read(preset, folder)
    dataset = dataset_file.read(folder / "data.npz")
    if not is_recorded(dataset, folder):
        with locks.awaited(folder):
            run(preset, results)
        dataset = dataset_file.read(folder / "data.npz")
    _check_fits(dataset, preset)
    return dataset


def is_recorded(dataset: data.Dataset, folder: Path) -> bool:
    """Whether a data set is the one of its metrics.json: a kill or a hand may put others side by side.

    What an earlier version prepared says nothing of it.
    """
    known = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("sha256")
    return known in (None, standard_sets.digest_of(dataset))


def is_current(preset: settings.Preset, folder: Path) -> bool:
    """Whether a folder holds what a preset asks for, from the raw files that are there now.

    Where there are none any more, or none were recorded, the settings alone tell.
    """
    try:
        same = json.loads((folder / "config.json").read_text(encoding="utf-8")) == preset.sections["prepare"]
        recorded = json.loads((folder / "metrics.json").read_text(encoding="utf-8")).get("raw_sha256")
    except (OSError, ValueError, AttributeError):
        return False
    if not (same and (folder / "data.npz").exists()):
        return False
    now = raw_digest(preset.prepare()) if recorded else None
    return not now or now == recorded


def raw_digest(wanted: sections.Prepare) -> str | None:
    """Digest of the raw files that section `prepare` leads to; None where there are none."""
    return root.digest(wanted.source, root_of(wanted), places_of(wanted))


def places_of(wanted: sections.Prepare) -> dict:
    """Arguments of the source, with own images where they lie; without a place where they are gone."""
    options = options_of(wanted)
    if wanted.source in own_images.KINDS:
        try:
            options["path"] = str(own_images.path_of(wanted.path, root_of(wanted)))
        except BadInput:
            del options["path"]
    return options


def options_of(wanted: sections.Prepare) -> dict:
    """Arguments of the source.

    Raises:
        BadInput: a place or size of own images, and another source; or an option that is none of own images.
    """
    own = {"path": wanted.path, "size": wanted.size}
    if wanted.source in own_images.KINDS:
        return {**own_images.checked_options(wanted.options), **own}
    given = [name for name, value in own.items() if value is not None]
    if given:
        raise BadInput(f"prepare.{given[0]}: source {wanted.source} takes none; own images are the sources "
                       f"{' and '.join(own_images.KINDS)}")
    return dict(wanted.options or {})


def root_of(wanted: sections.Prepare) -> str:
    """The data root as named: the variable SCAE_DATA wins."""
    return os.environ.get(root.VARIABLE) or wanted.data_root


def summary(dataset: data.Dataset) -> dict:
    """Counts, shape and range, as measured on the arrays."""
    found: dict = {"name": dataset.name, "n_classes": dataset.n_classes}
    if dataset.classes:
        found["classes"] = list(dataset.classes)
    for part in ("train", "test"):
        split = getattr(dataset, part)
        found[part] = {"images": len(split)}
        if dataset.n_classes:
            found[part]["per_class"] = torch.bincount(split.labels, minlength=dataset.n_classes).tolist()
        if len(split):
            found[part]["mean_pixel"] = split.images.to(torch.float32).mean().item() / 255
    channels, height, width = dataset.test.images.shape[1:]
    return found | {"channels": channels, "height": height, "width": width}


def load(wanted: sections.Prepare) -> data.Dataset:
    """A data source as section `prepare` names it.

    Raises:
        BadInput: an unknown source or option.
        DataError: it is not there and could not be fetched.
    """
    if wanted.source not in sources.SOURCES:
        raise BadInput(unknown("source", wanted.source, sources.SOURCES))
    try:
        return sources.load(wanted.source, root_of(wanted), wanted.download, **options_of(wanted))
    except TypeError as error:
        raise BadInput(f"prepare: options {wanted.options} do not fit source "
                       f"{wanted.source}: {error}") from None


def _check_fits(dataset: data.Dataset, preset: settings.Preset) -> None:
    """The model must take these images and tell their classes apart."""
    config = preset.config()
    channels, height, width = dataset.test.images.shape[1:]
    if not fits(preset, channels, height, width):
        canvas, colours = fit_images.needed(preset.model)[:2]
        raise BadInput(
            f"preset {preset.name}: images are {channels}x{height}x{width}, the model expects "
            f"{config.channels} channel(s) on a canvas of {config.canvas}; set {colours} and {canvas} to fit")
    for split in (dataset.train, dataset.test):
        try:
            data.check_classes(split, inputs.classes_of(config))
        except data.DataError as error:
            raise BadInput(f"preset {preset.name}, {dataset.name} of {dataset.n_classes} classes: "
                           f"{error}") from None


def fits(preset: settings.Preset, channels: int, height: int, width: int) -> bool:
    """Whether a preset's model takes images of a size: all of them, or with `shift: crop` a part."""
    config, sides = preset.config(), (height, width)
    cropped = preset.sections["train"].get("shift") == "crop"
    return channels == config.channels and (min(sides) >= config.canvas if cropped
                                            else max(sides) <= config.canvas)


def command(preset: Preset = "digits", overrides: Set = None, params: Params = "params.yaml",
            results: Results = "results") -> None:
    """A data set as uint8 arrays in one file, with a summary."""
    folder = run(settings.load_preset(preset, overrides, params), results)
    counts = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if "points" in counts:
        print(f"prepare: {counts['name']}, {counts['test']['examples']} test examples of "
              f"{counts['points']} points in {folder / 'data.npz'}")
        return
    print(f"prepare: {counts['name']}, {counts['train']['images']} training and "
          f"{counts['test']['images']} test images of {counts['channels']}x{counts['height']}x"
          f"{counts['width']} in {folder / 'data.npz'}")


main = Program("python -m pipelines.prepare", command)


if __name__ == "__main__":
    raise SystemExit(main())
