"""What makes two runs the same: the settings that decide a result, each under one name."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict

import port
from pipelines.support import sections
from port.training import loop as train

# What decides nothing that an evaluation measures. Everything else has to be the same for all seeds.
IGNORED = {f"train.{name}" for name in (*train.NOT_IDENTITY, "seed", "device", "held_out_every",
                                        "held_out_images") if name != "steps"}
IGNORED |= {f"evaluate.{name}" for name in ("device", "threads", "n_pictures", "tsne_images",
                                            "require_learning", "standard_errors")}
IGNORED |= {"prepare.data_root", "prepare.download"}
# Settings that decide nothing while another one has this value.
INERT = {("train.lr_schedule", "constant"): ("train.lr_decay", "train.lr_decay_steps", "train.lr_floor",
                                             "train.lr_staircase", "train.lr_restart_interval"),
         ("train.amp", "none"): ("train.amp_loss_scale",),
         ("train.amp", "bf16"): ("train.amp_loss_scale",)}

# How products are rounded, not what is computed: named beside a result, and no obstacle to a verdict.
ROUNDING = ("train.tf32",)


def flat(config: dict, prefix: str = "") -> dict:
    """Nested settings as `section.key: value`, without what decides nothing."""
    found = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            found |= flat(value, f"{name}.")
        elif name not in IGNORED:
            found[name] = value
    return found


def identity(config: dict) -> dict:
    """Settings that decide a result, each under one name.

    A setting that a run's revision did not know yet counts as its default, which by this project's
    rule is what was done before there was the setting. The flat `model` keys are left out: the
    `arguments` are what they came to.
    """
    kind = {key: value for key, value in config.get("arguments", {}).items() if key == "model"}
    known = {"train": asdict(train.Settings()), "prepare": asdict(sections.Prepare()),
             "evaluate": asdict(sections.Evaluate()),
             "arguments": port.config.from_arguments(kind).to_arguments()}
    given = {key: config[key] for key in known if key in config}
    # By way of JSON: lists come back where a configuration holds tuples.
    found = json.loads(json.dumps(flat({key: known[key] for key in given}) | flat(given)))
    for (key, value), inert in INERT.items():
        if found.get(key) == value:
            found = {name: found[name] for name in found if name not in inert}
    return found


def differences(found: dict, wanted: dict, without: Collection[str] = ()) -> list[str]:
    """`key is 1, not 2` for every key that is not the same, left out here or there too, but for those of `without`."""
    def word(of: dict, key: str) -> str:
        return repr(of[key]) if key in of else "left out"
    absent = object()
    return [f"{key} is {word(found, key)}, not {word(wanted, key)}"
            for key in {**wanted, **found} if key not in without and found.get(key, absent) != wanted.get(key, absent)]
