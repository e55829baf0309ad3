"""Sections of params.yaml beside the presets, each a dataclass; and how one is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pipelines.support.values import build, load_params

Section = TypeVar("Section")


@dataclass(frozen=True)
class Prepare:
    """Section `prepare`: where the images come from.

    Attributes:
        source: a name in `port.data.sources.SOURCES`.
        data_root: folder looked at first; the variable SCAE_DATA wins.
        download: fetch what is missing.
        options: arguments of the source.
    """

    source: str = "digits"
    data_root: str = "data"
    download: bool = True
    options: dict | None = None


@dataclass(frozen=True)
class Evaluate:
    """Section `evaluate`.

    Attributes:
        batch_size: images at a time; the faithful protocol uses whole batches only.
        seed: of shifts, noise, k-means and bootstrap.
        bootstrap_draws: samples behind an interval.
        level: share of the draws inside it.
        fit_images: training images at most, the first ones, that k-means of the clean protocol and
            the logistic probes are fitted to; 0 is all of them. The metrics say how many it was.
        baseline_images: training images at most that the fits on raw pixels use.
        tsne_images: test images at most in the t-SNE of the presences, drawn by `seed`; 0 is none.
        n_pictures: images shown with their reconstruction.
        require_learning: fail unless the run has learned.
        standard_errors: by how many the probes must beat their values at step 0.
        clean_shift: shift the images in the clean protocol too; False puts them in the middle.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 leaves the libraries' choice.
    """

    batch_size: int = 128
    seed: int = 0
    bootstrap_draws: int = 2000
    level: float = 0.95
    fit_images: int = 0
    baseline_images: int = 10_000
    tsne_images: int = 1000
    n_pictures: int = 16
    require_learning: bool = False
    standard_errors: float = 3.0
    clean_shift: bool = True
    device: str = "auto"
    threads: int = 0


@dataclass(frozen=True)
class CapsnetDimensions:
    """Section `capsnet_dimensions`: what each number of a class capsule draws.

    Attributes:
        delta: step of a number.
        steps: l; each number goes from -l·δ to +l·δ about its own value.
    """

    delta: float = 0.05
    steps: int = 5

    def __post_init__(self):
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0, not {self.delta}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")


@dataclass(frozen=True)
class CapsnetReconstruction:
    """Section `capsnet_reconstruction`: decoders side by side.

    Attributes:
        n_images: test images shown, the first ones.
        batch_size: images at a time.
    """

    n_images: int = 16
    batch_size: int = 250


@dataclass(frozen=True)
class Parity:
    """Section `parity`: which tier of the suite runs, and in how many processes."""

    tier: str = "smoke"
    workers: int = 0


@dataclass(frozen=True)
class Convert:
    """Section `convert`: an original checkpoint, and the recording it is verified against."""

    checkpoint: str = "parity_tests/fixtures/goldens/options/enc_linear/checkpoint"
    golden: str = "parity_tests/fixtures/goldens/options/enc_linear"


@dataclass(frozen=True)
class Equivariance:
    """Section `equivariance`: how test images are moved.

    Attributes:
        images: test images at most, the first ones.
        shifts: in pixels, each to all four sides.
        degrees: of turns about the middle, each both ways.
        batch_size: images at a time.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 leaves the library's choice.
    """

    images: int = 450
    shifts: list | tuple = (1, 2)
    degrees: list | tuple = (10, 20)
    batch_size: int = 128
    device: str = "auto"
    threads: int = 0

    def __post_init__(self) -> None:
        for name in ("shifts", "degrees"):
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in getattr(self, name)):
                raise ValueError(f"{name} must be a list of numbers, not {getattr(self, name)!r}")
        if not (self.shifts or self.degrees) or self.images < 1 or self.batch_size < 1:
            raise ValueError("give at least one shift or turn, one image and a batch of one")


@dataclass(frozen=True)
class Report:
    """Section `report`: which run the page shows."""

    preset: str = "digits"
    seed: int = 0
    title: str = "Stacked Capsule Autoencoders"


def section(kind: type[Section], name: str, params: str | os.PathLike = "params.yaml",
            optional: bool = False) -> Section:
    """Section `name` of a params file as `kind`; the defaults where the file lacks it.

    Args:
        kind: one of the classes above.
        name: of the section.
        params: the file.
        optional: take the defaults where there is no such file.

    Raises:
        BadInput: no such file, or unknown settings in the section.
    """
    given = {} if optional and not Path(params).exists() else load_params(params).get(name)
    return build(kind, given or {}, name)
