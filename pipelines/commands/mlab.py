"""The ML@B port's options of `scae train`, as settings of a preset.

mlberkeley/scae-pytorch has one command with the options below. Each is turned into the setting of this
project that does the same thing; the preset `mlab` holds their defaults. An option that a model has no
use for is refused, so that none is ignored in silence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pipelines import families
from pipelines.support.settings import Preset
from pipelines.support.values import BadInput
from port.configuration.fields import unknown
from port.scae.config_modes import FLATS

Keys = dict[str, Any]


class Option(NamedTuple):
    """Where an option goes: section and key, and the models that have no use for it."""

    section: str
    key: str
    not_for: tuple[str, ...] = ()


# Models of other programs, each with presets of its own (`pipelines.families`) and none of the options of
# parts and objects.
ROUTING = tuple(dict.fromkeys(name for name, _ in families.PRESETS))
OF_PARTS_AND_OBJECTS = ("pcae_", "ocae_", "alpha_channel", "inverse_space_transform", "parts")

# Options that are one setting each. The others (rates, weight decay, scheduler) are below.
PLAIN: Mapping[str, Option] = {
    "batch_size": Option("train", "batch_size"),
    "num_epochs": Option("train", "epochs"),
    "debug": Option("train", "debug"),
    "deterministic": Option("train", "deterministic"),
    "data_workers": Option("train", "data_workers", ("ccae",)),
    "pcae_num_caps": Option("model", "n_part_caps", ("ccae",)),
    "pcae_caps_dim": Option("model", "n_part_caps_dims", ("ccae",)),
    "pcae_feat_dim": Option("model", "n_part_special_features", ("ccae",)),
    "pcae_lr_decay": Option("train", "lr_decay"),
    "pcae_lr_restart_interval": Option("train", "lr_restart_interval"),
    "pcae_optimizer": Option("train", "optimizer"),
    "pcae_loss_ll_coeff": Option("model", "rec_ll_weight", ("ccae", "ocae")),
    "pcae_loss_temp_l1_coeff": Option("model", "template_l1_weight", ("ccae", "ocae")),
    "pcae_loss_mse_coeff": Option("model", "mse_weight", ("ccae", "ocae")),
    "alpha_channel": Option("model", "use_alpha_channel", ("ccae",)),
    "inverse_space_transform": Option("model", "inverse_space_transform", ("ccae",)),
    "parts": Option("train", "parts", ("ccae", "pcae")),
    "log_run_name": Option("train", "run_name"),
    "log_project": Option("train", "wandb_project"),
    "log_team": Option("train", "wandb_team"),
    "log_frequency": Option("train", "log_every"),
}
NO_USE = {"pcae_lr": ("ccae", "ocae"), "pcae_decoder_lr_coeff": ("ccae", "ocae"), "ocae_lr": ("pcae",)}
OPTIMIZERS = ("tf-rmsprop", "rmsprop", "sgd", "adam", "radam")  # those its --pcae-optimizer takes
SCHEDULERS: Mapping[str, Keys] = {
    "none": {"lr_schedule": "constant"},
    "exp": {"lr_schedule": "exponential", "lr_decay_epochs": 1, "lr_staircase": True},
    "cosrestarts": {"lr_schedule": "cosine_restarts"}}

# Data sets: where the images come from, and the settings of a model that have to fit them.
_SMALL, _LARGE = [2, 1, 1, 1], [2, 2, 1, 1]
DATASETS: Mapping[str, tuple[Keys, Keys]] = {
    "mnist": ({}, {"canvas_size": 40, "n_channels": 1, "strides": _LARGE}),
    "usps": ({}, {"canvas_size": 20, "n_channels": 1, "strides": _SMALL}),
    "cifar10": ({}, {"canvas_size": 32, "n_channels": 3, "strides": _LARGE}),
    "svhn": ({}, {"canvas_size": 32, "n_channels": 3, "strides": _LARGE}),
    "svhn_head": ({}, {"canvas_size": 32, "n_channels": 3, "strides": _LARGE}),
    "digits": ({"options": {"enlarge": 16, "test_share": 0.25, "split_seed": 0}},
               {"canvas_size": 20, "n_channels": 1, "strides": _SMALL})}
CONSTELLATION = {"model": "constellation", "prior_within_example_sparsity_weight": 1.0,
                 "posterior_within_example_sparsity_weight": 0.0,
                 "posterior_between_example_sparsity_weight": 0.0}


def of_kind(kind: str) -> Callable[[Keys, Keys], tuple[Keys, Keys]]:
    """The image model of a kind: the settings it shares with the one before."""
    def change(model: Keys, prepare: Keys) -> tuple[Keys, Keys]:
        if prepare.get("source") == "constellation":
            raise BadInput("an image model needs images: name them with --dataset")
        kept = {key: value for key, value in model.items() if key in FLATS[kind]}
        return {"model": kind} | kept, prepare
    return change


def constellation(model: Keys, prepare: Keys) -> tuple[Keys, Keys]:
    """The constellation autoencoder, which brings its data along."""
    if model.get("model") == "constellation":
        return model, prepare
    shared = {key: prepare[key] for key in ("data_root", "download") if key in prepare}
    return dict(CONSTELLATION), shared | {"source": "constellation",
                                          "options": {"examples": 10_000, "seed": 0}}


# The choices of --model: name to what becomes of the preset's sections `model` and `prepare`.
MODELS: dict[str, Callable[[Keys, Keys], tuple[Keys, Keys]]] = {
    "ccae": constellation, "pcae": of_kind("pcae"), "ocae": of_kind("ocae"), "scae": of_kind("scae"),
    "hierarchy": of_kind("hierarchy")}


WORDS = (*MODELS, *ROUTING)  # all of --model


def name_of(model: Keys) -> str:
    """The word of --model for a preset's section `model`."""
    kind = model.get("model") or "scae"
    return "ccae" if kind == "constellation" else kind


