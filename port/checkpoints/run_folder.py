"""A run as a folder: the model it left in `model/`, and what its config.json says about the data.

`port.load` takes such a folder as it is; nothing else has to be known about the run. The folder of a
numbered run, which holds it, will do too.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from port.checkpoints import run_files
from port.config import AnyConfig
from port.constellation import batches as constellation_batches
from port.data import dataset, sources
from port.training.sound import sha256

MODEL = "model"
ENVIRONMENT = "environment.json"
FILES = ("config.json", "metrics.json", "history.csv")  # of a run, beside its model and environment
CONSTELLATION = "constellation"
# Sections of a config.json, which a folder of a model alone does not have.
SAID = {name + "?": form for name, form in run_files.CONFIG.items() if not name.endswith("?")}
HELD_OUT = "held_out_"  # begins the names of what training read on images that it does not train on


@dataclass(frozen=True)
class Preprocessing:
    """From raw data to what a model takes.

    Attributes:
        kind: of the model: an image is put on its canvas, the points of a constellation are scaled.
        canvas: side of the canvas; 0 for a constellation.
        channels: of the images; 0 for a constellation.
        shift: how training placed its images (`port.data.dataset.SHIFTS`), used when a generator is given.
        max_shift: of the shift `translate`.
        source: the data source of the run, None where nobody recorded it.
        options: arguments of the source.
        data_root: where the run looked for raw data, unless SCAE_DATA says otherwise.
    """

    kind: str
    canvas: int = 0
    channels: int = 0
    shift: str = "original"
    max_shift: int = 2
    source: str | None = None
    options: Mapping[str, Any] | None = None
    data_root: str | None = None

    def __call__(self, raw: np.ndarray | Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What the model takes.

        Images, uint8 `[N, C, H, W]` or grey `[N, H, W]`, become float32 `[N, C, S, S]` in [0, 1], in the
        middle of the canvas or where the generator's draws put them. Points `[N, M, 2]` are scaled
        together: 2·(c - min) / (max - min + 1e-8) - 1 (Q29).

        Args:
            raw: of one kind or the other.
            generator: draws the shifts of images; None is the middle.

        Raises:
            DataError: another type, shape or size.
        """
        raw = torch.as_tensor(raw)
        if self.kind == CONSTELLATION:
            if raw.ndim != 3 or raw.shape[-1] != 2 or not raw.is_floating_point():
                raise dataset.DataError(f"points must be floats [n, points, 2], not {raw.dtype} "
                                     f"{list(raw.shape)}")
            low, high = raw.min(), raw.max()
            return (2.0 * (raw - low) / (high - low + 1e-8) - 1.0).to(torch.float32)
        if raw.ndim == 3:
            raw = raw[:, None]
        if raw.dtype != torch.uint8 or raw.ndim != 4 or raw.shape[1] != self.channels:
            raise dataset.DataError(f"images must be uint8 [n, {self.channels}, height, width]"
                                 + (" or [n, height, width]" if self.channels == 1 else "")
                                 + f", not {str(raw.dtype).removeprefix('torch.')} {list(raw.shape)}")
        return dataset.arrange(raw, self.canvas, self.shift, generator, self.max_shift)

    def load(self, data_root: str | Path | None = None, download: bool = False
             ) -> dataset.Dataset | constellation_batches.PointSettings:
        """The data the run was trained on; of a constellation the generator's settings.

        Args:
            data_root: None is the variable SCAE_DATA, else the run's own, else `data`.
            download: fetch what is missing.

        Raises:
            DataError: nobody recorded the source, or it is not there.
        """
        options = dict(self.options or {})
        if self.kind == CONSTELLATION:
            drawn = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()
                     if k in constellation_batches.PointSettings.__dataclass_fields__}
            return constellation_batches.PointSettings(**drawn)
        if self.source is None:
            raise dataset.DataError("this model's folder names no data source; load the folder of its run")
        root = data_root or os.environ.get("SCAE_DATA") or self.data_root
        return sources.load(self.source, root, download, **options)


def is_run(folder: str | Path) -> bool:
    """Whether a folder is a run's: its model lies one level below."""
    folder = Path(folder)
    return not (folder / "model.safetensors").is_file() and (folder / MODEL).is_dir()


def located(folder: str | Path) -> Path:
    """The run that a path leads to: itself, or the only one of a results folder, such as runs/digits/1.

    Raises:
        DataError: there are several.
    """
    folder = Path(folder)
    if is_run(folder) or (folder / "config.json").is_file():
        return folder
    found = sorted(path.parent for path in folder.glob("train/*/*/config.json"))
    if len(found) > 1:
        raise dataset.DataError(f"{folder} holds several runs; name one: {', '.join(map(str, found))}")
    return found[0] if found else folder


