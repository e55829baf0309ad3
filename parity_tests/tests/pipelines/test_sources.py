"""Where images come from: every source on files written here, and every way a file can be wrong."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from parity_tests.goldens import REPOSITORY
from port.data import affnist, dataset, dataset_file, sources

RNG = np.random.default_rng(7)
SHARED = REPOSITORY.parent / "shared" / "data"


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def write(path: Path, content: bytes) -> str:
    """Write a file; its md5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return md5(content)


def same(split: dataset.Split, images: np.ndarray, labels) -> None:
    np.testing.assert_array_equal(split.images.numpy(), images)
    np.testing.assert_array_equal(split.labels.numpy(), labels)


def idx(array: np.ndarray) -> bytes:
    """An IDX file: magic, sizes, bytes."""
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Five training and four test digits as idx files, with their md5s as the known ones."""
    arrays = {"train-images-idx3-ubyte": pixels(5, 28, 28), "train-labels-idx1-ubyte": pixels(5) % 10,
              "t10k-images-idx3-ubyte": pixels(4, 28, 28), "t10k-labels-idx1-ubyte": pixels(4) % 10}
    for name, array in arrays.items():
        digest = write(tmp_path / "MNIST" / "raw" / f"{name}.gz", gzip.compress(idx(array)))
        monkeypatch.setitem(sources.MNIST_FILES, name, digest)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
def test_mnist(mnist, tmp_path, zipped) -> None:
    if not zipped:
        for path in (tmp_path / "MNIST" / "raw").glob("*.gz"):
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    found = sources.load("mnist", tmp_path, download=False)
    train, test = (tuple(mnist.values())[i:i + 2] for i in (0, 2))
    same(found.train, train[0][:, None], train[1])
    same(found.test, test[0][:, None], test[1])
    assert (found.name == "mnist") == zipped  # unpacked, only the content tells, and this is not MNIST's
    assert found.name.startswith("mnist") and found.n_classes == 10


def test_the_data_root_comes_from_the_variable(mnist, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SCAE_DATA", str(tmp_path))
    assert len(sources.load("mnist", download=False).train) == 5


@pytest.mark.parametrize(("name", "content", "words"), [
    ("train-images-idx3-ubyte.gz", b"no gzip", "damaged"),
    ("t10k-labels-idx1-ubyte.gz", b"", "damaged"),
    ("train-labels-idx1-ubyte", idx(np.zeros(5, np.uint8))[:-1], "cut off"),
    ("train-labels-idx1-ubyte", b"", "cut off"),
    ("train-labels-idx1-ubyte", b"\0\0\x0d\x01\0\0\0\0", "cut off"),
    ("train-labels-idx1-ubyte", idx(np.full(5, 11, np.uint8)), "0..9"),
    ("train-labels-idx1-ubyte", idx(np.zeros(4, np.uint8)), "5 images"),
])
def test_mnist_damaged(mnist, tmp_path, name, content, words) -> None:
    folder = tmp_path / "MNIST" / "raw"
    (folder / f"{name.removesuffix('.gz')}.gz").unlink()
    write(folder / name, content)
    with pytest.raises(dataset.DataError, match=words):
        sources.load("mnist", tmp_path, download=False)


def usps_lines(images: np.ndarray, labels: np.ndarray) -> bytes:
    """libsvm's text: label 1..10, then index:value with values in [-1, 1]."""
    rows = [f"{label + 1} " + " ".join(f"{i + 1}:{value:.4f}" for i, value in enumerate(row))
            for label, row in zip(labels, images.reshape(len(images), -1) / 1000 - 1)]
    return bz2.compress(("\n".join(rows) + "\n").encode())


