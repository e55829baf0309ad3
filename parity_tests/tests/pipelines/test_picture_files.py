"""Pictures and arrays of unknown origin: each by its meaning, or refused in words."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

import port
from pipelines.commands import given_images
from pipelines.support import picture_files
from pipelines.support.values import BadInput
from port.checkpoints import CheckpointError
from port.core import array_files
from port.data import dataset, dataset_file, smallnorb, sources

Image = pytest.importorskip("PIL.Image")

# A ramp that no other reading of it resembles: rows from dark to light, and a light left column.
RAMP = np.add.outer(np.arange(6) * 30, [60, 0, 0, 10, 20]).astype(np.uint8)


def saved(folder: Path, picture, name: str = "x.png", **options) -> Path:
    picture.save(folder / name, **options)
    return folder / name


def alpha(colour: int) -> Image.Image:
    """The ramp as the opacity of one grey."""
    return Image.fromarray(np.dstack([np.full((6, 5, 3), colour, np.uint8), RAMP]), "RGBA")


def palette() -> Image.Image:
    found = Image.fromarray(255 - RAMP, "P")  # an index that is not the grey value
    found.putpalette([v for i in range(256) for v in (255 - i,) * 3])
    return found


GREY = Image.fromarray(RAMP)
# What is saved → the grey values it stands for.
MEANINGS = {
    "grey": (GREY, RAMP, 0),
    "colours": (GREY.convert("RGB"), RAMP, 1),
    "16 bits": (Image.fromarray(RAMP.astype(np.uint16) * 257), RAMP, 0),
    "a palette": (palette(), RAMP, 1),
    "one bit": (GREY.point(lambda v: 255 * (v > 90), "1"), np.where(RAMP > 90, 255, 0), 0),
    "black on transparency": (alpha(0), 255 - RAMP, 1),
    "grey with alpha": (alpha(0).convert("LA"), 255 - RAMP, 1),
    "opaque": (Image.fromarray(np.dstack([RAMP] * 3 + [np.full_like(RAMP, 255)]), "RGBA"), RAMP, 1),
}


@pytest.mark.parametrize("what", MEANINGS)
def test_each_mode_by_its_meaning(what: str, tmp_path) -> None:
    picture, wanted, rounding = MEANINGS[what]
    found = given_images.read(saved(tmp_path, picture), 1, 20).images[0, 0].numpy().astype(int)
    assert np.abs(found - wanted).max() <= rounding
    coloured = given_images.read(tmp_path / "x.png", 3, 20).images[0].numpy().astype(int)
    assert np.abs(coloured - wanted).max() <= rounding


def test_a_jpeg_of_ink_and_one_on_its_side(tmp_path) -> None:
    """CMYK, and the rotation that a camera writes beside the pixels."""
    ink = saved(tmp_path, GREY.resize((40, 48)).convert("RGB").convert("CMYK"), "ink.jpg", quality=95)
    assert np.abs(picture_files.read(ink, 1).astype(int) - np.asarray(GREY.resize((40, 48)))).max() < 12
    tag = Image.Exif()
    tag[0x0112] = 6  # turn a quarter clockwise to see it upright
    turned = saved(tmp_path, GREY, "turned.png", exif=tag)
    np.testing.assert_array_equal(picture_files.read(turned, 1), np.rot90(RAMP, -1))


def bomb(folder: Path, side: int = 60_000) -> Path:
    """A PNG whose head claims side x side pixels."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(
            ">I", zlib.crc32(kind + content))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000)))
                     + chunk(b"IEND", b""))
    return path


def test_refused_in_words(tmp_path) -> None:
    floats = tmp_path / "float.png"
    Image.fromarray(RAMP.astype(np.float32)).save(floats, "TIFF")
    cut = saved(tmp_path, GREY.resize((50, 50)), "cut.png")
    cut.write_bytes(cut.read_bytes()[:-30])
    words = tmp_path / "words.png"
    words.write_text("no picture")
    sparse = tmp_path / "sparse.png"
    with open(sparse, "wb") as file:
        file.truncate(2**35)
    several = tmp_path / "several.png"
    GREY.save(several, save_all=True, append_images=[GREY.rotate(90)])
    for path, says in ((bomb(tmp_path), "unpack to more than"), (floats, "no PNG, JPEG, BMP picture"),
                       (cut, "cannot be read"), (words, "whatever its name says"), (sparse, "MB"),
                       (saved(tmp_path, alpha(255), "white.png"), "nothing but white"),
                       (tmp_path / "none.png", "No such file"), (several, "pictures in one file")):
        with pytest.raises(BadInput, match=says) as caught:
            picture_files.read(path, 1)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="canvas of 5"):
        given_images.read(saved(tmp_path, GREY), 1, 5)
    with pytest.raises(BadInput, match="the model takes 2"):
        picture_files.read(tmp_path / "x.png", 2)


