"""Stage `evaluate`: what the capsules know about the classes, before and after training.

    python -m pipelines.evaluate --preset digits --seed 0
    python -m pipelines.evaluate --preset mnist --seed 0 --on affnist

Both protocols of `port.evaluation.clustering`, at step 0 (the same weights the run started from) and at the end,
beside k-means and a logistic probe on the raw pixels of the same shifted images, and on their edges where the model
reconstructs those. Leaves
results/evaluate/<preset>/<seed>/ with metrics.json, config.json, environment.json, confusion.csv and
pictures/ (with tsne.csv). Exits with 1 where the preset requires learning and the run shows none.

With `--on SOURCE` the test images are another data set's, the fits stay on the preset's training
images, and the folder is results/evaluate/<preset>_on_<source>/<seed>/. `--on validation` takes the images that
the run kept out of its training (`train.validation_images`), and fits on the others: choices are made by it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import threadpoolctl
import torch
import typer

from pipelines import families
from pipelines.evaluation import baselines
from pipelines.evaluation.baselines import interval
from pipelines.evaluation.shown import KINDS, confusion, say, write_confusions, write_tsne
from pipelines.prepare import dataset_for, fits, load
from pipelines.support import environment, pictures, sections, settings
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set
from pipelines.support.measured import put, settled, shown
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from pipelines.training import given_parts, given_weights
from port.checkpoints import run_folder
from port.core import allocator
from port.data import dataset as data
from port.data import validation
from port.evaluation import clustering as evaluate
from port.evaluation import collected, looks
from port.evaluation.labels import NotMeasurable, check_finite
from port.families import Model

RECONSTRUCTION = "reconstruction log-likelihood"  # the check that needs no classes
# (protocol, measure, words, required). The probe fitted afterwards is required under noise only:
# without noise it amplifies what little differs in an untrained network and reads much at step 0.
# Priors learn last and are shown, not required.
PROBES = (
    ("clean", "posterior_probe", "posterior, probe trained along", True),
    ("faithful", "posterior_logistic", "posterior, logistic probe, with noise", True),
    ("clean", "posterior_kmeans", "posterior, clustering", False),
    ("clean", "posterior_logistic", "posterior, logistic probe, without noise", False),
    ("clean", "prior_probe", "prior, probe trained along", False),
    ("clean", "prior_logistic", "prior, logistic probe, without noise", False),
)


def run(preset: settings.Preset, seed: int, results: str | os.PathLike = settings.RESULTS,
        device: str | None = None, on: str | None = None) -> Path:
    """Evaluate a trained preset.

    Args:
        preset: whose model and training images are used.
        seed: of the run.
        results: folder of the results.
        device: auto, cpu or cuda; None is the preset's.
        on: a data source whose test images are used; None is the preset's own.

    Raises:
        BadInput: no model, one that does not fit the data, or a preset whose `train.shift` is no longer the run's.
        CheckFailed: the preset requires learning and the run shows none (not with `on`).
    """
    wanted = preset.evaluate()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
        threadpoolctl.threadpool_limits(wanted.threads)  # scikit-learn and NumPy
    place = environment.choose_device(device or wanted.device)
    source = settings.folder_of("train", preset.name, seed, results)
    final = settings.load_model(source / "model").to(place)
    shift = shift_of(source, preset, seed)
    special = families.evaluation(preset)
    if special is not None:
        return of_family(special, preset, seed, results, final, place, on)
    initial = given_parts.initial(final, seed).to(place).eval()
    dataset = dataset_for(preset, results)
    trained_on = dataset.name
    if on is not None:
        dataset = replace(dataset, **elsewhere(preset, on, dataset, source))
    dataset = dataset.to(place)

    folder = settings.folder_of("evaluate", settings.evaluation_name(preset.name, on), seed, results)
    measured: dict = {"preset": preset.name, "seed": seed, "steps": run_folder.steps(source),
                      "weights": weights_of(source),
                      "data": dataset.name, "trained_on": trained_on, "level": wanted.level,
                      "protocols": {}}
    confusions: dict[str, np.ndarray] = {}
    with allocator.kept(place):
        for moment, model in (("initial", initial), ("final", final)):
            last = moment == "final"
            for protocol, (train, test) in collect(model, dataset, wanted, shift).items():
                measured["protocols"].setdefault(protocol, {})[moment] = measure(
                    train, test, dataset.n_classes, protocol, wanted, confusions if last else None)
                if last and protocol == "clean":
                    mapped = test
    measured["baseline"] = baselines.kept(dataset, final.config.canvas, wanted, results,
                                          edges=final.config.autoencoder.target == "sobel", shift=shift)
    measured["checks"] = checks(measured["protocols"], wanted)
    if final.config.kind == "ocae":  # its reconstructions are those of the parts it was given
        measured["checks"] = [one for one in measured["checks"] if one["check"] != RECONSTRUCTION]
    if not dataset.test.labelled:  # what it has learned of classes, nobody can say
        measured["checks"] = [one for one in measured["checks"] if one["check"] == RECONSTRUCTION]
    failed = [check["says"] for check in measured["checks"]
              if check["required"] and not check["passed"]]
    measured["learned"] = not failed

    # Metrics first: no picture that cannot be drawn may cost them.
    write_json(folder / "metrics.json", settled(measured))
    write_json(folder / "config.json", {"preset": preset.name, "on": on, "evaluate": asdict(wanted)})
    write_json(folder / "environment.json", environment.describe(place, seed=seed))
    write_confusions(folder / "confusion.csv", confusions)
    write_tsne(folder / "pictures" / "tsne.csv", mapped, wanted, measured)
    measured = settled(measured)
    write_json(folder / "metrics.json", measured)
    pictures.write(folder / "pictures", final, dataset.test, wanted.n_pictures, wanted.seed, shift)
    say(measured)
    if wanted.require_learning and failed and on is None:
        raise CheckFailed(not_learned(preset, seed, source, failed))
    return folder


def of_family(family: ModuleType, preset: settings.Preset, seed: int, results: str | os.PathLike,
              final: Model, place: torch.device, on: str | None) -> Path:
    """The stage for a preset of another model family; see `pipelines.families`."""
    folder = settings.folder_of("evaluate", settings.evaluation_name(preset.name, on), seed, results)
    source = settings.folder_of("train", preset.name, seed, results)
    measured = settled(family.evaluate(preset, seed, results, dataset_for(preset, results), final, place,
                                       run_folder.steps(source), on))
    write_json(folder / "metrics.json", measured | {"weights": weights_of(source)})
    write_json(folder / "config.json", {"preset": preset.name, "on": on,
                                        "evaluate": asdict(preset.evaluate())})
    write_json(folder / "environment.json", environment.describe(place, seed=seed))
    if preset.evaluate().require_learning and not measured["learned"] and on is None:
        raise CheckFailed(not_learned(preset, seed, source, [
            check["says"] for check in measured["checks"] if not check["passed"]]))
    return folder


def not_learned(preset: settings.Preset, seed: int, source: Path, missed: list[str]) -> str:
    """What a run had to show and did not, and what to do."""
    return (f"{preset.name}, seed {seed} has not learned: {'; '.join(missed)}; look at "
            f"{source / 'history.csv'}, then train longer or with other settings of presets.{preset.name} "
            "in params.yaml")


def elsewhere(preset: settings.Preset, source: str, own: data.Dataset, run_folder: Path) -> dict:
    """Name and test images of another data source, or of the validation split of the run in `run_folder`.

    Raises:
        BadInput: an unknown source, images that do not fit the preset's model, or a run without validation images.
        DataError: it is not there.
    """
    if source == validation.NAME:
        wanted = trained_with(run_folder).get("validation_images", 0)
        if not wanted:
            raise BadInput(f"{run_folder} was trained on all training images; set train.validation_images and train "
                           "again")
        train, test = validation.parts(own.train, wanted)
        return {"name": f"{own.name}_{validation.NAME}", "train": train, "test": test}
    wanted = replace(preset.prepare(), source=source, options=None, path=None, size=None)
    other = load(wanted)
    config = preset.config()
    channels, height, width = other.test.images.shape[1:]
    if not fits(preset, channels, height, width):
        raise BadInput(f"{source} has images of {channels}x{height}x{width}, the model of "
                       f"preset {preset.name} takes {config.channels} channel(s) on a "
                       f"canvas of {config.canvas}")
    if other.n_classes != own.n_classes:
        raise BadInput(f"{source} has {other.n_classes} classes, preset {preset.name} "
                       f"{own.n_classes}")
    return {"name": other.name, "test": other.test}


def trained_with(folder: Path) -> dict:
    """Section `train` that a run in a folder of the train stage had; empty where it does not say so."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["train"]
    except (OSError, ValueError, KeyError):
        return {}