def test_usps_pack_and_original_files_give_the_same_pixels(tmp_path, monkeypatch) -> None:
    steps = {part: RNG.integers(0, 2001, (n, 16, 16), dtype=np.uint16)
             for part, n in (("train", 6), ("test", 3))}
    labels = {part: RNG.integers(0, 10, len(steps[part])) for part in steps}
    known = {}
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        digest = write(tmp_path / "bz2" / "usps" / name, usps_lines(steps[part], labels[part]))
        known[part] = ["https://nowhere.invalid", name, digest]
    monkeypatch.setattr(datasets.USPS, "split_list", known)
    (tmp_path / "npz" / "usps").mkdir(parents=True)
    np.savez(tmp_path / "npz" / "usps" / "usps.npz", **{
        f"{part}_{key}": value[part] for part in steps for key, value in (("x", steps), ("y", labels))})
    found = [sources.load("usps", tmp_path / kind, download=False) for kind in ("bz2", "npz")]
    for one in found:
        for part in ("train", "test"):
            expected = np.floor(steps[part] / 2000 * 255)
            ours = getattr(one, part).images.numpy()[:, 0].astype(float)
            assert np.abs(ours - expected).max() <= 1  # float32 may fall below a whole number
            np.testing.assert_array_equal(getattr(one, part).labels.numpy(), labels[part])
    assert torch.equal(found[0].train.images, found[1].train.images)


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    """Three training and two test crops as .mat files; 10 is the digit 0."""
    known, made = {}, {}
    for part, labels in (("train", [10, 1, 9]), ("test", [10, 2])):
        made[part] = pixels(32, 32, 3, len(labels)), [label % 10 for label in labels]
        path = tmp_path / "svhn" / f"{part}_32x32.mat"
        path.parent.mkdir(exist_ok=True)
        scipy.io.savemat(path, {"X": made[part][0], "y": np.array(labels)[:, None]})
        known[part] = ["https://nowhere.invalid", path.name, md5(path.read_bytes())]
    monkeypatch.setattr(datasets.SVHN, "split_list", known)
    return made


@pytest.mark.parametrize("at_the_root", [False, True])
def test_svhn(svhn, tmp_path, at_the_root) -> None:
    if at_the_root:
        for path in list((tmp_path / "svhn").iterdir()):
            path.rename(tmp_path / path.name)
    found = sources.load("svhn", tmp_path, download=False)
    for part in ("train", "test"):
        same(getattr(found, part), svhn[part][0].transpose(3, 2, 0, 1), svhn[part][1])