def apply(preset: Preset, options: Mapping[str, Any]) -> Preset:
    """A preset with the options that were given.

    Args:
        preset: what the options change.
        options: by name; None is not given.

    Raises:
        BadInput: an unknown choice, or an option the model has no use for.
    """
    given = {name: value for name, value in options.items() if value is not None}
    sections = {name: dict(section) for name, section in preset.sections.items()}
    model, section = dict(preset.model), sections["train"]
    if "dataset" in given:
        model, sections["prepare"] = _on(given["dataset"], model, sections["prepare"], given.get("model"))
    if "model" in given:
        _check("--model", given["model"], WORDS)
        model, sections["prepare"] = MODELS[given["model"]](model, sections["prepare"])
    kind = name_of(model)
    for name in given:
        useless = PLAIN[name].not_for if name in PLAIN else NO_USE.get(name, ())
        if kind in useless or (kind in ROUTING and name.startswith(OF_PARTS_AND_OBJECTS)):
            raise BadInput(f"{flag(name)}: the model {kind} has no use for it; leave it out")
    if "pcae_optimizer" in given:
        _check("--pcae-optimizer", given["pcae_optimizer"], OPTIMIZERS)
    for name in PLAIN.keys() & given.keys():
        (model if PLAIN[name].section == "model" else section)[PLAIN[name].key] = given[name]
    if "log_upload" in given:
        section["wandb"] = "online" if given["log_upload"] else "none"
    if "pcae_lr_scheduler" in given:
        _check("--pcae-lr-scheduler", given["pcae_lr_scheduler"], SCHEDULERS)
        for key in SCHEDULERS["exp"]:
            section.pop(key, None)
        section |= SCHEDULERS[given["pcae_lr_scheduler"]]
    for name, scheduler in (("pcae_lr_decay", "exp"), ("pcae_lr_restart_interval", "cosrestarts")):
        wanted = SCHEDULERS[scheduler]["lr_schedule"]
        if name in given and section.get("lr_schedule", "constant") != wanted:
            raise BadInput(f"{flag(name)} counts with --pcae-lr-scheduler {scheduler} alone; give "
                           "that too, or leave it out")
    if given.keys() & {"model", "pcae_lr", "ocae_lr", "pcae_decoder_lr_coeff"}:
        rates(section, model, given)
    if given.keys() & {"pcae_weight_decay", "pcae_optimizer"}:
        weight_decay(section, model, given.get("pcae_weight_decay"))
    return Preset(preset.name, sections, model)


