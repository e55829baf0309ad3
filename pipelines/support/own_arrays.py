"""Own images in an `.npz`: arrays of images and labels by their names."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from pipelines.commands import given_images
from pipelines.support.own_found import PARTS, Own, named
from pipelines.support.values import BadInput
from port.core import array_files
from port.data import dataset

# Of an `.npz`: images and labels of both parts, else of all images; labels may be left out.
ARRAYS = (("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test"),
          ("train_images", "train_labels", "test_images", "test_labels"), ("images", "labels"), ("x", "y"))


def unpacked(path: Path) -> Own:
    """Images and labels of an `.npz`.

    Raises:
        BadInput: no such file, no known names, or arrays of another type or shape.
    """
    try:
        with zipfile.ZipFile(path) as file:
            there = {name.removesuffix(".npy") for name in file.namelist()}
        known = next((names for names in ARRAYS if set(names[::2]) <= there), None)
        if known is None:
            raise BadInput(f"own images {path}: holds {', '.join(sorted(there)[:6]) or 'nothing'}; name "
                           f"the arrays {', '.join(ARRAYS[0])}, or images and labels")
        names = [name for name in known if name in there]
        arrays = dict(zip(names, array_files.named(path, names), strict=True))
    except array_files.TooLarge as error:
        raise BadInput(f"own images {path}: {error}") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"own images {path}: cannot be read ({' '.join(str(error).split())}); an .npz is "
                       "needed, with images and labels by name") from None
    with_labels = [name in arrays for name in known[1::2]]
    if len(set(with_labels)) > 1:
        raise BadInput(f"own images {path}: labels ({', '.join(known[1::2])}) of one part alone")
    parts = {}
    for part, name in zip(PARTS if len(known) == 4 else ("all",), known[::2], strict=True):
        images = channels_first(given_images.as_bytes(arrays[name], path), f"{path}: {name}")
        labels = arrays.get(known[known.index(name) + 1])
        if labels is not None and labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels is not None and (labels.shape != images.shape[:1] or labels.dtype.kind not in "iuSU"):
            raise BadInput(f"own images {path}: {known[known.index(name) + 1]} is {labels.dtype} "
                           f"{list(labels.shape)}; give one whole number or word for each of the "
                           f"{len(images)} images")
        parts[part] = images, labels
    values = {} if not all(with_labels) else {value: i for i, value in enumerate(
        np.unique(np.concatenate([labels for _, labels in parts.values()])).tolist())}
    classes = tuple(map(str, values))
    if values and "test" in parts:
        untaught = sorted(set(parts["test"][1].tolist()) - set(parts["train"][1].tolist()))
        if untaught:
            raise BadInput(f"own images {path}: class {untaught[0]} is in {known[3]} and not in {known[1]}")
    notes = () if not values or list(values) == list(range(len(values))) else (
        f"the labels {', '.join(classes[:3])}… are counted from 0, in order",)
    return Own(named(path), {part: (images, np.full(len(images), dataset.NO_LABEL, np.int64) if labels is None
                                    else np.array([values[one] for one in labels.tolist()], np.int64))
                             for part, (images, labels) in parts.items()}, classes, notes)


def channels_first(images: np.ndarray, what: str) -> np.ndarray:
    """uint8 images as `[n, C, H, W]`, C from 1 to 3.

    Raises:
        BadInput: another number of axes or channels, or both ends could be the channels.
    """
    if images.ndim == 3:
        images = images[:, None]
    first, last = (images.ndim == 4 and images.shape[axis] in (1, 2, 3) for axis in (1, 3))
    if images.ndim != 4 or first == last or not images.size:
        raise BadInput(f"own images {what}: of shape {list(images.shape)}; give [n, H, W], [n, C, H, W] or "
                       "[n, H, W, C] with 1 to 3 channels")
    return images if first else np.ascontiguousarray(np.moveaxis(images, 3, 1))
