"""Own images in a folder: its pictures and their classes by names, their sizes by their heads, their bytes.

Pictures are read by `pipelines.commands.given_images`; `picture_files` knows what their modes mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipelines.commands import given_images
from pipelines.support import picture_files
from pipelines.support.boundary import printable
from pipelines.support.own_found import PARTS, Own, named
from pipelines.support.values import BadInput
from port.data import dataset

NO_CLASSES = {*PARTS, "val", "valid", "validation", "dev", "training", "testing"}
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")  # modes of Pillow without colour
ANY_SIZE = 1 << 30
ORIENTATION, SIDEWAYS = 0x0112, (5, 6, 7, 8)  # a tag of EXIF, and its values that swap height and width


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
        # A name that no table and no page can hold is spelled out, here and so everywhere.
        name = printable(one.name)
        if name in found:
            raise BadInput(f"own images {folder}: two classes have the same name, {name}, once what cannot be "
                           "printed is spelled out; rename one of the folders")
        found[name] = sorted(entry for entry in one.iterdir() if picture_files.visible(entry)
                             and entry.is_file() and _is_picture(entry))
        if not found[name]:
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