def flag(name: str) -> str:
    """An option as it is typed."""
    return {"deterministic": "--non-deterministic", "inverse_space_transform":
            "--pcae-no-inverse-space-transform"}.get(name, f"--{name.replace('_', '-')}")


def _check(what: str, value: str, allowed) -> None:
    if value not in allowed:
        raise BadInput(f"{what}: {unknown('value', value, allowed)}")


def _on(source: str, model: Keys, prepare: Keys, wanted: str | None) -> tuple[Keys, Keys]:
    """Another data set, and a model whose canvas and channels fit it."""
    _check("--dataset", source, (*DATASETS, "constellation"))
    if (source == "constellation") != ((wanted or name_of(model)) == "ccae"):
        raise BadInput(f"--dataset {source}: constellations and --model ccae belong together")
    if source == prepare.get("source") or source == "constellation":
        return model, prepare
    kept = {key: value for key, value in prepare.items() if key not in ("source", "options")}
    more, fit = DATASETS[source]
    n_layers = len(model.get("output_channels", _LARGE))
    return model | fit | {"strides": (fit["strides"] + [1] * n_layers)[:n_layers]}, kept | {
        "source": source} | more


def rates(section: Keys, model: Keys, given: Mapping[str, Any]) -> None:
    """Rate of the parts, of their decoder and of the objects, as one rate and factors on it.

    The schedule moves all of them alike.
    """
    kind = name_of(model)
    now, factors = float(section.get("lr", 3e-5)), section.get("lr_factors") or {}
    parts, objects = given.get("pcae_lr"), given.get("ocae_lr")
    parts = now if parts is None else parts
    objects = now * factors.get("object_decoder.", 1.0) if objects is None else objects
    decoder = given.get("pcae_decoder_lr_coeff")
    decoder = factors.get("part_decoder.", 1.0) if decoder is None else decoder
    if not (0 < parts < math.inf and 0 < objects < math.inf):
        raise BadInput("--pcae-lr and --ocae-lr must be above 0, and finite")
    found = {} if kind in ("ccae", "ocae") else {"part_decoder.": decoder}
    if kind in ("scae", "hierarchy"):
        prefixes = ["object_encoder.", "object_decoder.", *["probes."] * bool(model.get("probe", True)),
                    *["upper."] * (kind == "hierarchy")]
        found |= dict.fromkeys(prefixes, objects / parts)
    section["lr"] = objects if kind in ("ccae", "ocae") else parts
    section["lr_factors"] = found if any(factor != 1.0 for factor in found.values()) else None


def weight_decay(section: Keys, model: Keys, value: float | None) -> None:
    """Weight decay where the update rule has its own, else in the loss as in the original."""
    if value is None:
        value = section.get("weight_decay") or model.get("weight_decay") or 0.0
    in_loss = section.get("optimizer", "tf-rmsprop").startswith("tf-")
    if in_loss and value and name_of(model) == "ccae":
        raise BadInput("--pcae-weight-decay: the constellation's loss has none; take another "
                       "--pcae-optimizer than tf-rmsprop")
    section["weight_decay"] = 0.0 if in_loss else value
    if "weight_decay" in FLATS.get(model.get("model") or "scae", {}):
        model["weight_decay"] = value if in_loss else 0.0
