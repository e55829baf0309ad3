"""What own images turned out to be, whether they lie in a folder or in an `.npz`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("train", "test")


@dataclass(frozen=True)
class Own:
    """What was found: images of one part or of all, with the classes they belong to.

    Attributes:
        name: of the data set in every result; never a standard set's.
        parts: `train` and `test`, or `all`: the pictures' files or images, and labels, -1 for none.
        classes: names in the order of the labels; empty without labels.
        notes: what was left out or changed, in words.
    """

    name: str
    parts: dict[str, tuple[Any, np.ndarray]]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def named(path: Path) -> str:
    """What the data set is called, `own_` and the name of its folder or file."""
    return "own_" + (re.sub(r"[^A-Za-z0-9]+", "_", path.resolve().stem).strip("_") or "images")