def shift_of(folder: Path, preset: settings.Preset, seed: int) -> str:
    """How a run in a folder of the train stage placed its images, which the preset has to say too.

    Raises:
        BadInput: the preset says otherwise by now.
    """
    says = preset.train(seed)[0].shift
    was = trained_with(folder).get("shift", says)
    if was != says:
        raise BadInput(f"{folder} was trained with train.shift {was}, and preset {preset.name} has {says}; put it back "
                       f"(--set train.shift={was}), or train again")
    return says


def weights_of(folder: Path) -> str:
    """What tells the weights in a folder of the train stage from others; `aggregate` compares it."""
    return given_weights.digest(folder / "model", "model")


def collect(model: torch.nn.Module, dataset: data.Dataset, wanted: sections.Evaluate, shift: str = "original"
            ) -> dict[str, tuple[collected.Presences | NotMeasurable | None, collected.Collected]]:
    """By protocol what fits need of the training images they use, and what is said about the test images.

    `shift` is that of the training; without `clean_shift` the clean protocol draws no places.
    """
    found = {}
    for protocol, train in fitted_on(model, dataset.train, wanted, shift).items():
        faithful = protocol == "faithful"
        found[protocol] = train, collected.collect(
            model, dataset.test, model.config.canvas, wanted.batch_size, wanted.seed, noise=faithful,
            whole_batches=faithful, shift=shift if faithful or wanted.clean_shift else looks.still(shift))
    return found