def test_what_systems_leave_in_a_folder(tmp_path) -> None:
    """Passed over: none of it is a picture that the user put there."""
    saved(tmp_path, GREY, "a.png")
    for name in ("._a.png", ".hidden.png", "Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "folder.png").mkdir()
    assert len(given_images.read(tmp_path, 1, 20)) == 1


# ------------------------------------------------------------------------------------------ arrays

def claiming(folder: Path, shape: str, name: str = "x.npz", content: bytes = b"") -> Path:
    """An archive whose array claims a shape."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    array = b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + content
    path = folder / name
    if name.endswith(".npy"):
        path.write_bytes(array)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for key in ("images", "train_x", "train_y", "test_x", "test_y", "name", "n_classes"):
            file.writestr(f"{key}.npy", array)
    return path


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_an_array_that_claims_too_much(name: str, tmp_path) -> None:
    """Refused by its head, before any memory is asked for."""
    path = claiming(tmp_path, "(10**6, 10**6)".replace("10**6", "1000000"), name)
    with pytest.raises(BadInput, match=r"931\.3 GB once unpacked"):
        given_images.read(path, 1, 20)
    with pytest.raises(BadInput):
        given_images.read(claiming(tmp_path, "(5, 6)", name, b"cut"), 1, 20)


def test_an_archive_that_unpacks_to_more(tmp_path, monkeypatch) -> None:
    """What the archive says of a member counts too; so for prepared data and for USPS."""
    monkeypatch.setattr(array_files, "MOST_BYTES", 10_000)
    path = claiming(tmp_path, "(100, 200)", content=bytes(20_000))
    with pytest.raises(BadInput, match="once unpacked"):
        given_images.read(path, 1, 200)
    with pytest.raises(dataset.DataError, match="once unpacked"):
        dataset_file.read(path)
    (tmp_path / "usps").mkdir()
    path.rename(tmp_path / "usps" / "usps.npz")
    with pytest.raises(dataset.DataError, match="once unpacked"):
        sources.load("usps", tmp_path, download=False)


def test_arrays_are_read_as_before(tmp_path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    buffer = io.BytesIO()
    np.save(buffer, array)
    (tmp_path / "x.npy").write_bytes(buffer.getvalue())
    np.savez_compressed(tmp_path / "x.npz", other=array + 1, images=array)
    for name in ("x.npy", "x.npz"):
        np.testing.assert_array_equal(array_files.one(tmp_path / name, ("images",)), array)
    np.testing.assert_array_equal(array_files.named(tmp_path / "x.npz", ["other"])[0], array + 1)
    with pytest.raises(KeyError, match="third"):
        array_files.named(tmp_path / "x.npz", ["third"])


# USPS arrays that are something else.
GOOD = {"train_x": np.full((4, 16, 16), 2000, np.uint16), "train_y": np.arange(4),
        "test_x": np.zeros((3, 16, 16), np.uint16), "test_y": np.arange(3)}
USPS = {"NaN pixels": ("train_x", np.full((4, 16, 16), np.nan)), "negative pixels": ("test_x", np.full(
    (3, 16, 16), -1, np.int16)), "bright pixels": ("train_x", np.full((4, 16, 16), 2001, np.uint16)),
        "half labels": ("train_y", np.array([0, 1, 2, 2.5])), "NaN labels": ("test_y", np.full(3, np.nan)),
        "labels 1..10": ("train_y", np.arange(7, 11)), "words": ("test_y", np.array(["a", "b", "c"])),
        "one-hot": ("train_y", np.eye(4, 10))}


@pytest.mark.parametrize("what", USPS)
def test_a_file_of_usps_that_holds_something_else(what: str, tmp_path) -> None:
    (tmp_path / "usps").mkdir()
    name, wrong = USPS[what]
    np.savez(tmp_path / "usps" / "usps.npz", **GOOD | {name: wrong})
    with pytest.raises(dataset.DataError, match=r"usps\.npz"):
        sources.load("usps", tmp_path, download=False)
    np.savez(tmp_path / "usps" / "usps.npz", **GOOD)
    sources.load("usps", tmp_path, download=False)


# --------------------------------------------------------------------------------- files that are sparse

def sparse(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.truncate(2**33)
    return path


def test_sparse_files_are_not_read(tmp_path) -> None:
    """Eight gigabytes of zeros where a small file should be: said by size, before memory is asked for."""
    for name in sources.MNIST_FILES:
        sparse(tmp_path / "MNIST" / "raw" / name)
    with pytest.raises(dataset.DataError, match=r"8\.0 GB are more than such a file has"):
        sources.load("mnist", tmp_path, download=False)
    with pytest.raises(dataset.DataError, match=r"8\.0 GB"):
        smallnorb.read_matrix(sparse(tmp_path / "smallnorb-dat.mat"))
    sparse(tmp_path / "model.ckpt-1.index")
    with pytest.raises(CheckpointError, match="8589934592 bytes; an index of more than"):
        port.read_checkpoint(tmp_path / "model.ckpt-1")
    with pytest.raises(dataset.DataError):
        dataset_file.read(sparse(tmp_path / "data.npz"))
