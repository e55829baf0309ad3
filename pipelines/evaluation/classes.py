"""What the stage evaluate does for a capsule classifier (CapsNet, matrix capsules).

Test accuracy with its interval before and after training, the confusion matrix, and pictures: images
beside their reconstructions where there is a decoder, and the images that the model takes for another
class. There is no noise and nothing is fitted, so there is one protocol, `clean`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import port
from pipelines import evaluate as stage
from pipelines.support import pictures, sections, settings
from pipelines.support.measured import put
from pipelines.support.measured import shown as measure
from port.data import dataset as data
from port.evaluation import classes as evaluate_classes
from port.evaluation import looks
from port.evaluation.classes import Answers
from port.evaluation.clustering import Accuracy, exceeds
from port.evaluation.labels import check_finite
from port.families import Model


def evaluate(preset: settings.Preset, seed: int, results: str | os.PathLike, dataset: data.Dataset,
             final: Model, place: torch.device, steps: int | None, on: str | None = None) -> dict:
    """Test accuracy, before and after training.

    Args:
        preset: its section `evaluate` counts; with `clean_shift` test images lie on a larger canvas as
            `train.shift` says, else in its middle.
        seed: of the run; the initial weights are drawn from it again.
        results: folder of the results.
        dataset: of the preset.
        final: the trained model.
        place: where it runs.
        steps: updates it has seen.
        on: a data source whose test images are used; None is the preset's own.

    Returns:
        What goes into metrics.json; confusion.csv and the pictures are written here.
    """
    wanted, trained_on = preset.evaluate(), dataset.name
    if on is not None:
        dataset = replace(dataset, **stage.elsewhere(
            preset, on, dataset, settings.folder_of("train", preset.name, seed, results)))
    test = dataset.test.to(place)
    initial = port.build(final.config, seed).to(place).eval()
    training, _ = preset.train(seed)
    shift, places = training.shift, wanted.seed if wanted.clean_shift else None
    measured: dict = {"preset": preset.name, "model": final.config.kind, "seed": seed, "steps": steps,
                      "data": dataset.name, "trained_on": trained_on, "level": wanted.level,
                      "protocols": {"clean": {}}, "baseline": {}}
    for moment, model in (("initial", initial), ("final", final)):
        seen = evaluate_classes.collect(model, test, wanted.batch_size, shift, places)
        measured["protocols"]["clean"][moment] = moment_of(seen, wanted)
    measured["checks"] = checks(measured["protocols"]["clean"], wanted)
    measured["learned"] = all(check["passed"] for check in measured["checks"])
    folder = settings.folder_of("evaluate", settings.evaluation_name(preset.name, on), seed, results)
    stage.write_confusions(folder / "confusion.csv", {"clean_accuracy": stage.confusion(
        seen.labels, seen.predicted, dataset.n_classes)})
    write_pictures(folder / "pictures", final, test, seen, shift, places, wanted.n_pictures)
    say(measured)
    return measured


def moment_of(seen: Answers, wanted: sections.Evaluate) -> dict:
    """The measures of one model as plain values."""
    def right() -> dict:
        check_finite(seen.evidence, "evidence")  # else the first class is called the answer
        return stage.interval(seen.correct, wanted)

    found: dict = {"loss": seen.loss, "test_images": len(seen.labels)}
    put(found, "accuracy", right)
    return found if seen.error is None else found | {"squared_error": seen.error}


def checks(moments: dict, wanted: sections.Evaluate) -> list[dict]:
    """What a run that has learned must show on images it was not trained on."""
    initial, final = (moments[moment]["accuracy"] for moment in ("initial", "final"))
    if initial is None or final is None:
        return [{"check": "test accuracy", "initial": initial and initial["value"],
                 "final": final and final["value"], "required": True, "passed": False,
                 "says": f"test accuracy {measure(initial)} -> {measure(final)}"}]
    gain = exceeds(Accuracy(**final), Accuracy(**initial))
    return [{"check": "test accuracy", "initial": initial["value"], "final": final["value"],
             "required": True, "standard_errors": gain, "passed": bool(gain >= wanted.standard_errors),
             "says": f"test accuracy {initial['value']:.4f} -> {final['value']:.4f} ({gain:+.1f} standard "
                     f"errors, {wanted.standard_errors:g} required)"}]


@torch.no_grad()
def write_pictures(folder: Path, model: Model, test: data.Split, seen: Answers, shift: str,
                   seed: int | None, n_images: int) -> list[Path]:
    """Reconstructions of the first images, and the images with the surest wrong answers.

    Args:
        folder: where the PNG files go.
        model: the trained model.
        test: the images.
        seen: what it says about them.
        shift: how training placed its images.
        seed: of the places; None where nothing was drawn.
        n_images: how many of each kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    first = looks.arranged(test.images[:n_images], model.config.canvas, shift, seed)
    drawn = model(first).reconstruction
    if drawn is not None:
        rows = [x.cpu().numpy() for x in (first, drawn)]
        paths.append(pictures.save_png(folder / "decoded.png", pictures.grid(
            [shown(row) for row in rows])))
    wrong = np.flatnonzero(~seen.correct)
    given = seen.evidence[wrong, seen.predicted[wrong]] - seen.evidence[wrong, seen.labels[wrong]]
    worst = wrong[np.argsort(-given, kind="stable")][:n_images]
    if len(worst):
        images = looks.arranged(test.images[torch.from_numpy(worst).to(test.images.device)],
                                model.config.canvas, shift)
        paths.append(pictures.save_png(folder / "mistakes.png", pictures.sheet(
            shown(images.cpu().numpy()))))
    return paths


def shown(images: np.ndarray) -> np.ndarray:
    """Images that a PNG holds: of two cameras, say, the first channel."""
    return images if images.shape[1] in (1, 3) else images[:, :1]


def say(measured: dict) -> None:
    """The accuracies in a line."""
    before, after = (measured["protocols"]["clean"][moment] for moment in ("initial", "final"))
    value = after["accuracy"]
    bounds = f" [{value['low']:.4f}, {value['high']:.4f}]" if value else ""
    print(f"evaluate, {measured['data']}, {after['test_images']} test images: accuracy "
          f"{measure(before['accuracy'], 4)} -> {measure(value, 4)}{bounds}, loss "
          f"{measure(before['loss'], 4)} -> {measure(after['loss'], 4)}")
    for check in measured["checks"]:
        print(f"  {'ok    ' if check['passed'] else 'FAILED'} {check['says']}")
