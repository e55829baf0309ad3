"""A standard set's name stands for its content: what is not it is called otherwise, in every result."""

from __future__ import annotations

import gzip
import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from parity_tests.goldens import REPOSITORY
from pipelines import prepare, raw
from pipelines.results import paper
from pipelines.support import output, settings
from port.data import dataset as data
from port.data import dataset_file, sources, standard_sets
from port.data import root as data_root

SHARED = Path(os.environ.get("SCAE_DATA") or REPOSITORY.parent / "shared" / "data")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no data packs here")
NAMES = tuple(sources.MNIST_FILES)


def pixels(*shape: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def unpacked(root: Path, spelled=lambda raw, name: raw / name, seed: int = 7) -> Path:
    """Five training and four test pictures under MNIST's file names; the root."""
    arrays = (pixels(5, 28, 28, seed=seed), pixels(5) % 10, pixels(4, 28, 28), pixels(4) % 10)
    for name, array in zip(NAMES, arrays, strict=True):
        path = spelled(root / "MNIST" / "raw", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(idx(array))
    return root


def usps(root: Path, **changed: np.ndarray) -> Path:
    """A small USPS-like pack; the root."""
    steps = np.random.default_rng(3)
    arrays = {f"{part}_{key}": value for part, n in (("train", 30), ("test", 12)) for key, value in (
        ("x", steps.integers(0, 2001, (n, 16, 16), dtype=np.uint16)), ("y", np.arange(n) % 10))}
    (root / "usps").mkdir(parents=True, exist_ok=True)
    np.savez(root / "usps" / "usps.npz", **arrays | changed)
    return root


def test_the_digest_is_of_values_and_shapes() -> None:
    """Type and order in memory do not count; one value, a shape, or what is no whole number does."""
    values = pixels(6, 4)
    same = [values.astype(kind) for kind in ("u1", "<u2", ">i4", "i8")] + [np.asfortranarray(values)]
    assert len({standard_sets.digest(each) for each in same}) == 1
    changed = values.copy()
    changed[3, 1] ^= 1
    other = [values, changed, values.reshape(4, 6), values.astype("f4"), values.astype("i8") - 300,
             values.astype("i8") + 2**16, values[:0]]
    assert len({standard_sets.digest(each) for each in other}) == len(other)
    assert standard_sets.digest(values, values[:0]) != standard_sets.digest(values[:0], values)


def dotted(name: str) -> str:
    return name.replace("-idx", ".idx")


SPELLINGS = {"plain": lambda raw, name: raw / name, "a dot": lambda raw, name: raw / dotted(name),
             "a folder for each": lambda raw, name: raw / name / name,
             "both": lambda raw, name: raw / dotted(name) / dotted(name)}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_lies_under_mnist_s_file_names_is_looked_at(tmp_path, monkeypatch, spelling) -> None:
    """However an archive unpacks; the very content is MNIST, another is not."""
    found = sources.load("mnist", unpacked(tmp_path, SPELLINGS[spelling]), download=False)
    assert found.name.startswith("mnist_other_") and len(found.train) == 5
    own = standard_sets.digest(*sources.arrays_of(found.train), *sources.arrays_of(found.test))
    assert found.name.endswith(own[:8])
    monkeypatch.setitem(standard_sets.KNOWN, "mnist", own)
    assert sources.load("mnist", tmp_path, download=False).name == "mnist"
    unpacked(tmp_path, SPELLINGS[spelling], seed=8)
    assert sources.load("mnist", tmp_path, download=False).name.startswith("mnist_other_")


def test_an_empty_folder_in_a_file_s_place_is_no_file(tmp_path) -> None:
    for name in NAMES:
        (tmp_path / "MNIST" / "raw" / name).mkdir(parents=True)
    with pytest.raises(data.DataError, match="MNIST is not there"):
        sources.load("mnist", tmp_path, download=False)


def test_what_is_made_from_another_set_is_called_so(tmp_path) -> None:
    assert sources.load("affnist_like", unpacked(tmp_path), download=False).name.startswith(
        "affnist_like_other_")


def test_the_packs_are_looked_at(tmp_path) -> None:
    assert sources.load("usps", usps(tmp_path), download=False).name.startswith("usps_other_")
    photos = np.repeat(np.arange(4), 3)
    (tmp_path / "svhn_head").mkdir()
    np.savez(tmp_path / "svhn_head" / "svhn_train_first1083.npz", x=pixels(12, 32, 32, 3), y=photos,
             photo=photos)
    assert sources.load("svhn_head", tmp_path, download=False).name.startswith("svhn_head_other_")


@needs_shared
@pytest.mark.parametrize("source", ["usps", "svhn_head", "affnist_like"])
def test_the_published_sets_keep_their_names(source) -> None:
    assert sources.load(source, SHARED, download=False).name == source


@needs_shared
def test_mnist_unpacked_keeps_its_name(tmp_path) -> None:
    """The real files without their md5; a test image less is another set."""
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(gzip.decompress((SHARED / "MNIST" / "raw" / f"{name}.gz").read_bytes()))
    assert sources.load("mnist", tmp_path, download=False).name == "mnist"
    labels = bytearray((folder / NAMES[1]).read_bytes())
    labels[-1] = (labels[-1] + 1) % 10
    (folder / NAMES[1]).write_bytes(labels)
    assert sources.load("mnist", tmp_path, download=False).name.startswith("mnist_other_")


def test_no_figure_of_a_paper_is_held_beside_another_set() -> None:
    for preset, name in (("", "mnist"), ("mnist28_paper", "mnist"), ("em_mnist", "mnist")):
        for measure in ("posterior_kmeans", "accuracy"):
            assert paper.figure(f"{name}_other_12345678", measure, preset) is None
    assert paper.obstacle_to("affnist", 5, 10, 10, [], "mnist_other_12345678")
    assert not paper.obstacle_to("affnist", 5, 10, 10, [], "mnist")


def preset(root: Path, **section) -> settings.Preset:
    found = settings.load_preset("usps", path=REPOSITORY / "params.yaml")
    found.sections["prepare"].update({"data_root": str(root), "download": False} | section)
    return found


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path_factory) -> None:
    monkeypatch.delenv("SCAE_DATA", raising=False)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def test_changed_raw_files_are_prepared_again(tmp_path, capsys) -> None:
    """The same settings, other files; where the files are gone, what was prepared stands."""
    wanted = preset(usps(tmp_path / "data"))
    first = prepare.dataset_for(wanted, tmp_path)
    assert "which is called usps_other_" in capsys.readouterr().out
    before = (tmp_path / "prepare" / "usps" / "data.npz").stat().st_mtime_ns
    assert len(prepare.dataset_for(wanted, tmp_path).train) == 30
    assert (tmp_path / "prepare" / "usps" / "data.npz").stat().st_mtime_ns == before
    held = np.load(tmp_path / "data" / "usps" / "usps.npz")
    usps(tmp_path / "data", train_x=held["train_x"][:10], train_y=held["train_y"][:10])
    again = prepare.dataset_for(wanted, tmp_path)
    assert len(again.train) == 10 and again.name != first.name
    assert standard_sets.digest_of(again) != standard_sets.digest_of(first)
    told = json.loads((tmp_path / "prepare" / "usps" / "metrics.json").read_text())
    assert told["name"] == again.name and told["sha256"] == standard_sets.digest_of(again)
    (tmp_path / "data" / "usps" / "usps.npz").unlink()
    assert len(prepare.dataset_for(wanted, tmp_path).train) == 10
    assert not list(tmp_path.rglob("*.lock"))


def test_prepared_data_are_those_of_their_record(tmp_path, capsys) -> None:
    """Another data.npz beside the metrics is prepared anew; without a record it is taken."""
    wanted = preset(usps(tmp_path / "data"))
    good = prepare.dataset_for(wanted, tmp_path)
    folder = tmp_path / "prepare" / "usps"
    swapped = data.Dataset(good.name, good.test, good.train)
    dataset_file.save(swapped, folder / "data.npz")
    assert len(prepare.dataset_for(wanted, tmp_path).train) == 30
    told = json.loads((folder / "metrics.json").read_text())
    output.write_json(folder / "metrics.json", {key: told[key] for key in told if "sha256" not in key})
    dataset_file.save(swapped, folder / "data.npz")
    assert len(prepare.dataset_for(wanted, tmp_path).train) == 12


def test_the_raw_stage_records_files_and_keeps_its_record(tmp_path) -> None:
    """A changed file changes the record, a missing one does not; none and no record is bad input."""
    wanted = preset(usps(tmp_path / "data"))
    path = raw.run(wanted, tmp_path)
    record = json.loads(path.read_text())
    assert path == tmp_path / "raw" / "usps" / "files.json" and list(record["files"]) == ["usps/usps.npz"]
    usps(tmp_path / "data", train_y=np.zeros(30, int))
    assert json.loads(raw.run(wanted, tmp_path).read_text()) != record
    record = path.read_text()
    (tmp_path / "data" / "usps" / "usps.npz").unlink()
    assert raw.run(wanted, tmp_path).read_text() == record
    path.unlink()
    with pytest.raises(data.DataError, match="USPS is not there"):
        raw.run(wanted, tmp_path)
    assert not path.exists()
    digits = settings.load_preset("digits", path=REPOSITORY / "params.yaml")
    assert json.loads(raw.run(digits, tmp_path).read_text())["files"] == {}


def test_what_counts_as_raw_files(tmp_path) -> None:
    """All below a source's places, whose names may look like patterns; hidden files are no data."""
    root = unpacked(tmp_path / "data[1]")
    before = data_root.digest("mnist", root)
    assert len(data_root.files_of("mnist", root)) == 4 and before
    (root / "MNIST" / "raw" / ".DS_Store").touch()
    (tmp_path / "data1").mkdir()
    assert data_root.digest("mnist", root) == before
    assert data_root.digest("digits", root) is None is data_root.digest("mnist", tmp_path / "data1")
    own = tmp_path / "own.npz"
    own.write_bytes(b"1")
    first = data_root.digest("any", root, {"path": str(own), "size": 3})
    own.write_bytes(b"2")
    assert first and first != data_root.digest("any", root, {"path": str(own), "size": 3})


def test_every_source_says_which_files_are_its_own() -> None:
    """But scikit-learn's, which has none, and those that are told a path among their options."""
    told = {name for name, load in sources.SOURCES.items()
            if {"path", "folder", "file"} & set(inspect.signature(load).parameters)}
    assert set(sources.SOURCES) - set(data_root.FILES) - told == {"digits"}
    assert set(data_root.FILES) <= set(sources.SOURCES)


def test_the_digest_of_a_data_set_is_of_all_it_holds() -> None:
    def dataset(**changed) -> data.Dataset:
        given = {"train": pixels(5, 4, 4), "test": pixels(3, 4, 4), "classes": 10} | changed
        parts = (data.split_of(given[name], np.arange(len(given[name]))) for name in ("train", "test"))
        return data.Dataset("any", *parts, given["classes"])
    digests = {standard_sets.digest_of(dataset(**changed)) for changed in (
        {}, {"classes": 11}, {"test": pixels(3, 4, 4, seed=1)}, {"train": pixels(4, 4, 4)})}
    assert len(digests) == 4
    assert standard_sets.digest_of(dataset()) == standard_sets.digest_of(dataset().to(torch.device("cpu")))