def fitted_on(model: torch.nn.Module, train: data.Split, wanted: sections.Evaluate, shift: str = "original"
              ) -> dict[str, collected.Presences | NotMeasurable | None]:
    """By protocol the presences that fits use, or why there are none; None of a data set without training images."""
    n_fit = wanted.fit_images or len(train)
    kept = data.Split(train.images[:n_fit], train.labels[:n_fit])
    if not len(kept):
        return {"clean": None, "faithful": None}

    def run_over(*noises: bool, shift: str = shift) -> list[collected.Presences | None]:
        return collected.presences(model, kept, model.config.canvas, wanted.batch_size, wanted.seed + 100, noises,
                                   shift)
    # Images at the same places are seen once for both protocols.
    clean, faithful = run_over(False, True) if wanted.clean_shift else (
        *run_over(False, shift=looks.still(shift)), *run_over(True))
    return {"clean": clean, "faithful": faithful if faithful is not None else NotMeasurable(
        f"{len(kept)} training images make no whole batch of {wanted.batch_size}")}


def measure(train: collected.Presences | NotMeasurable | None, test: collected.Collected, n_classes: int,
            protocol: str, wanted: sections.Evaluate,
            confusions: dict[str, np.ndarray] | None = None) -> dict:
    """All accuracies of what a model says under one protocol, each with its interval, or null and why."""
    faithful, n_fit = protocol == "faithful", 0
    if isinstance(train, collected.Presences):
        n_fit = len(train.labels)
    found: dict = {"test_images": len(test.labels), "fit_images": n_fit, "rec_ll": test.rec_ll,
                   "log_prob": test.log_prob}
    for kind in KINDS:
        features = getattr(test, kind)

        def clustered(kind: str = kind, features: np.ndarray = features) -> dict:
            if faithful:
                clusters = evaluate.cluster_classify(features, test.labels, n_classes,
                                                     evaluate.new_kmeans(n_classes, wanted.seed))
            else:
                clusters = evaluate.cluster_transfer(getattr(train, kind), train.labels, features,
                                                     test.labels, n_classes, wanted.seed)
            if confusions is not None:
                confusions[f"{protocol}_{kind}_kmeans"] = confusion(
                    test.labels, clusters.prediction, n_classes)
            return interval(clusters.prediction == test.labels, wanted)

        def probed(correct: np.ndarray, features: np.ndarray = features) -> dict:
            check_finite(features, "presences")  # else the first class is called the answer
            return interval(correct, wanted)

        def fitted(kind: str = kind, features: np.ndarray = features) -> dict:
            if isinstance(train, NotMeasurable):
                raise train
            predicted = evaluate.logistic_probe(getattr(train, kind), train.labels, features)
            return interval(predicted == test.labels, wanted)

        if not faithful and train is None:
            continue
        put(found, f"{kind}_kmeans", clustered)
        correct = getattr(test, f"{kind}_correct")
        if correct is not None:
            put(found, f"{kind}_probe", partial(probed, correct))
        if train is not None:
            put(found, f"{kind}_logistic", fitted)
    return found


def checks(protocols: dict, wanted: sections.Evaluate) -> list[dict]:
    """What a run that has learned must show on images it was not trained on."""
    before, after = (protocols["clean"][moment]["rec_ll"] for moment in ("initial", "final"))
    found = [{"check": RECONSTRUCTION, "initial": before, "final": after,
              "required": True, "passed": bool(after > before),
              "says": f"held-out rec_ll {shown(before, 2)} -> {shown(after, 2)}"}]
    for protocol, name, words, required in PROBES:
        moments = [protocols[protocol][moment] for moment in ("initial", "final")]
        if not all(name in moment for moment in moments):
            continue
        initial, final = (moment[name] for moment in moments)
        if initial is None or final is None:  # what could not be measured has not been shown
            found.append({"check": words, "protocol": protocol, "initial": initial and initial["value"],
                          "final": final and final["value"], "required": required, "passed": False,
                          "says": f"{words} {shown(initial)} -> {shown(final)}"})
            continue
        gain = evaluate.exceeds(evaluate.Accuracy(**final), evaluate.Accuracy(**initial))
        found.append({
            "check": words, "protocol": protocol, "initial": initial["value"],
            "final": final["value"], "required": required, "standard_errors": gain,
            "passed": bool(gain >= wanted.standard_errors),
            "says": f"{words} {initial['value']:.3f} -> {final['value']:.3f} ({gain:+.1f} standard "
                    f"errors, {wanted.standard_errors:g} {'required' if required else 'wished'})"})
    return found


def command(preset: Preset = "digits", seed: Seed = 0, overrides: Set = None, device: Device = None,
            on: Annotated[str | None, typer.Option(
                metavar="SOURCE", help="Test on this data source instead, as affnist.")] = None,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """What the capsules know about the classes, before and after training."""
    run(settings.load_preset(preset, overrides, params), seed, results, device, on)


main = Program("python -m pipelines.evaluate", command)


if __name__ == "__main__":
    raise SystemExit(main())
