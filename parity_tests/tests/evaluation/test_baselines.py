"""Raw-pixel baselines are measured once, and anything that they depend on makes them be measured again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from pipelines.evaluation import baselines
from pipelines.support import environment, sections
from port.core import rmsprop
from port.data import dataset as data
from port.evaluation import clustering, looks

WANTED = sections.Evaluate(baseline_images=30, bootstrap_draws=20)


def dataset(pixel: int | None = None, label: int | None = None, extra: int | None = None) -> data.Dataset:
    """40 training and 30 test images of 6x6; one entry changed where asked for."""
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (70, 1, 6, 6), dtype=torch.uint8, generator=generator)
    labels = torch.arange(70) % 3
    if pixel is not None:
        images[pixel, 0, 2, 3] ^= 1
    if label is not None:
        labels[label] = (labels[label] + 1) % 3
    if extra is not None:
        images[extra] = 0
    train, test = (data.Split(images[part], labels[part]) for part in (slice(40), slice(40, None)))
    return data.Dataset("tiny", train, test, 3)


def test_measured_once(tmp_path, monkeypatch, capsys) -> None:
    first = baselines.kept(dataset(), 8, WANTED, tmp_path)
    assert first == baselines.measured(dataset(), 8, WANTED)
    assert set(first) == {"shifted", "centred"} and first["shifted"]["fitted_on"] == 30
    (path,) = (tmp_path / "baselines").iterdir()
    monkeypatch.setattr(baselines, "measured", lambda *rest: pytest.fail("measured again"))
    assert baselines.kept(dataset(), 8, WANTED, tmp_path) == first
    assert str(path) in capsys.readouterr().out
    # Beyond the images that are fitted, nothing counts.
    assert baselines.kept(dataset(extra=35), 8, WANTED, tmp_path) == first


# What changes → (data set, canvas, settings) then.
CHANGED = {
    "a training pixel": lambda: (dataset(pixel=29), 8, WANTED), "a test pixel": lambda: (
        dataset(pixel=69), 8, WANTED),
    "a label": lambda: (dataset(label=0), 8, WANTED),
    "a test label": lambda: (dataset(label=41), 8, WANTED),
    "canvas": lambda: (dataset(), 9, WANTED), "seed": lambda: (dataset(), 8, replace(WANTED, seed=1)),
    "level": lambda: (dataset(), 8, replace(WANTED, level=0.9)),
    "draws": lambda: (dataset(), 8, replace(WANTED, bootstrap_draws=21)),
    "images": lambda: (dataset(), 8, replace(WANTED, baseline_images=31)),
    "edges": lambda: (dataset(), 8, WANTED, True), "shift": lambda: (dataset(), 8, WANTED, False, "uniform"),
    "classes": lambda: (replace(dataset(), n_classes=4), 8, WANTED),
    "version": lambda: (dataset(), 8, WANTED), "code": lambda: (dataset(), 8, WANTED)}


@pytest.mark.parametrize("what", CHANGED)
def test_a_change_is_measured_again(what, tmp_path, monkeypatch) -> None:
    baselines.kept(dataset(), 8, WANTED, tmp_path)
    measured = []
    monkeypatch.setattr(baselines, "measured", lambda *rest: measured.append(rest) or {"new": {}})
    if what == "version":
        versions = environment.versions() | {"scikit-learn": "0.0"}
        monkeypatch.setattr(environment, "versions", lambda: versions)
    if what == "code":
        monkeypatch.setattr(baselines, "CODE", (*baselines.CODE[:-1], rmsprop))
    images, canvas, wanted, *edges = CHANGED[what]()
    assert baselines.kept(images, canvas, wanted, tmp_path, *edges) == {"new": {}}
    assert len(measured) == 1


def test_each_measure_is_what_its_name_says() -> None:
    """Clusters of the training images or of those tested on, and a probe, each on the same pixels."""
    images = dataset()
    found = baselines.measured(images, 8, WANTED)["centred"]
    train, test = (looks.arranged(split.images[:30], 8).flatten(1).numpy() for split in (images.train, images.test))
    labels = [split.labels[:30].numpy() for split in (images.train, images.test)]
    right = {"kmeans_clean": clustering.cluster_transfer(train, labels[0], test, labels[1], 3, 0).prediction,
             "kmeans_refitted": clustering.cluster_classify(test, labels[1], 3, clustering.new_kmeans(3, 0)).prediction,
             "logistic": clustering.logistic_probe(train, labels[0], test)}
    shares = {name: float((given == labels[1]).mean()) for name, given in right.items()}
    assert shares == {name: found[name]["value"] for name in shares}
    assert shares["kmeans_clean"] != shares["kmeans_refitted"] != shares["logistic"]


def test_edges_are_another_input(tmp_path) -> None:
    """Beside the same values on pixels; a step from black to white is seen by its edge alone."""
    images = torch.zeros(40, 1, 6, 6, dtype=torch.uint8)
    labels = torch.arange(40) % 2
    images[labels == 1, :, :, 3:] = 255  # one class has an edge down the middle, the other is flat
    images += torch.arange(40, dtype=torch.uint8)[:, None, None, None] * 3 * (labels == 0)[:, None, None, None].byte()
    split = data.Split(images, labels)
    plain = baselines.measured(data.Dataset("steps", split, split, 2), 6, WANTED)
    found = baselines.measured(data.Dataset("steps", split, split, 2), 6, WANTED, edges=True)
    assert {name: found[name] for name in plain} == plain
    assert found["edges"]["kmeans_clean"]["value"] == 1.0


@pytest.mark.parametrize("content", ["", "[]", '{"digest": "another", "baseline": {}}', "{"])
def test_a_damaged_file_is_measured_again(content, tmp_path) -> None:
    first = baselines.kept(dataset(), 8, WANTED, tmp_path)
    (path,) = (tmp_path / "baselines").iterdir()
    path.write_text(content)
    assert baselines.kept(dataset(), 8, WANTED, tmp_path) == first
    assert json.loads(path.read_text())["baseline"] == first


def test_nothing_to_fit_is_nothing(tmp_path) -> None:
    empty = data.Split(torch.zeros(0, 1, 6, 6, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    assert baselines.kept(replace(dataset(), train=empty), 8, WANTED, tmp_path) == {}
    assert not (tmp_path / "baselines").exists()
