"""How a row of an ablation is measured: under both protocols, on the CPU, from what its training left.

    runs/ablation-complete-0-0123abcd4567/step-00010000/    the last checkpoint
    runs/ablation-complete-0-0123abcd4567/trained.json      what the results will say of the training

So the measures depend on the weights alone, whatever they were trained on, and may be taken later or elsewhere.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

import port
from pipelines.prepare import dataset_for
from pipelines.support import locks, run_folders, sections, settings
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.training import given_weights
from pipelines.training.rows import TRAINED, Row, read
from port.checkpoints import run_files
from port.configuration.fields import from_mapping
from port.data import dataset as data
from port.data.streams import Examples
from port.evaluation import clustering as evaluate
from port.evaluation import collected, looks
from port.evaluation import constellation as evaluate_constellation
from port.training import resume, sound

# Kinds of models with the object capsules that a row is measured by; those of `ocae` begin with parts that are given.
KINDS = ("scae", "hierarchy", "constellation")


def check(preset: settings.Preset) -> None:
    """Refuse, before anything is trained, a preset whose rows could not be made or measured.

    Raises:
        BadInput: another kind of model, or one that begins with given weights.
    """
    kind = preset.config().kind
    if kind not in KINDS:
        raise BadInput(f"preset {preset.name}: an ablation takes models {', '.join(KINDS[:-1])} and {KINDS[-1]}, "
                       f"not {kind}")
    given_weights.refuse(preset, "every row of an ablation")


def check_labels(dataset: Examples, preset: settings.Preset) -> None:
    """Refuse images that nothing could be measured on.

    Raises:
        BadInput: they have no labels.
    """
    if isinstance(dataset, data.Dataset) and not dataset.n_classes:
        raise BadInput(f"preset {preset.name}: its images have no labels, by which the rows of an ablation are "
                       "measured")


def steps_of(checkpoints: Path) -> int | None:
    """Updates of a row that is trained and waits to be measured; None where none waits."""
    told = read(checkpoints / TRAINED, {"metrics": {"steps": run_files.count}})
    return None if told is None else told["metrics"]["steps"]


def write(checkpoints: Path, folder: str, name: str, row: Row, preset: settings.Preset, more: dict) -> None:
    """Say beside a row's last checkpoint what its results will say of the training.

    Args:
        checkpoints: of the row.
        folder: of the ablation's rows, below the results.
        name: of the row.
        row: what it changes.
        preset: with the row's changes.
        more: `seed`, and the `metrics`, `config` and `environment` of the training.
    """
    write_json(checkpoints / TRAINED, {"folder": folder, "row": name, "changes": vars(row), "preset": preset.name,
                                       "sections": preset.as_params(), **more})


def waiting(runs: Path) -> list[Path]:
    """Checkpoints of the rows that wait to be measured."""
    return sorted(path.parent for path in runs.glob(f"ablation-*/{TRAINED}") if resume.checkpoints(path.parent))


def measure_trained(checkpoints: Path, results: str | os.PathLike = settings.RESULTS, alone: bool = True) -> Path:
    """Measure a row that is trained, write its results, and give up its checkpoints.

    Args:
        checkpoints: with `trained.json` beside them.
        results: folder of the results.
        alone: hold the row's folder; False where whoever calls does.

    Returns:
        The row's folder.

    Raises:
        BadInput: no such row, weights that do not fit its settings, or data that it was not trained on.
    """
    try:
        told = json.loads((checkpoints / TRAINED).read_text(encoding="utf-8"))
        given = dict(told["sections"])
        preset = settings.Preset(told["preset"], given, given.pop("model"))
        row = from_mapping(Row, told["changes"], str(checkpoints / TRAINED))
        folder = settings.folder_of(told["folder"], told["row"], told["seed"], results)
        # There may be one of more steps: a row that was trained for longer before.
        last = checkpoints / f"step-{told['metrics']['steps']:08d}"
        check_weights(last)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{checkpoints}: no row that is trained ({error})") from None
    if alone:
        with locks.held(folder, "measures"):
            return measure_trained(checkpoints, results, alone=False)
    model = port.build(preset.config(), told["seed"])
    try:
        model.load_state_dict(resume.read_tensors(last, "model", "cpu"))
    except (RuntimeError, KeyError) as error:
        raise BadInput(f"{last}: weights of other settings ({' '.join(str(error).split())[:200]})") from None
    model.eval()
    dataset = dataset_for(preset, results)
    run_folders.check_data(last, dataset)
    found = measure(model, dataset, preset.evaluate(), row, preset.train(told["seed"])[0].shift)
    parameters = sum(p.numel() for p in model.parameters())
    write_json(folder / "environment.json", told["environment"])
    write_json(folder / "config.json", told["config"])
    end = told["metrics"].pop("last")
    write_json(folder / "metrics.json", told["metrics"] | {"parameters": parameters, "protocols": found, "last": end})
    sound.discard(checkpoints)
    return folder


def check_weights(checkpoint: Path) -> None:
    """Compare the weights with their checksums; of a parcel from elsewhere they may be all that came along.

    Raises:
        Damaged: they are not as they were written.
        OSError, ValueError, KeyError: they, or their checksums, are not there.
    """
    known = json.loads((checkpoint / sound.CHECKSUMS).read_text(encoding="utf-8"))
    for name in [name for name in known if name.startswith("model")]:
        if sound.sha256(checkpoint / name) != known[name]:
            raise sound.Damaged(f"{name} is not as it was written")


def measure(model: torch.nn.Module, dataset, wanted: sections.Evaluate, row: Row, shift: str = "original") -> dict:
    """Accuracies and likelihoods under both protocols; of a repaired protocol under that one alone.

    Rows are compared on the same images, so one whose training drew places otherwise finds them at the original's.
    """
    shift = "original" if shift in looks.DRAWN else shift
    if isinstance(model, port.ConstellationAutoencoder):
        found = {}
        for protocol, noise_seed in (("clean", None), ("faithful", wanted.seed)):
            seen = evaluate_constellation.collect(model, dataset.test, wanted.batch_size,
                                                  noise_seed=noise_seed)
            found[protocol] = {"segmentation": seen.accuracy, "log_prob": seen.log_prob}
        return found
    if row.protocol is not None:
        return {"repaired": under(model, dataset, wanted, noise=row.protocol != "noise",
                                  whole=row.protocol != "whole_batches", refit=row.protocol != "refit",
                                  shift=shift)}
    clean = shift if wanted.clean_shift else looks.still(shift)
    return {"clean": under(model, dataset, wanted, noise=False, whole=False, refit=False, shift=clean),
            "faithful": under(model, dataset, wanted, noise=True, whole=True, refit=True, shift=shift)}


def under(model: torch.nn.Module, dataset, wanted: sections.Evaluate, noise: bool, whole: bool, refit: bool,
          shift: str) -> dict[str, float]:
    """The measures of an image model under one protocol, of images placed as `looks.batches` says of `shift`."""
    def collect(split, seed: int) -> collected.Collected:
        return collected.collect(model, split, model.config.canvas, wanted.batch_size, seed, noise=noise,
                                 whole_batches=whole, shift=shift)

    test = collect(dataset.test, wanted.seed)
    found = {"rec_ll": test.rec_ll}
    fit = None if refit else collect(dataset.train, wanted.seed + 100)
    for kind in ("posterior", "prior"):
        features = getattr(test, kind)
        if fit is None:
            clusters = evaluate.cluster_classify(features, test.labels, dataset.n_classes,
                                                 evaluate.new_kmeans(dataset.n_classes, wanted.seed))
        else:
            clusters = evaluate.cluster_transfer(getattr(fit, kind), fit.labels, features, test.labels,
                                                 dataset.n_classes, wanted.seed)
        found[f"{kind}_kmeans"] = float((clusters.prediction == test.labels).mean())
        probed = getattr(test, f"{kind}_correct")
        if probed is not None:
            found[f"{kind}_probe"] = float(probed.mean())
    return found
