"""Own images as a data source: a folder of pictures, with a folder for each class or without, or an `.npz`.

    prepare:
      source: folder          # or npz
      path: pictures          # as named, else below the data root

Size, channels and number of classes come from the data (`fit_images`). A folder's `train` and `test` are
the parts where both are there (of an `.npz`: its arrays); otherwise a share of each class is held out,
drawn by a seed. Pictures are read by `pipelines.commands.given_images` (`picture_files` knows what their modes
mean). Images without classes have no labels (`port.data.dataset.NO_LABEL`).

Importing this file makes the two sources known to `port.data.sources`, which has no Pillow.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.commands import given_images
from pipelines.support import picture_files
from pipelines.support.values import BadInput
from port.core import array_files
from port.data import dataset, sources
from port.data import root as data_root

KINDS = ("folder", "npz")
PARTS = ("train", "test")
NO_CLASSES = {*PARTS, "val", "valid", "validation", "dev", "training", "testing"}
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")  # modes of Pillow without colour
# Of an `.npz`: images and labels of both parts, else of all images; labels may be left out.
ARRAYS = (("train_x", "train_y", "test_x", "test_y"), ("x_train", "y_train", "x_test", "y_test"),
          ("train_images", "train_labels", "test_images", "test_labels"), ("images", "labels"), ("x", "y"))
ANY_SIZE = 1 << 30
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # a tag of EXIF, and its values that swap height and width


@dataclass(frozen=True)
class Own:
    """What was found: images of one part or of all, with the classes they belong to.

    Attributes:
        name: of the data set in every result; never a standard set's.
        parts: `train` and `test`, or `all`: the pictures' files or images, and labels, -1 for none.
        classes: names in the order of the labels; empty without labels.
        notes: what was left out or changed, in words.
    """

    name: str
    parts: dict[str, tuple[Any, np.ndarray]]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


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


# ------------------------------------------------------------------------------------------- folders

def scan(path: Path) -> Own:
    """The pictures of a folder and their classes, by names alone.

    Raises:
        BadInput: no folder, no pictures, pictures beside folders of classes, a class without pictures, a
            class that is only tested, parts of other names than train and test.
    """
    if not path.is_dir():
        raise BadInput(f"own images {path}: no folder; for a file of arrays set prepare.source to npz")
    split = all((path / part).is_dir() for part in PARTS)
    found = {part: _pictures(path / part) for part in PARTS} if split else {"all": _pictures(path)}
    with_classes = {part: bool(one) and None not in one for part, one in found.items()}
    if len(set(with_classes.values())) > 1:
        raise BadInput(f"own images {path}: folders of classes in one of {' and '.join(PARTS)} alone")
    names = tuple(dict.fromkeys(name for one in found.values() for name in one if name is not None))
    classes = tuple(sorted(names))
    if split and classes:
        untaught = [name for name in found["test"] if name not in found["train"]]
        if untaught:
            raise BadInput(f"own images {path / 'test'}: no training images of class {untaught[0]}; put "
                           f"some into {path / 'train' / untaught[0]}")
    if classes and {name.lower() for name in classes} <= NO_CLASSES:
        raise BadInput(f"own images {path}: {', '.join(classes)} are parts, not classes; name the parts "
                       f"{' and '.join(PARTS)}, both of them")
    parts, notes = {}, left_out(path, PARTS if split else None)
    for part, one in found.items():
        files = [file for name in sorted(one, key=str) for file in one[name]]
        labels = [dataset.NO_LABEL if name is None else classes.index(name)
                  for name in sorted(one, key=str) for _ in one[name]]
        parts[part] = files, np.array(labels, np.int64)
    return Own(named(path), parts, classes, tuple(notes))


def left_out(path: Path, parts: tuple[str, ...] | None) -> list[str]:
    """What lies there and is not used, in words: files of other kinds, and folders beside the parts."""
    found = []
    others = [entry.name for entry in sorted(path.iterdir())
              if parts and entry.is_dir() and picture_files.visible(entry) and entry.name not in parts]
    if others:
        found.append(f"beside {' and '.join(parts or ())}, not used: {', '.join(others)}")
    files = [entry for entry in sorted(path.rglob("*")) if entry.is_file() and picture_files.visible(entry)
             and not _is_picture(entry)]
    if files:
        found.append(f"{len(files)} file(s) of another kind than {', '.join(given_images.PICTURES)} are "
                     f"left out, as {files[0].relative_to(path)}")
    return found


def _pictures(folder: Path) -> dict[str | None, list[Path]]:
    """Class → its pictures, in the order of names; None for pictures that lie in the folder itself."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if picture_files.visible(entry))
    except OSError as error:
        raise BadInput(f"own images {folder}: {error.strerror}") from None
    files = [entry for entry in entries if entry.is_file() and _is_picture(entry)]
    folders = [entry for entry in entries if entry.is_dir()]
    if files and folders:
        raise BadInput(f"own images {folder}: pictures ({files[0].name}) beside folders "
                       f"({folders[0].name}); give either a folder for each class, or pictures alone")
    if not folders:
        if not files:
            raise BadInput(f"own images {folder}: no picture {', '.join(given_images.PICTURES)} in it")
        return {None: files}
    found: dict[str | None, list[Path]] = {}
    for one in folders:
        found[one.name] = sorted(entry for entry in one.iterdir() if picture_files.visible(entry)
                                 and entry.is_file() and _is_picture(entry))
        if not found[one.name]:
            raise BadInput(f"own images {one}: no picture {', '.join(given_images.PICTURES)} in this class;"
                           " remove the folder, or put some into it")
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in given_images.PICTURES


