"""What a stage does otherwise for a model family; the image autoencoder is the rule."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

import port.families
from pipelines.support import settings
from pipelines.support.values import BadInput, file_to_write
from port.configuration.fields import unknown

# What measures held-out examples while a family trains (`port.families.FAMILIES`) → module of `pipelines.evaluation`
# with `evaluate(preset, seed, results, dataset, final, place, steps, on)`, which returns what goes into metrics.json;
# None is what stage `evaluate` does itself.
EVALUATIONS = {"collected": None, "parts": "parts", "constellation": "constellation", "classes": "classes"}

# Model and data source → preset: `--model` and `--dataset` on the command line.
PRESETS = {("capsnet", "mnist"): "capsnet_mnist", ("capsnet", "svhn"): "capsnet_svhn",
           ("capsnet", "cifar10"): "capsnet_cifar10", ("em", "mnist"): "em_mnist",
           ("em", "smallnorb"): "em_smallnorb"}


def preset_of(preset: str, model: str | None, dataset: str | None, default: str = "digits") -> str:
    """The preset that a command line names by itself or by model and data source.

    Args:
        preset: of `--preset`.
        model: of `--model`; None is not given.
        dataset: of `--dataset`; None is the model's first.
        default: what `preset` is when nobody gave it.

    Raises:
        BadInput: a model or data source without a preset, or both ways at once.
    """
    if model is None:
        if dataset is not None:
            raise BadInput("--dataset goes with --model; a --preset names its own data source")
        return preset
    if preset != default:
        raise BadInput(f"--preset {preset} and --model {model}: give one of them")
    models = list(dict.fromkeys(name for name, _ in PRESETS))
    if model not in models:
        raise BadInput(f"--model: {unknown('model', model, models)}")
    sources = [source for name, source in PRESETS if name == model]
    if dataset is not None and dataset not in sources:
        raise BadInput(f"--dataset of model {model}: "
                       f"{unknown('data source', dataset, sources)}; another one is a "
                       "preset of your own (params.yaml)")
    return PRESETS[model, dataset or sources[0]]


# Model → module whose `command` times its training step.
BENCHES = {"capsnet": "capsnet", "em": "em"}


def bench(model: str, batch_size: int, repeats: int, threads: int, json_file: str | None) -> None:
    """Time a training step of a routing ancestor beside the floor of its products.

    Raises:
        BadInput: another model, numbers below 1, or a place for the numbers that cannot be made.
    """
    if model not in BENCHES:
        raise BadInput(f"--model: {unknown('model', model, BENCHES)}; the autoencoders "
                       "are timed by --preset")
    if min(batch_size, repeats) < 1:
        raise BadInput("--batch-size and --repeats must be at least 1")
    if threads < 0:
        raise BadInput(f"--threads: {threads} is below 0; 0 is all cores")
    if json_file is not None:
        file_to_write(json_file, "--json")  # before minutes of timing
    module = importlib.import_module(f"pipelines.bench.{BENCHES[model]}")
    module.command(batch=batch_size, repeats=repeats, threads=threads or os.cpu_count() or 1, json_file=json_file)


def evaluation(preset: settings.Preset) -> ModuleType | None:
    """The module that evaluates a preset's family; None for image autoencoders."""
    name = EVALUATIONS[port.families.family_of(preset.config()).evaluation]
    return None if name is None else importlib.import_module(f"pipelines.evaluation.{name}")
