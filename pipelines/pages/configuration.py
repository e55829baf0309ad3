"""Every configuration key with type, default, range, source and meaning, from the configuration classes."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from pipelines.pages.text import cell, table
from pipelines.support import sections, settings
from pipelines.training import rows
from port import config
from port.capsnet import settings as capsnet_settings
from port.configuration import limits
from port.configuration.fields import CHOICES
from port.constellation import config as constellation
from port.em import settings as em_settings
from port.em.config import EMConfig
from port.em.losses import MARGINS
from port.scae import config as scae
from port.scae import config_modes as modes
from port.training import schedule


class Key(NamedTuple):
    """One setting.

    Attributes:
        name: as it is written in params.yaml, `--set` or `--config`.
        kind: its type in words.
        default: as YAML writes it.
        range: what is allowed.
        source: whose setting it is.
        meaning: from the docstring of its class.
    """

    name: str
    kind: str
    default: str
    range: str
    source: str
    meaning: str


class Group(NamedTuple):
    """Settings that stand together on the page: a title, what is said of them, and the keys."""

    title: str
    about: str
    keys: list[Key]


def meanings(kind: type) -> dict[str, str]:
    """Attribute → its description, from the docstrings of a class and its parents."""
    found: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        text = inspect.cleandoc(parent.__doc__ or "").partition("Attributes:\n")[2]
        text = re.split(r"\n\n?(?=\S)", text)[0]
        for name, words in re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", text, re.M):
            words = " ".join(words.split())
            found[name] = words[:1].upper() + words[1:]
    return found


def about(kind: type) -> str:
    """What the docstring of a class says before its attributes."""
    text = inspect.cleandoc(kind.__doc__ or "")
    return re.split(r"\n(?:Attributes|Raises):\n", text)[0].strip()


def type_in_words(hint: Any) -> str:
    """A type annotation for people who do not write Python."""
    if isinstance(hint, types.UnionType):
        return " or ".join(dict.fromkeys(type_in_words(option) for option in typing.get_args(hint)))
    if typing.get_origin(hint) in (tuple, list):
        return f"list of {type_in_words(typing.get_args(hint)[0])}s"
    words = {int: "whole number", float: "number", bool: "true or false", str: "word", dict: "keys and values",
             types.NoneType: "null", list: "list", tuple: "list"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def as_yaml(value: Any) -> str:
    """A default as params.yaml would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(as_yaml(item) for item in value)}]"
    return str(value)


def range_in_words(limit: limits.Limits | None, choices: tuple[str, ...] | None) -> str:
    """What is allowed, as `at least 1` or a list of words; a dash where nothing is excluded."""
    if choices:
        return ", ".join(f"`{as_yaml(choice)}`" for choice in choices)
    sides = (("at least", limit.at_least), ("above", limit.above), ("at most", limit.at_most),
             ("below", limit.below)) if limit else ()
    return ", ".join(f"{words} {bound:,}" for words, bound in sides if bound is not None) or "–"


def tried(kind: type, name: str, default: Any) -> str:
    """The lower end of a range that a class checks in its own code, found by building it."""
    number = default[0] if isinstance(default, tuple) and default else default
    if isinstance(number, bool) or not isinstance(number, int | float):
        return "–"

    def taken(value: float) -> bool:
        value = type(number)(value)
        try:
            kind(**{name: (value,) * len(default) if isinstance(default, tuple) else value})
        except ValueError:
            return False
        return True
    if taken(-1):
        return "–"
    if taken(0):
        return "at least 0"
    return "at least 1" if isinstance(number, int) else "above 0"


