"""affNIST: the published files, and digits moved about as theirs are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from parity_tests.tests.pipelines.test_sources import RNG, SHARED, pixels, same
from port.data import affnist, dataset, sources


def write_affnist(path: Path, images: np.ndarray, labels, **changed) -> None:
    """A file as the published ones are described: a column an image, row by row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {"image": images.reshape(len(images), -1).T, "label_int": np.array(labels)[None],
              "label_one_of_n": np.eye(10)[labels].T} | changed
    scipy.io.savemat(path, {"affNISTdata": fields})


def test_published_affnist(tmp_path) -> None:
    images, labels = pixels(25, 40, 40), RNG.integers(0, 10, 25)
    write_affnist(tmp_path / "affnist" / "test.mat", images[:1], labels[:1])
    same(sources.load("affnist", tmp_path).test, images[:1, None], labels[:1])
    (tmp_path / "affnist" / "test.mat").unlink()
    for i in range(12):  # 10.mat comes after 9.mat
        part = slice(2 * i, 2 * i + 2)
        write_affnist(tmp_path / "affnist" / "transformed" / "test_batches" / f"{i + 1}.mat",
                      images[part], labels[part])
    write_affnist(tmp_path / "affnist" / "transformed" / "training_batches" / "1.mat", images, labels)
    found = sources.load("affnist", tmp_path)
    assert found.name == "affnist" and len(found.train) == 0
    same(found.test, images[:24, None], labels[:24])


@pytest.mark.parametrize(("change", "words"), [
    ({"image": np.zeros((1599, 3), np.uint8)}, "1599"), ({"label_int": np.array([[1, 2]])}, "label_int"),
    ({"label_int": np.array([[1, 2, 10]])}, "0..9"), ({"image": np.full((1600, 3), -1.0)}, "0..255"),
    (None, "affNISTdata"), (b"MATLAB 7.3", "cannot be read"), (b"", "cannot be read")])
def test_a_file_that_is_no_affnist(tmp_path, change, words) -> None:
    path = tmp_path / "affnist" / "test.mat"
    write_affnist(path, pixels(3, 40, 40), [0, 1, 2], **(change if isinstance(change, dict) else {}))
    if change is None:
        scipy.io.savemat(path, {"other": 1})
    elif isinstance(change, bytes):
        path.write_bytes(change)
    with pytest.raises(dataset.DataError, match=words) as caught:
        sources.load("affnist", tmp_path)
    assert str(path) in str(caught.value)


def test_regeneration_of_the_identity_is_the_padded_digit() -> None:
    digit = np.pad(pixels(28, 28), 6)
    np.testing.assert_array_equal(affnist.warp(digit, np.eye(2), np.zeros(2)), digit)
    moved = affnist.warp(digit, np.eye(2), np.array([3.0, -2.0]))
    np.testing.assert_array_equal(moved, np.roll(digit, (3, -2), (0, 1)))


def test_a_quarter_turn_and_a_shear_turn_rows_and_columns() -> None:
    """Rotation by 90 degrees takes (row, column) to (-column, row); the shear adds to the row."""
    np.testing.assert_allclose(affnist.linear_map(90, 0, 1, 1), [[0, -1], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(affnist.linear_map(0, 0.2, 1.1, 0.9) @ [1.0, 10.0], [1.1 * 3, 9.0])
    digit = np.pad(pixels(28, 28), 6)
    turned = affnist.warp(digit, affnist.linear_map(90, 0, 1, 1), np.zeros(2))
    np.testing.assert_array_equal(turned, np.rot90(digit))


def test_every_foreground_pixel_stays_on_the_canvas() -> None:
    place = RNG.integers(0, 28, (40, 2))
    dots = np.zeros((40, 28, 28), np.uint8)
    dots[np.arange(40), place[:, 0], place[:, 1]] = 255
    images, transforms = affnist.regenerate(dots)
    for image, at, (rotation, shear, down, across, *translation) in zip(images, place, transforms):
        found = affnist.linear_map(rotation, shear, down, across) @ (at + 6 - 19.5) + 19.5 + translation
        assert np.all((found > -1e-9) & (found < 39 + 1e-9))
        nearest = np.rint(found).astype(int)
        assert image[nearest[0], nearest[1]] > 0 and (image > 0).sum() <= 9
    low = np.array([-20, -0.2, 0.8, 0.8, -8, -8])
    high = np.array([20, 0.2, 1.2, 1.2, 8, 8])
    assert np.all((transforms >= low) & (transforms <= high))


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data packs in ../shared/data")
def test_regenerated_digits_are_the_pack_s() -> None:
    digits = sources.load("mnist", SHARED, download=False).test.images[:200, 0].numpy()
    pack = np.load(SHARED / "affnist_like" / "affnist_like_test.npz")
    images, transforms = affnist.regenerate(digits)
    np.testing.assert_array_equal(images, pack["x"][:200])
    np.testing.assert_allclose(transforms, pack["transform"][:200], atol=1e-5)