def settings_of(folder: str | Path) -> dict[str, Any]:
    """What a run's config.json says: preset, and the sections prepare, model, train, evaluate.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise dataset.DataError(f"{path} is missing; a run's folder holds config.json beside model/")
    try:
        return run_files.read(path, SAID)
    except OSError as error:
        raise dataset.DataError(f"{path}: cannot be read ({error})") from None


def steps(folder: str | Path) -> int | None:
    """Updates that the model of a run has seen, as its metrics.json says; None where it does not say so."""
    return _said(folder, "steps")


def seconds(folder: str | Path) -> float | None:
    """How long the model of a run was trained, as its metrics.json says; None where it does not say so."""
    return _said(folder, "seconds")


def _said(folder: str | Path, name: str) -> Any:
    try:
        found = _numbers(Path(folder) / "metrics.json").get(name)
    except dataset.DataError:
        return None
    return found if isinstance(found, int | float) and math.isfinite(found) else None


def digests(folder: str | Path) -> dict[str, str]:
    """SHA-256 of the files of a run by their paths in the folder; environment.json, which holds them, and
    the model card, which may be written on, are left out."""
    folder = Path(folder)
    names = [folder / name for name in FILES] + sorted((folder / MODEL).iterdir())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in names
            if path.is_file() and path.suffix != ".md"}


def held_out(row: Mapping[str, float | None]) -> dict[str, float]:
    """Of a row of training what was measured on images that training never saw."""
    return {name: value for name, value in row.items() if name.startswith(HELD_OUT) and value is not None}


def measured(folder: str | Path) -> dict[str, float]:
    """What a run and its evaluation measured, by name, as a model card shows it; empty where nothing was.

    Of the evaluation these are the values at the last step without noise, if it was one of these very weights.

    Raises:
        DataError: a file of metrics cannot be read.
    """
    run = located(folder).absolute()
    found = held_out(_numbers(run / "metrics.json"))
    for path, evaluation in evaluated(run):
        if path.parents[1].name == run.parent.name:  # on its own data
            final = evaluation["protocols"].get("clean", {"final": {}})["final"]
            found |= {f"test_{name}": told["value"] for name, told in final.items()
                      if isinstance(told, dict) and told.get("value") is not None}
    return found


def evaluated(folder: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Files of metrics that evaluations of a run's very weights left, with what they hold; on its own data first.

    They lie in `evaluate/<preset>/<seed>` and `evaluate/<preset>_on_<source>/<seed>` of the same results.

    Raises:
        DataError: one of them cannot be read.
    """
    run = located(folder).absolute()
    weights = run_files.read(run / ENVIRONMENT, run_files.ENVIRONMENT, {}).get("weights")
    if weights is None or len(run.parents) < 3:
        return []
    results, preset, seed = run.parents[2] / "evaluate", run.parent.name, run.name
    others = sorted(path for path in results.iterdir() if path.name.startswith(f"{preset}_on_")
                    and (path / seed / "metrics.json").is_file()) if results.is_dir() else []
    paths = [folder / seed / "metrics.json" for folder in (results / preset, *others)]
    found = [(path, run_files.read(path, run_files.EVALUATION, {})) for path in paths]
    return [(path, one) for path, one in found if one.get("weights") == weights]


def _numbers(path: Path) -> dict[str, Any]:
    try:
        return run_files.read(path, run_files.ROW, {})
    except OSError as error:
        raise dataset.DataError(f"{path}: cannot be read ({error})") from None


def check_whole(folder: str | Path) -> None:
    """Compare the files of a run with what its environment.json says that it left.

    A run of an earlier version says it of the weights alone, or of nothing. A file that is not there is
    missed by whoever reads it.

    Raises:
        DataError: a file is another run's.
    """
    path = Path(folder) / ENVIRONMENT
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return
    except ValueError as error:
        raise dataset.DataError(f"{path}: cannot be read ({error})") from None
    said = said if isinstance(said, dict) else {}
    left = said.get("files")
    if not isinstance(left, dict):
        left = {f"{MODEL}/model.safetensors": said.get("weights")}
    for name, digest in left.items():
        file = Path(folder) / name
        if file.is_file() and isinstance(digest, str) and not sha256(file).startswith(digest):
            raise dataset.DataError(f"{folder} mixes files of several runs: {name} is not what the run in "
                                 f"{ENVIRONMENT} left; put that one back, or train again")


def preprocessing(config: AnyConfig, settings: Mapping[str, Any] | None = None) -> Preprocessing:
    """The preprocessing of a model, with what the settings of its run add."""
    settings = settings or {}
    prepare, training = settings.get("prepare") or {}, settings.get("train") or {}
    # Of own images the place and size are arguments of the source too.
    options = {**(prepare.get("options") or {}), **{
        name: prepare[name] for name in ("path", "size") if prepare.get(name) is not None}}
    shift = training.get("shift", "original")
    if shift not in tuple(dataset.SHIFTS):
        raise dataset.DataError(f"train.shift {shift!r}: use one of {', '.join(dataset.SHIFTS)}")
    images = config.kind != CONSTELLATION
    return Preprocessing(config.kind, config.canvas if images else 0, config.channels if images else 0,
                         shift, training.get("max_shift", 2), prepare.get("source"),
                         options or prepare.get("options"), prepare.get("data_root"))