# Keys of `train` that are no settings of the loop (`pipelines.support.settings.BESIDE_LOOP` has their types).
BESIDE_LOOP = {
    "wandb": "Whether Weights & Biases follows the run: not at all, in a file, or uploaded at once.",
    "wandb_project": "Project there.",
    "wandb_team": "Team there.",
    "run_name": "Name of the run there and of its numbered folder.",
    "start_from": "A trained preset whose weights the run starts from.",
    "parts": "A preset or a model's folder whose part capsules the run starts from, or keeps (`model: ocae`).",
    "continue_from": "A converted checkpoint, or the folder or preset of another run, that training goes on from: "
                     "weights, optimizer slots and step.",
    "epochs": "Passes over the training images, in place of `steps`.",
    "lr_decay_epochs": "Passes a factor of the decay, in place of `lr_decay_steps`.",
}


def keys_of(kind: type, spelled: Callable[[str], str], source: Callable[[str], str],
            choices: Mapping[str, tuple[str, ...]] | None = None, skipped: tuple[str, ...] = ()) -> list[Key]:
    """The keys of a dataclass.

    Args:
        kind: the class.
        spelled: field → the key.
        source: field → whose setting it is.
        choices: field → allowed words.
        skipped: fields that are no settings.
    """
    choices, found = choices or {}, []
    hints, words, ranges = typing.get_type_hints(kind), meanings(kind), limits.of(kind)
    for item in dataclasses.fields(kind):
        if item.name in skipped or item.default is dataclasses.MISSING:
            continue
        allowed = choices.get(item.name) if item.type != "bool" else None
        shown = range_in_words(ranges.get(item.name), allowed)
        if shown == "–" and not ranges:
            shown = tried(kind, item.name, item.default)
        found.append(Key(spelled(item.name), type_in_words(hints[item.name]), as_yaml(item.default), shown,
                         source(item.name), words.get(item.name, "")))
    return found


def _image_source(section: str) -> Callable[[str], str]:
    def source(name: str) -> str:
        if name in scae.OURS.get(section, ()):
            return "ours"
        flags = [key for key in config.FLAGS if (section, name) in config.FLAT.get(key, ())]
        return f"original's flag `--{flags[0]}`" if flags else "original's class argument"
    return source


def _ours(name: str) -> str:
    return "ours"


def model_groups() -> Iterator[Group]:
    """Section `model` of a preset, family by family."""
    for section, kind in (("", scae.Config), *scae.SECTIONS.items()):
        title = f"Image model: `{section}`" if section else "Image model"
        keys = keys_of(kind, lambda name, at=section: config.flat_name(at, name) if at or name != "unset" else name,
                       _image_source(section), CHOICES, ("unset",))
        if not section:
            keys = [key._replace(source="ours", kind="list of words") if key.name == "repairs" else key
                    for key in keys]
        yield Group(title, about(kind), keys)
    yield Group("Parts alone: `autoencoder`", about(modes.PartLosses) + "\n\nWith `model: pcae`; sizes and "
                "shapes are those of the image model.", keys_of(
                    modes.PartLosses, lambda name: config.flat_name("autoencoder", name, "pcae"), _ours, CHOICES))
    for section, kind in modes.UPPER.items():
        yield Group(f"Three levels: `{section}`", about(kind), keys_of(
            kind, lambda name, at=section: config.flat_name(at, name, "hierarchy"), _ours, CHOICES))
    yield Group("Constellation model", about(constellation.ConstellationConfig), keys_of(
        constellation.ConstellationConfig, str, _ours, CHOICES, ("unset",)))
    for section, kind in constellation.SECTIONS.items():
        yield Group(f"Constellation model: `{section}`", about(kind), keys_of(
            kind, lambda name, at=section: constellation.flat_name(at, name),
            lambda name: "original's class argument", CHOICES))
    yield Group("CapsNet", about(capsnet_settings.Settings), keys_of(
        capsnet_settings.Settings, str, lambda name: "`program: official`, `xg` or `paper`",
        capsnet_settings.CHOICES))
    yield Group("Matrix capsules", about(EMConfig), keys_of(
        EMConfig, str, _ours, {"margin": tuple(MARGINS)}))
    yield Group("Matrix capsules: network", about(em_settings.Network), keys_of(
        em_settings.Network, str, lambda name: "`program: official`, `ibm` or `paper`", em_settings.CHOICES,
        ("routing", "class_routing", "lr", "lr_decay", "lr_decay_steps")))
    yield Group("Matrix capsules: `routing` and `class_routing`", about(em_settings.Routing) + "\n\nA plain name "
                "reaches both kinds of layers; `routing.iterations` or `class_routing.iterations` one of them.",
                keys_of(em_settings.Routing, str, lambda name: "`program: official`, `ibm` or `paper`",
                        em_settings.CHOICES))


