"""Accuracies on raw pixels and on their edges, which no model changes: measured once for a data set and a protocol.

k-means and a logistic probe on 1,600 pixels take ten minutes of one core, as often as a seed is evaluated.
They lie in results/baselines/<data set>-<digest>.json; the digest is that of everything they depend on: the
pixels and labels, canvas, settings, the code that measures, and the versions of the libraries that fit.
Whatever changes there makes another file, so that a kept value never stands for a changed one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from pipelines.support import environment, sections
from pipelines.support.measured import put
from pipelines.support.output import write_json
from port.core import preprocess
from port.data import dataset as data
from port.evaluation import clustering as evaluate
from port.evaluation import looks

FOLDER = "baselines"
EDGES = "edges"
AT_ONCE = 1000  # images whose edges are made together
# Settings of section `evaluate` that the values depend on.
SETTINGS = ("seed", "bootstrap_draws", "level")
CODE = (data, looks, preprocess, evaluate, sys.modules[__name__])
FITTED_BY = ("numpy", "scipy", "scikit-learn", "torch")


def kept(dataset: data.Dataset, canvas: int, wanted: sections.Evaluate, results: str | os.PathLike,
         edges: bool = False, shift: str = "original") -> dict:
    """`measured`, from the file of an earlier evaluation where there is one."""
    if not len(dataset.train):
        return {}
    key = digest(dataset, canvas, wanted, edges, shift)
    path = Path(results) / FOLDER / f"{dataset.name}-{key[:16]}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["digest"] == key:
            print(f"evaluate: raw pixels as measured before ({path})", flush=True)
            return found["baseline"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none yet, or a damaged one: it is measured again
    found = measured(dataset, canvas, wanted, edges, shift)
    write_json(path, {"digest": key, "data": dataset.name, "canvas": canvas, "baseline": found})
    return found


def measured(dataset: data.Dataset, canvas: int, wanted: sections.Evaluate, edges: bool = False,
             shift: str = "original") -> dict:
    """The protocols' clusterings and probe on raw pixels, shifted as the model sees them, and centred.

    Args:
        dataset: with training images, the first `wanted.baseline_images` of which the fits use.
        canvas: side in pixels.
        wanted: seed and intervals.
        edges: measure the edges of the centred images too, for a model that reconstructs these.
        shift: how the model's training placed its images.
    """
    fitted, found = first_images(dataset, wanted), {}
    for name in ("shifted", "centred", *([EDGES] if edges else ())):
        def pixels(split: data.Split, seed: int, name: str = name) -> np.ndarray:
            image = looks.arranged(split.images, canvas, shift, seed if name == "shifted" else None)
            if name == EDGES:
                image = torch.cat([preprocess.normalized_sobel_edges(part) for part in image.split(AT_ONCE)])
            return image.flatten(1).cpu().numpy()
        train, test = pixels(fitted, wanted.seed + 100), pixels(dataset.test, wanted.seed)
        labels = fitted.labels.cpu().numpy(), dataset.test.labels.cpu().numpy()

        def clean(train=train, test=test, labels=labels) -> np.ndarray:
            return evaluate.cluster_transfer(train, labels[0], test, labels[1], dataset.n_classes,
                                             wanted.seed).prediction

        def refitted(test=test, labels=labels) -> np.ndarray:
            return evaluate.cluster_classify(
                test, labels[1], dataset.n_classes,
                evaluate.new_kmeans(dataset.n_classes, wanted.seed)).prediction

        def logistic(train=train, test=test, labels=labels) -> np.ndarray:
            return evaluate.logistic_probe(train, labels[0], test)

        found[name] = {"fitted_on": len(fitted)}
        for measure, predict in (("kmeans_clean", clean), ("kmeans_refitted", refitted),
                                 ("logistic", logistic)):
            put(found[name], measure,
                lambda predict=predict, truth=labels[1]: interval(predict() == truth, wanted))
    return found


def first_images(dataset: data.Dataset, wanted: sections.Evaluate) -> data.Split:
    """The training images that the fits use."""
    return data.Split(dataset.train.images[:wanted.baseline_images],
                      dataset.train.labels[:wanted.baseline_images])


def digest(dataset: data.Dataset, canvas: int, wanted: sections.Evaluate, edges: bool = False,
           shift: str = "original") -> str:
    """SHA-256 of everything that `measured` depends on."""
    versions = environment.versions()
    facts = {"canvas": canvas, "edges": edges, "shift": shift, "classes": dataset.n_classes,
             "device": dataset.test.images.device.type,
             "settings": {name: getattr(wanted, name) for name in SETTINGS},
             "versions": {name: versions.get(name) for name in FITTED_BY},
             "code": [hashlib.sha256(inspect.getsource(module).encode()).hexdigest() for module in CODE]}
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for split in (first_images(dataset, wanted), dataset.test):
        for array in (split.images.cpu().numpy(), split.labels.cpu().numpy()):
            found.update(f"{array.dtype}{array.shape}".encode())
            found.update(np.ascontiguousarray(array))
    return found.hexdigest()


def interval(correct: np.ndarray, wanted: sections.Evaluate) -> dict:
    """Accuracy and its interval as plain values."""
    return asdict(evaluate.bootstrap_interval(correct, wanted.seed, wanted.bootstrap_draws, wanted.level))