def look(files: list[Path]) -> tuple[int, set[tuple[int, int]]]:
    """Channels of pictures (1 if all are grey, else 3) and their sizes (height, width), from their heads.

    Raises:
        BadInput: Pillow is not installed, or a file is no picture.
    """
    try:
        from PIL import Image
    except ImportError:
        raise BadInput("own images: reading pictures needs Pillow; install pillow, or give an .npz") \
            from None
    channels, sizes = 1, set()
    for file in files:
        try:
            with Image.open(file, formats=picture_files.FORMATS) as picture:
                turned = picture.getexif().get(ORIENTATION, 1) in SIDEWAYS
                sizes.add(picture.size if turned else picture.size[::-1])
                channels = channels if picture.mode in GREY else 3
        except Exception:  # whatever a damaged head makes Pillow stumble over; its reader says it
            given_images.read(file, 3, ANY_SIZE)
            raise
    return channels, sizes


def decoded(files: list[Path], channels: int, size: int | None) -> np.ndarray:
    """Pictures as uint8 `[n, C, H, W]`; with `size` cut square about their middle and made that large.

    Raises:
        BadInput: a picture that cannot be read, or of another size than the first.
    """
    images: np.ndarray | None = None
    for i, file in enumerate(files):
        one = given_images.read(file, channels, ANY_SIZE).images[0]
        if size is not None:
            one = resized(one, size)
        if images is None:
            images = np.empty((len(files), *one.shape), np.uint8)
        if one.shape != images.shape[1:]:
            (height, width), (first, other) = one.shape[1:], images.shape[2:]
            raise BadInput(f"own images {file}: {height}x{width} pixels, {files[0].name} has "
                           f"{first}x{other}; give one size, or have them made so: prepare.size")
        images[i] = one.numpy()
    assert images is not None  # a part without pictures was refused
    return images


def resized(image: torch.Tensor, size: int) -> torch.Tensor:
    """A uint8 picture `[C, H, W]` cut square about its middle and resampled, bilinear with antialiasing."""
    height, width = image.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[None, :, top:top + side, left:left + side].to(torch.float32)
    found = F.interpolate(square, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return found[0].round().clamp(0, 255).to(torch.uint8)


# -------------------------------------------------------------------------------------------- arrays

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


# --------------------------------------------------------------------------------------------- source

def named(path: Path) -> str:
    """What the data set is called, `own_` and the name of its folder or file."""
    return "own_" + (re.sub(r"[^A-Za-z0-9]+", "_", path.resolve().stem).strip("_") or "images")


def found_at(source: str, path: Path) -> Own:
    """What lies there; of a folder names alone."""
    return scan(path) if source == "folder" else unpacked(path)


def checked_size(size: Any) -> None:
    """Refuse what is no number of pixels."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 4 <= size <= 1024):
        raise BadInput(f"prepare.size must be a whole number of pixels from 4 to 1024, not {size!r}")


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
        print(f"own images: {note}", flush=True)
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
