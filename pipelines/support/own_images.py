"""Own images as a data source: a folder of pictures, with a folder for each class or without, or an `.npz`.

    prepare:
      source: folder          # or npz
      path: pictures          # as named, else below the data root

Size, channels and number of classes come from the data (`fit_images`). A folder's `train` and `test` are
the parts where both are there (of an `.npz`: its arrays); otherwise a share of each class is held out,
drawn by a seed. What lies in a folder is found by `own_folders`, in an `.npz` by `own_arrays`. Images without
classes have no labels (`port.data.dataset.NO_LABEL`).

Importing this file makes the two sources known to `port.data.sources`, which has no Pillow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.support.boundary import printable
from pipelines.support.own_arrays import unpacked
from pipelines.support.own_folders import decoded, look, resized, scan
from pipelines.support.own_found import PARTS, Own
from pipelines.support.values import BadInput
from port.configuration.fields import unknown
from port.data import dataset, sources
from port.data import root as data_root

KINDS = ("folder", "npz")
OPTIONS = ("test_share", "split_seed")


def path_of(path: str | None, root: str | os.PathLike) -> Path:
    """The folder or file: as named, else below the data root.

    Raises:
        BadInput: none named, or nothing there.
    """
    if not isinstance(path, str) or not path:
        raise BadInput("source of own images: say where they are with prepare.path (on the command line "
                       "--data PATH)")
    places = (Path(path), data_root.resolve(root) / path)
    for place in places:
        if place.exists():
            return place
    raise BadInput(f"own images {path}: not there, nor in {places[1].parent}; give a folder of pictures or "
                   "an .npz")


def found_at(source: str, path: Path) -> Own:
    """What lies there; of a folder names alone."""
    return scan(path) if source == "folder" else unpacked(path)


def checked_size(size: Any) -> None:
    """Refuse what is no number of pixels."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 4 <= size <= 1024):
        raise BadInput(f"prepare.size must be a whole number of pixels from 4 to 1024, not {size!r}")


def checked_options(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments of the source, without those that have settings of their own or mean nothing here.

    Raises:
        BadInput: another name.
    """
    for name in options or {}:
        if name in ("path", "size"):
            raise BadInput(f"prepare.options: {name} is a setting of its own; write prepare.{name}")
        if name not in OPTIONS:
            raise BadInput(f"prepare.options of own images: {unknown('option', name, OPTIONS)}")
    return dict(options or {})


def load(source: str, root: Path, path: str | None = None, size: int | None = None,
         test_share: float = 0.25, split_seed: int = 0) -> dataset.Dataset:
    """Own images as a data set.

    Args:
        source: `folder` or `npz`.
        root: data root, below which the path may lie.
        path: of the folder or the file.
        size: pixels that every picture is cut and resampled to; None keeps them.
        test_share: of each class held out, where the parts are not given.
        split_seed: of that draw.

    Raises:
        BadInput: whatever cannot be used, in a line.
    """
    place = path_of(path, root)
    checked_size(size)
    own = found_at(source, place)
    if source == "folder":
        channels, _ = look([file for files, _ in own.parts.values() for file in files])
        parts = {part: (decoded(files, channels, size), labels)
                 for part, (files, labels) in own.parts.items()}
    else:
        parts = own.parts if size is None else {
            part: (np.stack([resized(torch.from_numpy(one), size).numpy() for one in images]), labels)
            for part, (images, labels) in own.parts.items()}
    shapes = {part: images.shape[1:] for part, (images, _) in parts.items()}
    if len(set(shapes.values())) > 1:
        raise BadInput(f"own images {place}: " + ", ".join(
            f"{part} of {'x'.join(map(str, shape))}" for part, shape in shapes.items())
            + "; give both parts one shape, or set prepare.size")
    notes = list(own.notes)
    if "all" in parts:
        images, labels = parts["all"]
        train, test = halves(labels, test_share, split_seed, place)
        parts = {"train": (images[train], labels[train]), "test": (images[test], labels[test])}
        notes.append(f"no parts {' and '.join(PARTS)}: {len(test)} of {len(labels)} images are held out, "
                     + (f"{test_share:g} of each class" if own.classes else f"a share of {test_share:g}")
                     + f" drawn by seed {split_seed}")
    for note in notes:
        print(printable(f"own images: {note}"), flush=True)
    n_classes = len(own.classes)
    return dataset.Dataset(own.name, *(dataset.split_of(*parts[part], n_classes) for part in PARTS),
                        n_classes=n_classes, classes=own.classes)


def halves(labels: np.ndarray, test_share: float = 0.25, split_seed: int = 0, where: Path | str = ""
           ) -> tuple[np.ndarray, np.ndarray]:
    """Indices of training and test images: of each class the share, one at least on both sides.

    Raises:
        BadInput: a share that is none, or a class of a single image.
    """
    if not (isinstance(test_share, int | float) and 0 < test_share < 1):
        raise BadInput(f"prepare.options: test_share must lie between 0 and 1, not {test_share!r}")
    if not isinstance(split_seed, int) or isinstance(split_seed, bool) or split_seed < 0:
        raise BadInput(f"prepare.options: split_seed must be a whole number from 0, not {split_seed!r}")
    rng, test = np.random.default_rng(split_seed), []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) < 2:
            raise BadInput(f"own images {where}: "
                           + ("a single image" if label < 0 else f"class {label} has a single image")
                           + ", so none can be held out; give more, or folders train and test")
        n = min(max(1, round(test_share * len(of_class))), len(of_class) - 1)
        test.append(rng.permutation(of_class)[:n])
    held = np.sort(np.concatenate(test))
    return np.setdiff1d(np.arange(len(labels)), held), held


def _source(kind: str):
    def loaded(root: Path, download: bool, path: str | None = None, **options: Any) -> dataset.Dataset:
        return load(kind, root, path, **options)
    return loaded


sources.SOURCES.update({kind: _source(kind) for kind in KINDS})
