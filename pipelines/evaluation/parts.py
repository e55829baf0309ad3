"""The evaluation of part capsules alone, which have no object capsules to group images by."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

import port
from pipelines.support import pictures, sections, settings
from pipelines.support.measured import REASONS, put, shown
from pipelines.support.values import BadInput
from port.core import preprocess
from port.data import dataset as data
from port.evaluation import looks
from port.evaluation import parts as evaluate_parts
from port.evaluation.clustering import logistic_probe
from port.evaluation.labels import check_finite


def evaluate(preset: settings.Preset, seed: int, results: str | os.PathLike, dataset: data.Dataset,
             final: torch.nn.Module, place: torch.device, steps: int | None, on: str | None = None) -> dict:
    """Likelihood, squared error and a probe of part capsules, before and after training.

    Args:
        preset: its section `evaluate` counts.
        seed: of the run; the initial weights are drawn from it again.
        results: folder of the results.
        dataset: prepared.
        final: the trained model.
        place: where it runs.
        steps: updates it has seen.
        on: another data source, which there is not.

    Returns:
        What goes into metrics.json; the pictures are written here.

    Raises:
        BadInput: `on` names one.
    """
    if on is not None:
        raise BadInput(f"preset {preset.name}: part capsules alone are evaluated on their own "
                       f"test images only, not on {on}")
    wanted = preset.evaluate()
    start = port.build(final.config, seed).to(place).eval()
    dataset, shift = dataset.to(place), preset.train(seed)[0].shift
    n_fit = wanted.fit_images or len(dataset.train)
    kept = data.Split(dataset.train.images[:n_fit], dataset.train.labels[:n_fit])
    measured: dict = {"preset": preset.name, "seed": seed, "steps": steps, "data": dataset.name,
                      "level": wanted.level, "test_images": len(dataset.test), "fit_images": len(kept),
                      "protocols": {}}
    for protocol, noise in (("clean", False), ("faithful", True)):
        measured["protocols"][protocol] = {}
        for moment, model in (("initial", start), ("final", final)):
            train, test = (evaluate_parts.collect(model, split, wanted.batch_size, offset + wanted.seed,
                                                  noise, shift if noise or wanted.clean_shift else looks.still(shift))
                           for split, offset in ((kept, 100), (dataset.test, 0)))

            def fitted(train=train, test=test) -> dict:
                right = logistic_probe(train.features, train.labels, test.features) == test.labels
                return mean(right.astype(np.float64), wanted)

            def present(test=test) -> dict:
                check_finite(test.presence, "presences")
                return mean((test.presence > 0.5).sum(1).astype(np.float64), wanted)

            found = {"rec_ll": mean(test.rec_ll, wanted), "mse": mean(test.mse, wanted)}
            put(found, "logistic", fitted)
            put(found, "present_parts", present)
            measured["protocols"][protocol][moment] = found
    measured["baseline"] = baseline(final, kept, dataset.test, wanted, shift)
    measured["checks"] = checks(measured)
    measured["learned"] = all(check["passed"] for check in measured["checks"])
    folder = settings.folder_of("evaluate", preset.name, seed, results)
    write_pictures(folder / "pictures", final, dataset.test, wanted.n_pictures, wanted.seed, shift)
    say(measured)
    return measured


def mean(values: np.ndarray, wanted: sections.Evaluate) -> dict[str, float]:
    """Mean over the images with its percentile bootstrap interval."""
    values = np.asarray(values, np.float64)
    rng = np.random.default_rng(wanted.seed)
    draws = [values[rng.integers(len(values), size=len(values))].mean()
             for _ in range(wanted.bootstrap_draws)]
    low, high = np.quantile(draws, [(1 - wanted.level) / 2, (1 + wanted.level) / 2])
    return {"value": float(values.mean()), "low": float(low), "high": float(high), "n": len(values)}


@torch.no_grad()
def baseline(model: torch.nn.Module, train: data.Split, test: data.Split, wanted: sections.Evaluate,
             shift: str = "original") -> dict:
    """Squared error of the mean training image as a reconstruction of every test image, shifted alike."""
    edges = model.config.autoencoder.target == "sobel"

    def pixels(split: data.Split, seed: int) -> torch.Tensor:
        image = looks.arranged(split.images, model.config.canvas, shift, seed if wanted.clean_shift else None)
        return preprocess.normalized_sobel_edges(image) if edges else image

    middle = pixels(train, wanted.seed + 100).mean(0, keepdim=True)
    error = torch.square(pixels(test, wanted.seed) - middle).flatten(1).mean(1)
    return {"mean_image_mse": mean(error.cpu().numpy(), wanted)}


def checks(measured: dict) -> list[dict]:
    """What a run that has learned must show: intervals of the squared error apart from both comparisons."""
    clean = measured["protocols"]["clean"]
    final = clean["final"]["mse"]
    found = []
    for name, other in (("step 0", clean["initial"]["mse"]),
                        ("the mean training image", measured["baseline"]["mean_image_mse"])):
        found.append({"check": f"squared error below {name}", "initial": other["value"],
                      "final": final["value"], "required": True,
                      "passed": bool(final["high"] < other["low"]),
                      "says": f"squared error {final['value']:.4f} [{final['low']:.4f}, "
                              f"{final['high']:.4f}] against {other['value']:.4f} of {name}"})
    return found


def say(measured: dict) -> None:
    """The figures as a few lines."""
    for protocol, moments in measured["protocols"].items():
        print(f"evaluate, {protocol} protocol, {measured['test_images']} test images (step 0 -> end)")
        for name, value in moments["final"].items():
            if name == REASONS:
                continue
            bounds = f" [{value['low']:.4f}, {value['high']:.4f}]" if value else ""
            print(f"  {name:14s} {shown(moments['initial'][name], 4)} -> {shown(value, 4)}{bounds}")
    for check in measured["checks"]:
        print(f"  {'ok    ' if check['passed'] else 'FAILED'} {check['says']}")


@torch.no_grad()
def write_pictures(folder: Path, model: torch.nn.Module, test: data.Split, n_images: int, seed: int,
                   shift: str = "original") -> list[Path]:
    """Images above their reconstructions, templates, and the most present parts at their places."""
    n_images = min(n_images, len(test))
    device = next(model.parameters()).device
    image = looks.arranged(test.images[:n_images].to(device), model.config.canvas, shift, seed)
    result = model(image, pictures=True)
    shown = {name: value.cpu().numpy() for name, value in result.pictures.items()}
    given = image.cpu().numpy()
    aim = [] if np.array_equal(shown["target"], given) else [shown["target"]]
    folder.mkdir(parents=True, exist_ok=True)
    made = {"reconstructions": pictures.grid([given, *aim, shown["reconstruction"]]),
            "templates": pictures.sheet(shown["templates"][0]),
            "parts": pictures.part_rows(given, shown["transformed_templates"],
                                        result.part_presence.cpu().numpy())}
    return [pictures.save_png(folder / f"{name}.png", picture) for name, picture in made.items()]