def test_svhn_damaged(svhn, tmp_path) -> None:
    with open(tmp_path / "svhn" / "test_32x32.mat", "ab") as file:
        file.write(b"x")
    with pytest.raises(dataset.DataError, match="test_32x32.mat is damaged.*delete it"):
        sources.load("svhn", tmp_path, download=True)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Five training batches and a test batch of two images each, and the names of the classes."""
    folder, made = tmp_path / "cifar10" / "cifar-10-batches-py", {}
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    listed = []
    for name in names:
        made[name] = pixels(2, 3, 32, 32), [int(label) for label in RNG.integers(0, 10, 2)]
        content = pickle.dumps({"data": made[name][0].reshape(2, -1), "labels": made[name][1]}, 2)
        listed.append([name, write(folder / name, content)])
    meta = write(folder / "batches.meta", pickle.dumps({"label_names": list("abcdefghij")}, 2))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", listed[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", listed[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names",
                                                   "md5": meta})
    return made


def test_cifar10(cifar, tmp_path) -> None:
    found = sources.load("cifar10", tmp_path, download=False)
    batches = list(cifar.values())
    same(found.train, np.concatenate([b[0] for b in batches[:5]]), sum((b[1] for b in batches[:5]), []))
    same(found.test, *batches[5])
    (tmp_path / "cifar10" / "cifar-10-batches-py").rename(tmp_path / "cifar-10-batches-py")
    assert len(sources.load("cifar10", tmp_path, download=False).train) == 10


def test_cifar10_damaged_or_packed(cifar, tmp_path) -> None:
    batch = tmp_path / "cifar10" / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(dataset.DataError, match="data_batch_3 is damaged"):
        sources.load("cifar10", tmp_path)
    batch.parent.rename(tmp_path / "elsewhere")
    write(tmp_path / "cifar10" / "unpack_cifar10.py", b"")
    with pytest.raises(dataset.DataError, match="packed: run `python .*unpack_cifar10.py " + str(tmp_path)):
        sources.load("cifar10", tmp_path)


def test_svhn_head_is_split_by_photograph_and_never_called_svhn(tmp_path) -> None:
    path = tmp_path / "svhn_head" / "svhn_train_first1083.npz"
    path.parent.mkdir()
    photo = np.repeat(np.arange(20), 3)
    np.savez(path, x=np.repeat(photo, 32 * 32 * 3).reshape(60, 32, 32, 3).astype(np.uint8),
             y=np.arange(60) % 10, photo=photo)
    found = sources.load("svhn_head", tmp_path)
    assert found.name.startswith("svhn_head") and found.train.images.shape[1:] == (3, 32, 32)
    photos = [set(split.images[:, 0, 0, 0].tolist()) for split in (found.train, found.test)]
    assert photos[0] and photos[1] and not photos[0] & photos[1]
    half, other = (sources.load("svhn_head", tmp_path, **options).test
                   for options in ({"test_share": 0.5}, {"split_seed": 1}))
    assert (len(found.test), len(half), len(other)) == (15, 30, 15) and not torch.equal(other.images, found.test.images)


# --------------------------------------------------------------------------------------- affNIST

def test_without_files_affnist_is_regenerated_and_says_so(mnist, tmp_path) -> None:
    found = sources.load("affnist", tmp_path, download=False)
    images, transforms = affnist.regenerate(mnist["t10k-images-idx3-ubyte"])
    assert found.name == "affnist_like" and transforms.shape == (4, 6)
    same(found.test, images[:, None], mnist["t10k-labels-idx1-ubyte"])


# ------------------------------------------------------------------------------ missing, unreachable

WHERE = {"mnist": "MNIST/raw", "usps": "usps", "svhn": "svhn", "svhn_head": "svhn_head",
         "cifar10": "cifar10", "affnist": "MNIST/raw", "affnist_like": "MNIST/raw",
         "smallnorb": "smallnorb"}


# Own images (folder, npz) name a path of their own.
@pytest.mark.parametrize("source", sorted(set(sources.SOURCES) - {"digits", "folder", "npz"}))
def test_missing_says_what_to_put_where(source, tmp_path) -> None:
    with pytest.raises(dataset.DataError) as caught:
        sources.load(source, tmp_path, download=False)
    message = str(caught.value)
    assert "put " in message and str(tmp_path / WHERE[source]) in message and "SCAE_DATA" in message
    assert "\n" not in message


@pytest.mark.parametrize("source", ["mnist", "usps", "svhn", "cifar10"])
def test_no_network_is_one_clear_error(source, tmp_path, monkeypatch) -> None:
    """torchvision is asked, its failure is told, and what to put where comes with it."""
    import urllib.request

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(dataset.DataError, match="put .*fetching it failed: ") as caught:
        sources.load(source, tmp_path, download=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"text"])
def test_a_damaged_npz(tmp_path, content) -> None:
    write(tmp_path / "usps" / "usps.npz", content)
    with pytest.raises(dataset.DataError, match="usps.npz is damaged"):
        sources.load("usps", tmp_path)


def test_an_npz_without_its_arrays(tmp_path) -> None:
    (tmp_path / "usps").mkdir()
    np.savez(tmp_path / "usps" / "usps.npz", train_x=np.zeros(3))
    with pytest.raises(dataset.DataError, match="lacks an array.*train_y"):
        sources.load("usps", tmp_path)


def test_an_unknown_source_names_those_there_are(tmp_path) -> None:
    with pytest.raises(dataset.DataError, match="mnist2.*usps"):
        sources.load("mnist2", tmp_path)


def test_a_damaged_prepared_file(tmp_path) -> None:
    for content in (b"", b"text", b"PK\x03\x04"):
        write(tmp_path / "data.npz", content)
        with pytest.raises(dataset.DataError, match="prepare"):
            dataset_file.read(tmp_path / "data.npz")


# --------------------------------------------------------------------------------------- the packs

COUNTS = {"mnist": (60_000, 10_000), "usps": (7291, 2007), "affnist": (0, 10_000)}


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the data packs in ../shared/data")
@pytest.mark.parametrize("source", COUNTS)
def test_packs(source) -> None:
    found = sources.load(source, SHARED, download=False)
    assert (len(found.train), len(found.test)) == COUNTS[source]
