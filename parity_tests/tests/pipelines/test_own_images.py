"""Own images as a data source: what is found, what is refused, and a run through every stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import port
from parity_tests.device.repeat import CAPSNET, EM
from parity_tests.harness import runs
from pipelines import cli, prepare, raw
from pipelines.support import boundary, console, fit_images, settings
from port.data import dataset_file, sources

Image = pytest.importorskip("PIL.Image")
OPEN = {key: value for key, value in runs.TINY.items()
        if key not in ("canvas_size", "n_channels", "strides")}
PARAMS = {"train": {"steps": 2, "batch_size": 4, "held_out_every": 2, "device": "cpu", "threads": 1},
          "evaluate": {"bootstrap_draws": 20, "tsne_images": 6, "n_pictures": 2, "device": "cpu"},
          "report": {"preset": "mine", "seed": 0, "title": "Mine"}}


def picture(path: Path, seed: int, side: int | tuple[int, int] = 14, mode: str = "L") -> None:
    """A square on black whose brightness tells pictures apart."""
    height, width = (side, side) if isinstance(side, int) else side
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.zeros(shape, np.uint8)
    pixels[2:8, 2 + seed % 4:9 + seed % 4] = 60 + seed % 190
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def folder(at: Path, parts: tuple[str, ...] = ("",), classes: tuple[str, ...] = ("ant", "bee"), n: int = 4,
           **kind) -> Path:
    """Pictures below `at`, n of each class in each part."""
    for part in parts:
        for c, name in enumerate(classes):
            for i in range(n):
                picture(at / part / name / f"{i}.png", 31 * c + 7 * i + 3 * len(part), **kind)
    return at


def params(at: Path, prepared: dict, keys: dict = OPEN, **model) -> list[str]:
    """A params file with one preset, as options of the command line."""
    path = at / "params.yaml"
    preset = {"prepare": prepared, "model": keys | model}
    path.write_text(json.dumps(PARAMS | {"presets": {"mine": preset}}))
    return ["--preset", "mine", "--params", str(path), "--results", str(at / "results")]


# ------------------------------------------------------------------------------------ what is found

FOUND: dict[str, tuple[Callable[[Path], Path], dict, tuple]] = {
    # words → what lies there, settings, (channels, side, classes, training images, test images)
    "parts and classes": (lambda at: folder(at, ("train", "test")), {}, (1, 14, ("ant", "bee"), 8, 8)),
    "classes alone": (folder, {}, (1, 14, ("ant", "bee"), 6, 2)),
    "another share": (folder, {"options": {"test_share": 0.5}}, (1, 14, ("ant", "bee"), 4, 4)),
    "no classes": (lambda at: folder(at, classes=("",)), {}, (1, 14, (), 3, 1)),
    "parts without classes": (lambda at: folder(at, ("train", "test"), ("",), 2), {}, (1, 14, (), 2, 2)),
    "one in colour": (lambda at: [folder(at), picture(at / "bee" / "z.png", 9, mode="RGB")][0], {},
                      (3, 14, ("ant", "bee"), 7, 2)),
    "made smaller": (lambda at: [folder(at), picture(at / "bee" / "z.png", 9, (20, 30))][0], {"size": 12},
                     (1, 12, ("ant", "bee"), 7, 2)),
    "tiny": (lambda at: folder(at, side=9), {}, (1, 9, ("ant", "bee"), 6, 2)),
}


@pytest.mark.parametrize("words", FOUND)
def test_found(words: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make, given, (channels, side, classes, n_train, n_test) = FOUND[words]
    place = make(tmp_path / "My Pictures")
    (place / ".DS_Store").write_bytes(b"\0")
    (place / "README").write_text("not a picture")
    options = params(tmp_path, {"source": "folder", "path": str(place)} | given)
    made = settings.load_preset("mine", path=options[3])
    config, wanted = made.config(), made.prepare()
    dataset = prepare.load(wanted)
    assert dataset.name == "own_My_Pictures" and dataset.classes == classes
    assert dataset.train.images.shape == (n_train, channels, side, side)
    assert len(dataset.test) == n_test
    assert (config.channels, config.canvas) == (channels, max(side, fit_images.SMALLEST))
    if classes:
        assert config.autoencoder.n_classes == len(classes) and config.autoencoder.probe
        assert dataset.test.labels.bincount().tolist() == [n_test // 2] * 2
    else:
        assert not config.autoencoder.probe and not dataset.train.labelled
    said = capsys.readouterr().out
    assert ("images are held out" in said) == ("parts" not in words)
    assert "1 file(s) of another kind" in said and "README" in said
    again = prepare.load(wanted)
    assert torch.equal(again.test.images, dataset.test.images)
    port.build(config)


ARRAYS = {  # words → arrays, (shape of a training image, classes, notes)
    "as prepared": ({"train_x": (6, 9, 9), "train_y": [0, 1, 2] * 2, "test_x": (3, 9, 9),
                     "test_y": [0, 1, 2]}, (1, 9, 9), ("0", "1", "2")),
    "Keras": ({"x_train": (4, 9, 9, 3), "y_train": [[1], [0]] * 2, "x_test": (2, 9, 9, 3),
               "y_test": [[0], [1]]}, (3, 9, 9), ("0", "1")),
    "labels from 1": ({"images": (8, 1, 9, 9), "labels": [1, 2, 4, 4] * 2}, (1, 9, 9), ("1", "2", "4")),
    "words": ({"images": (8, 2, 9, 9), "labels": ["cat", "ant"] * 4}, (2, 9, 9), ("ant", "cat")),
    "no labels": ({"x": (8, 9, 9)}, (1, 9, 9), ()),
}


@pytest.mark.parametrize("words", ARRAYS)
def test_arrays(words: str, tmp_path: Path) -> None:
    given, shape, classes = ARRAYS[words]
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", **{
        name: rng.integers(0, 256, value, np.uint8) if isinstance(value, tuple) else np.array(value)
        for name, value in given.items()})
    dataset = sources.load("npz", tmp_path, path="mine.npz")
    assert dataset.train.images.shape[1:] == shape and dataset.classes == classes
    assert dataset.n_classes == len(classes)
    facts = fit_images.facts("npz", tmp_path / "mine.npz")
    assert facts == fit_images.Facts(shape[0], 9, len(classes), len(dataset.test))
    # What prepare writes is read back with names and without labels.
    dataset_file.save(dataset, tmp_path / "data.npz")
    again = dataset_file.read(tmp_path / "data.npz")
    assert again.classes == classes and torch.equal(again.train.labels, dataset.train.labels)


# ---------------------------------------------------------------------------------- what is refused

def _broken(at: Path) -> Path:
    folder(at)
    (at / "bee" / "0.png").write_bytes((at / "bee" / "1.png").read_bytes()[:60])
    return at


def _npz(**arrays) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        np.savez(at.with_suffix(".npz"), **arrays)
        return at.with_suffix(".npz")
    return make


BYTES = np.zeros((4, 9, 9), np.uint8)
REFUSED: dict[str, tuple[Callable[[Path], Path], dict, str]] = {
    "nothing there": (lambda at: at, {}, "not there"),
    "empty": (lambda at: [at.mkdir(), at][1], {}, "no picture .png"),
    "a class without pictures": (lambda at: [folder(at), (at / "cow").mkdir()][0], {}, "no picture .png"),
    "pictures beside classes": (lambda at: [folder(at), picture(at / "x.png", 1)][0], {}, "x.png) beside"),
    "names that are spelled alike": (lambda at: folder(at, classes=("a\x01", r"a\x01", "bee")), {},
                                     r"same name, a\x01, once"),
    "several sizes": (lambda at: [folder(at), picture(at / "bee" / "z.png", 1, 20)][0], {}, "prepare.size"),
    "parts of other names": (lambda at: folder(at, classes=("train", "val")), {}, "are parts, not classes"),
    "a size that is none": (folder, {"size": 2}, "from 4 to 1024"),
    "a damaged picture": (_broken, {}, "0.png: cannot be read"),
    "a class only tested": (lambda at: [folder(at, ("train", "test")),
                                        picture(at / "test" / "cow" / "1.png", 1)][0],
                            {}, "no training images of class cow"),
    "one of a class": (lambda at: folder(at, n=1), {}, "a single image"),
    "a share that is none": (folder, {"options": {"test_share": 1.5}}, "between 0 and 1"),
    "an unknown option": (folder, {"options": {"test_shares": 0.5}}, "unknown option 'test_shares'"),
    "a folder for an npz": (folder, {"source": "npz"}, "cannot be read"),
    "unknown arrays": (_npz(a=BYTES), {"source": "npz"}, "holds a; name the arrays train_x"),
    "labels of one part": (_npz(train_x=BYTES, test_x=BYTES, train_y=[0, 1, 0, 1]), {"source": "npz"},
                           "of one part alone"),
    "labels with a point": (_npz(x=BYTES, y=[0.0, 1.0, 0.5, 1.0]), {"source": "npz"}, "whole number"),
    "one-hot": (_npz(x=BYTES, y=np.eye(4, dtype=int)), {"source": "npz"}, "whole number"),
    "channels at both ends": (_npz(x=np.zeros((4, 3, 9, 3), np.uint8)), {"source": "npz"}, "[4, 3, 9, 3]"),
    "an array of objects": (_npz(x=np.array([{}], object)), {"source": "npz"}, "cannot be read"),
    "a place and another source": (folder, {"source": "digits"}, "source digits takes none"),
    "no place": (folder, {"path": None}, "prepare.path"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_refused(words: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make, given, says = REFUSED[words]
    place = make(tmp_path / "mine")
    fit = {"canvas_size": 20, "n_channels": 1, "strides": [2, 2]}
    options = params(tmp_path, {"source": "folder", "path": str(place)} | given,
                     **(fit if given.get("source") == "digits" else {}))
    assert prepare.main(options) == console.BAD_INPUT
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1, error
    assert not (tmp_path / "results").exists()


def test_a_classifier_needs_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    place = folder(tmp_path / "mine", classes=("",))
    words = ["train", "--data", str(place), "--model", "capsnet", "--results", str(tmp_path / "r")]
    assert cli.main(words) == 2
    assert "a classifier needs labels" in capsys.readouterr().err


# -------------------------------------------------------------------------------- through every stage

@pytest.mark.parametrize("classes", [("ant", "bee"), ("",), ("ant", "\udcff")],
                         ids=["with classes", "without classes", "names that are no UTF-8"])
def test_every_stage(classes: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture,
                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labelled = classes != ("",)
    folder(tmp_path / "mine", classes=classes, n=6)
    if "\udcff" in classes:
        (tmp_path / "mine" / "ant" / "0.png").rename(tmp_path / "mine" / "ant" / "\udcfe.png")
    options = params(tmp_path, {"source": "folder", "path": "mine"})
    preset, results = options[:4], tmp_path / "results"
    assert prepare.main(options) == 0 and raw.main(options) == 0
    listed = json.loads((results / "raw" / "mine" / "files.json").read_text())["files"]
    assert len(listed) == (12 if labelled else 6)
    for command in (["train"], ["evaluate"], ["reconstruct", "--images", "2"], ["aggregate"]):
        assert cli.main([*command, *options]) == 0, capsys.readouterr().err
    run = str(results / "train" / "mine" / "0")
    assert cli.main(["report", *preset[2:], "--results", str(results)]) == 0
    assert cli.main(["report", run, "--results", str(results)]) == 0
    measured = json.loads((results / "evaluate" / "mine" / "0" / "metrics.json").read_text())
    final = measured["protocols"]["clean"]["final"]
    assert np.isfinite(final["rec_ll"]) and measured["data"] == "own_mine"
    counted = json.loads((results / "prepare" / "mine" / "metrics.json").read_text())
    if labelled:
        assert 0 <= final["posterior_kmeans"]["value"] <= 1 and "posterior_probe" in final
        assert counted["classes"] == sorted(map(boundary.printable, classes)) and counted["test"]["per_class"] == [2, 2]
        held = dataset_file.read(results / "prepare" / "mine" / "data.npz")
        for part, split in (("train", held.train), ("test", held.test)):
            assert counted[part]["images"] == len(split)
            assert counted[part]["mean_pixel"] == pytest.approx(float(split.images.double().mean()) / 255, rel=1e-5)
    else:
        assert final["posterior_kmeans"] is None and "posterior_probe" not in final
        reason = measured["not_measured"]["protocols.clean.final.posterior_kmeans"]
        assert reason == "the images have no labels"
        assert "not_measured" in measured and "per_class" not in counted["test"]
    again = port.load(run).preprocessing.load()
    assert again.name == "own_mine" and len(again.test) == (4 if labelled else 2)
    # Other pictures under the same names are other data.
    first = counted["raw_sha256"]
    picture(next((tmp_path / "mine").rglob("0.png")), 77)
    prepare.dataset_for(settings.load_preset("mine", path=preset[3]), results)
    assert json.loads((results / "prepare" / "mine" / "metrics.json").read_text())["raw_sha256"] != first


FAMILIES = {  # family → model keys that say no sizes, number of classes in the folder
    "pcae": ({"model": "pcae"} | {key: value for key, value in OPEN.items()
                                  if key in port.config.FLATS["pcae"]}, 0),
    "capsnet": ({key: value for key, value in CAPSNET.items() if key != "canvas"}, 2),
    "em": ({key: value for key, value in EM.items() if key not in ("canvas", "classes")}, 2)}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families(family: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keys, n_classes = FAMILIES[family]
    place = folder(tmp_path / "mine", classes=("ant", "bee")[:n_classes] or ("",), n=4, side=18)
    options = params(tmp_path, {"source": "folder", "path": str(place)}, keys)
    for command in ("train", "evaluate"):
        words = [command, *options, "--set", f"{command}.batch_size=2"]
        assert cli.main(words) == 0, capsys.readouterr().err
    config = port.load(tmp_path / "results" / "train" / "mine" / "0").config
    assert (config.kind, config.canvas, config.channels) == (family, 18, 1)
    assert not n_classes or config.n_classes == n_classes
    measured = json.loads((tmp_path / "results" / "evaluate" / "mine" / "0" / "metrics.json").read_text())
    final = measured["protocols"]["clean"]["final"]
    assert ("accuracy" in final) if n_classes else (final["logistic"] is None and final["mse"]["value"] > 0)


def test_the_command_line_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--data` puts the sizes of the data in place of those of the preset's; what is said stays."""
    place = folder(tmp_path / "mine", ("train", "test"), ("a", "b", "c"), 2, side=18)
    before = settings.load_preset("digits")
    words = fit_images.overrides(str(place))
    made = settings.overridden(before, words)
    assert (made.model["canvas_size"], made.model["n_channels"], made.model["n_classes"]) == (18, 1, 3)
    assert made.sections["evaluate"]["batch_size"] == 6 and "options" not in made.sections["prepare"]
    assert fit_images.grid(18, made.model["strides"]) >= 3
    said = settings.overridden(before, [*words, "model.canvas_size=24", "evaluate.batch_size=2"])
    assert said.model["canvas_size"] == 24 and said.sections["evaluate"]["batch_size"] == 2
    # A stored run says all of it, so that its images need not be there.
    (tmp_path / "mine").rename(tmp_path / "gone")
    assert settings.overridden(made, []).model == made.model
    for kind in ("capsnet_mnist", "em_mnist"):
        words[1] = f"prepare.path={json.dumps(str(tmp_path / 'gone'))}"
        config = settings.overridden(settings.load_preset(kind), words)
        assert fit_images.needed(config.model) and config.config().n_classes == 3
