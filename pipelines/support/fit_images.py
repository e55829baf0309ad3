"""Settings that fit own images: what a preset leaves open is taken from the data.

    scae train --data pictures

takes the preset's sizes for those of other images; in params.yaml a preset whose `prepare.source` is
`folder` or `npz` leaves them out of its `model`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.support.own_images import KINDS, checked_options, checked_size, found_at, halves, look, path_of
from pipelines.support.values import BadInput
from port.data import root as data_root

# Family → its names for canvas, channels and classes; the autoencoders' are the original's flags.
NAMES = {"capsnet": ("canvas", "channels", "classes"), "em": ("canvas", "image_channels", "classes")}
FLAGS = ("canvas_size", "n_channels", "n_classes")
SMALLEST = 11  # pixels that four 3x3 convolutions leave 3x3 of
STRIDES = ([2, 2, 1, 1], [2, 1, 1, 1], [1, 1, 1, 1])


@dataclass(frozen=True)
class Facts:
    """What settings have to fit: channels, larger side in pixels, classes (0: no labels), test images."""

    channels: int
    side: int
    classes: int
    tested: int


def is_own(section: Mapping[str, Any]) -> bool:
    """Whether a section `prepare` names own images."""
    return section.get("source") in KINDS


def facts(source: str, path: Path, size: int | None = None, options: Mapping[str, Any] | None = None
          ) -> Facts:
    """What settings have to fit, without decoding a picture.

    Raises:
        BadInput: as `scan`, `look` and `unpacked`.
    """
    own = found_at(source, path)
    if source == "npz":
        shapes = [images.shape for images, _ in own.parts.values()]
        channels, sizes = shapes[0][1], {shape[2:] for shape in shapes}
    else:
        channels, sizes = look([file for files, _ in own.parts.values() for file in files])
    checked_size(size)
    if len(sizes) > 1 and size is None:
        shown = sorted(sizes)
        raise BadInput(f"own images {path}: of {shown[0][0]}x{shown[0][1]} and {shown[-1][0]}x"
                       f"{shown[-1][1]} pixels; give one size, or have them cut square and resampled: "
                       "prepare.size")
    tested = len(own.parts["test"][1]) if "test" in own.parts else len(
        halves(own.parts["all"][1], where=path, **checked_options(options))[1])
    return Facts(channels, size or max(max(one) for one in sizes), len(own.classes), tested)


def fit(sections: Mapping[str, dict], model: Mapping[str, Any], before: Mapping[str, Any], said: set[str]
        ) -> tuple[dict[str, dict], dict[str, Any]]:
    """Settings of a preset, with what they leave open taken from its own images.

    Args:
        sections: `prepare`, `train`, `evaluate`.
        model: flat keys.
        before: section `prepare` as the preset has it. Where the source is another one now, the preset's
            sizes are those of other images and give way, unless they are said.
        said: settings that the command line names, as `model.canvas_size`.

    Raises:
        BadInput: images that are not there or cannot be used, or a classifier and no labels.
    """
    section, kept = dict(sections["prepare"]), dict(model)
    if not is_own(section):
        return dict(sections), kept
    if any(before.get(key) != section.get(key) for key in ("source", "path", "size")):
        kind = model.get("model") or "scae"
        gone = {*NAMES.get(kind, FLAGS), *(() if kind in NAMES else ("strides",))}
        kept = {key: value for key, value in model.items() if key not in gone or f"model.{key}" in said}
        if before.get("source") != section["source"] and "prepare.options" not in said:
            section.pop("options", None)
    checked_options(section.get("options"))
    changed = dict(sections) | {"prepare": section}
    if all(key in kept or (key == "n_classes" and kept.get("probe") is False) for key in needed(kept)):
        return changed, kept
    root = os.environ.get(data_root.VARIABLE) or section.get("data_root", "data")
    place = path_of(section.get("path"), root)
    found = facts(section["source"], place, section.get("size"), section.get("options"))
    evaluate = dict(sections["evaluate"])
    if "evaluate.batch_size" not in said:  # one whole batch at least, which the faithful protocol needs
        evaluate["batch_size"] = min(evaluate.get("batch_size") or found.tested, found.tested)
    return changed | {"evaluate": evaluate}, fitted(kept, found)


def needed(model: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys by which a model fits its images."""
    kind = model.get("model") or "scae"
    return NAMES.get(kind, FLAGS[:2] if kind == "pcae" else FLAGS)


def fitted(model: Mapping[str, Any], found: Facts) -> dict[str, Any]:
    """A preset's model keys with what they leave open taken from the data.

    Args:
        model: flat keys; those that are there stay.
        found: of the data.

    Raises:
        BadInput: a classifier, and images without labels.
    """
    kind = model.get("model") or "scae"
    if kind in NAMES and not found.classes:
        raise BadInput(f"model {kind}: a classifier needs labels; give a folder for each class")
    canvas, channels, classes = NAMES.get(kind, FLAGS)
    side = found.side if kind in NAMES else max(found.side, SMALLEST)
    wanted: dict[str, Any] = {canvas: side, channels: found.channels}
    if kind in NAMES:
        wanted[classes] = found.classes
    else:
        layers = len(model.get("output_channels") or STRIDES[0])
        chosen = model.get(canvas) or side
        wanted["strides"] = next((one for one in strides(layers) if grid(chosen, one) >= 3), [1] * layers)
        if kind != "pcae":
            wanted |= {classes: found.classes} if found.classes else {"probe": False}
    return {**wanted, **model}


def strides(layers: int) -> list[list[int]]:
    """Strides of so many convolutions, the coarsest first."""
    return [(one + [1] * layers)[:layers] for one in STRIDES]


def grid(side: int, chosen: list[int]) -> int:
    """Side of the last of 3x3 convolutions without padding."""
    for stride in chosen:
        side = (side - 3) // stride + 1
    return side


def overrides(path: str) -> list[str]:
    """What `--data PATH` means, as words of `--set`: own images, and no verdict on what digits reach."""
    source = "npz" if path.lower().endswith(".npz") else "folder"
    return [f"prepare.source={source}", f"prepare.path={json.dumps(path)}",
            "evaluate.require_learning=false"]
