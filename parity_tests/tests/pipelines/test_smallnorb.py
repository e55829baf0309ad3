"""smallNORB's binary files, written here in small: read, refused, shrunk, cropped."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from port.data import augment, smallnorb, sources
from port.data.dataset import DataError

MAGIC = {np.dtype("u1"): 0x1E3D4C55, np.dtype("<i4"): 0x1E3D4C54}


def write(path: Path, values: np.ndarray) -> None:
    """A file as the data set's page describes it."""
    sizes = [*values.shape, *[1] * (3 - values.ndim)]
    path.write_bytes(struct.pack(f"<Ii{len(sizes)}i", MAGIC[values.dtype], values.ndim, *sizes)
                     + values.tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with six training and four test pairs."""
    (tmp_path / "smallnorb").mkdir()
    rng = np.random.default_rng(0)
    for part, n in (("train", 6), ("test", 4)):
        stem = tmp_path / "smallnorb" / smallnorb.STEMS[part]
        write(Path(f"{stem}-dat.mat"), rng.integers(0, 256, (n, 2, 96, 96)).astype("u1"))
        write(Path(f"{stem}-cat.mat"), (np.arange(n) % 5).astype("<i4"))
        write(Path(f"{stem}-info.mat"), rng.integers(0, 9, (n, 4)).astype("<i4"))
    return tmp_path


def test_load(root: Path) -> None:
    """Sizes, labels, and pixels averaged in blocks of 2 × 2."""
    found = sources.load("smallnorb", root, download=False)
    assert found.n_classes == 5 and len(found.test) == 4
    assert found.train.images.shape == (6, 2, 48, 48) and found.train.images.dtype == torch.uint8
    assert found.train.labels.tolist() == [0, 1, 2, 3, 4, 0]
    full, info = smallnorb.read_part(root / "smallnorb", "train", 96)
    corner = full.images[3, 1, :2, :2].double().mean()
    assert int(found.train.images[3, 1, 0, 0]) == int(np.floor(float(corner) + 0.5))
    assert info.shape == (6, 4)


def test_compressed(root: Path) -> None:
    """A `.gz` in the place of a file reads the same."""
    path = root / "smallnorb" / f"{smallnorb.STEMS['test']}-dat.mat"
    before = sources.load("smallnorb", root).test.images
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert torch.equal(sources.load("smallnorb", root).test.images, before)
    path.with_name(path.name + ".gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        sources.load("smallnorb", root)


def test_missing(tmp_path: Path) -> None:
    """Nothing there: which files, and where to."""
    with pytest.raises(DataError, match=r"put smallnorb-5x46789x9x18x6x2x96x96-training-.*smallnorb; the"):
        sources.load("smallnorb", tmp_path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda path: path.unlink(), "is not there: put it into"),
    (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is cut off or damaged"),
    (lambda path: path.write_bytes(path.read_bytes()[:10]), "is cut off or damaged"),
    (lambda path: path.write_bytes(b""), "begins with nothing"),
    (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file"), "is no smallNORB file"),
    (lambda path: write(path, np.zeros((6, 2, 96, 90), "u1")), "not pairs of square byte pictures"),
    (lambda path: write(path, np.zeros((5, 2, 96, 96), "u1")), "do not belong together: 5 pictures")])
def test_damaged(root: Path, change, message: str) -> None:
    """Every way a file can be wrong is one line that names it."""
    change(root / "smallnorb" / f"{smallnorb.STEMS['train']}-dat.mat")
    with pytest.raises(DataError, match=message):
        sources.load("smallnorb", root)


def test_wrong_category_and_size(root: Path) -> None:
    """A category beyond the five, a size that does not divide 96."""
    with pytest.raises(DataError, match="size 50 does not divide pictures of 96 pixels"):
        sources.load("smallnorb", root, size=50)
    write(root / "smallnorb" / f"{smallnorb.STEMS['train']}-cat.mat", np.full(6, 5, "<i4"))
    with pytest.raises(DataError, match="categories 5 to 5; there are 5"):
        sources.load("smallnorb", root)


def test_augment() -> None:
    """Crops are pieces of the picture; with neither brightness nor contrast they are unchanged."""
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(3 * 2 * 12 * 12.0).reshape(3, 2, 12, 12) / 1000
    found = augment.jitter(augment.crop(image, 8, generator), generator, 0.0, (1.0, 1.0))
    for example, crop in zip(image, found):
        pieces = example.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert (pieces - crop).abs().amax((1, 2, 3)).min() < 1e-6
    generator.manual_seed(0)
    changed = augment.jitter(augment.crop(image, 8, generator), generator, 32 / 255, (0.5, 1.5))
    assert changed.shape == found.shape and not torch.allclose(changed, found)
    mean = changed.mean((2, 3)) - found.mean((2, 3))
    assert (mean.abs() <= 32 / 255 + 1e-6).all()
    assert torch.equal(augment.crop(image, 8, None), image[..., 2:10, 2:10])


def test_a_part_is_taken_anywhere() -> None:
    """Every row and column that a part can begin at, the first and the last too."""
    image = torch.arange(16.0).reshape(1, 1, 4, 4).repeat(500, 1, 1, 1)
    corners = augment.crop(image, 2, torch.Generator().manual_seed(0))[:, 0, 0, 0]
    assert set(corners.tolist()) == {0, 1, 2, 4, 5, 6, 8, 9, 10}


def test_brightness_and_contrast_are_drawn_in_their_ranges() -> None:
    """Darker and brighter alike; the contrast turns about each picture's own mean."""
    image, generator = torch.rand(2000, 1, 4, 4), torch.Generator().manual_seed(0)
    changed = augment.jitter(image, generator, 0.2, (0.5, 1.5))
    shift = (changed - image).mean((1, 2, 3))
    assert shift.min() == pytest.approx(-0.2, abs=0.01) and shift.max() == pytest.approx(0.2, abs=0.01)
    contrast = changed.std((1, 2, 3)) / image.std((1, 2, 3))
    assert contrast.min() == pytest.approx(0.5, abs=0.01) and contrast.max() == pytest.approx(1.5, abs=0.01)
    for one in (shift, contrast - 1):
        assert abs(float(one.mean())) < 0.02