def stage_groups() -> Iterator[Group]:
    """The other sections of params.yaml."""
    flags = {"batch_size", "lr", "grad_value_clip", "grad_norm_clip"}
    yield Group("`train`", "How a model is trained. What the model is stands in section `model`.", [
        *keys_of(schedule.Settings, lambda name: f"train.{name}",
                 lambda name: f"original's flag `--{name}`" if name in flags else
                 "original's flag `--max_train_steps`" if name == "steps" else "ours", schedule.CHOICES, ("seed",)),
        Key("train.device", "word", "auto", "`auto`, `cpu`, `cuda`", "ours", "where to train; auto is cuda where "
            "there is one."),
        *(Key(f"train.{name}", type_in_words(kind | None), "null",
              ", ".join(f"`{word}`" for word in settings.WANDB) if name == "wandb" else "–", "ours",
              BESIDE_LOOP[name]) for name, kind in settings.BESIDE_LOOP.items())])
    for section, kind in (
            ("prepare", sections.Prepare), ("evaluate", sections.Evaluate), ("parity", sections.Parity),
            ("convert", sections.Convert), ("equivariance", sections.Equivariance),
            ("report", sections.Report), ("capsnet_dimensions", sections.CapsnetDimensions),
            ("capsnet_reconstruction", sections.CapsnetReconstruction)):
        yield Group(f"`{section}`", about(kind), keys_of(kind, lambda name, at=section: f"{at}.{name}", _ours))
    for section in ("ablation", "ablation_small"):
        yield Group(f"`{section}`", about(rows.Ablation), keys_of(
            rows.Ablation, lambda name, at=section: f"{at}.{name}", _ours))
    yield Group("`ablation.changes`, each row", about(rows.Row), keys_of(
        rows.Row, lambda name: f"ablation.changes.ROW.{name}", _ours))


def groups() -> list[Group]:
    """All of them, in the order of the page."""
    return [*model_groups(), *stage_groups()]


INTRODUCTION = """# Configuration keys

Every run is described by one preset of `params.yaml` and what `--set SECTION.KEY=VALUE` changes in it. A preset has
four sections: `prepare` (which data), `model` (which network), `train` and `evaluate`. The sections of the same name
at the top of the file hold for all presets; a preset's own values win.

Keys of the section `model` are flat. Where the original program had a command-line flag for a setting, the key has the
flag's name, so that its scripts can be read as configurations. Where one name stands for two settings (both the part
and the object capsules have a noise scale), the key is written with its section, as `part_encoder.noise_scale`.
The same keys are accepted by `--set model.KEY=VALUE`, by a file given with `--config`, and by `port.config.from_flat`.

A misspelt key, a word that is not offered or a number outside its range ends the command with exit code 2 and a line
that names the nearest valid one.

This page is written by `python -m pipelines.pages` from the configuration classes when the site is built.
"""


def page() -> str:
    """The page in Markdown."""
    parts = [INTRODUCTION]
    for group in groups():
        parts.append(f"## {group.title}\n\n{group.about}\n")
        parts.append(table(("key", "meaning", "type", "default", "range", "source"),
                           [(f"`{key.name}`", cell(key.meaning), key.kind, f"`{cell(key.default)}`" if key.default
                             else "none", cell(key.range), key.source) for key in group.keys]))
    return "\n".join(parts)
