"""Sections of params.yaml beside the presets, each a dataclass; and how one is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TypeVar

from pipelines.support.values import load_params, params_at
from port.configuration import fields, limits
from port.configuration.fields import Section
from port.configuration.limits import limited

Kind = TypeVar("Kind", bound=Section)


@dataclass(frozen=True)
class Prepare(Section):
    """Section `prepare`: where the images come from.

    Attributes:
        source: a name in `port.data.sources.SOURCES`; `folder` and `npz` are own images.
        path: of own images (`pipelines.support.own_images`), as named, else below the data root.
        size: pixels that own images are cut square and resampled to; None keeps theirs.
        data_root: folder looked at first; the variable SCAE_DATA wins.
        download: fetch what is missing.
        options: arguments of the source.
    """

    source: str = "digits"
    path: str | None = None
    size: int | None = limited(None, at_least=1, at_most=4096)
    data_root: str = "data"
    download: bool = True
    options: dict | None = None


@dataclass(frozen=True)
class Evaluate(Section):
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

    batch_size: int = limited(128, at_least=1, at_most=10**6)
    seed: int = limits.seed()
    bootstrap_draws: int = limited(2000, at_least=1, at_most=10**7)
    level: float = limited(0.95, above=0, below=1)
    fit_images: int = limited(0, at_least=0)
    baseline_images: int = limited(10_000, at_least=1)
    tsne_images: int = limited(1000, at_least=0, at_most=10**5)
    n_pictures: int = limited(16, at_least=1, at_most=10**4)
    require_learning: bool = False
    standard_errors: float = limited(3.0, at_least=0)
    clean_shift: bool = True
    device: str = "auto"
    threads: int = limited(0, at_least=0, at_most=limits.THREADS)


@dataclass(frozen=True)
class CapsnetDimensions(Section):
    """Section `capsnet_dimensions`: what each number of a class capsule draws.

    Attributes:
        delta: step of a number.
        steps: l; each number goes from -l·δ to +l·δ about its own value.
    """

    delta: float = limited(0.05, above=0)
    steps: int = limited(5, at_least=1, at_most=1000)


@dataclass(frozen=True)
class CapsnetReconstruction(Section):
    """Section `capsnet_reconstruction`: decoders side by side.

    Attributes:
        n_images: test images shown, the first ones.
        batch_size: images at a time.
    """

    n_images: int = limited(16, at_least=1, at_most=10**4)
    batch_size: int = limited(250, at_least=1, at_most=10**6)


@dataclass(frozen=True)
class Parity(Section):
    """Section `parity`: how the parity stage runs the suite.

    Attributes:
        tier: of the suite, as `pytest --tier` takes it.
        workers: test processes; 0 is one.
    """

    tier: str = "smoke"
    workers: int = limited(0, at_least=0, at_most=limits.THREADS)


@dataclass(frozen=True)
class Convert(Section):
    """Section `convert`: what the convert stage converts.

    Attributes:
        checkpoint: an original checkpoint.
        golden: the recording that it is verified against.
    """

    checkpoint: str = "parity_tests/fixtures/goldens/options/enc_linear/checkpoint"
    golden: str = "parity_tests/fixtures/goldens/options/enc_linear"


@dataclass(frozen=True)
class Equivariance(Section):
    """Section `equivariance`: how test images are moved.

    Attributes:
        images: test images at most, the first ones.
        shifts: in pixels, each to all four sides.
        degrees: of turns about the middle, each both ways.
        batch_size: images at a time.
        device: auto, cpu or cuda.
        threads: of the CPU; 0 leaves the library's choice.
    """

    images: int = limited(450, at_least=1)
    shifts: list | tuple = limited((1, 2), at_least=-1000, at_most=1000)
    degrees: list | tuple = limited((10, 20), at_least=-360, at_most=360)
    batch_size: int = limited(128, at_least=1, at_most=10**6)
    device: str = "auto"
    threads: int = limited(0, at_least=0, at_most=limits.THREADS)

    def __post_init__(self) -> None:
        for name in ("shifts", "degrees"):
            if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in getattr(self, name)):
                raise ValueError(f"{name} must be a list of numbers, not {getattr(self, name)!r}")
        super().__post_init__()
        if not (self.shifts or self.degrees):
            raise ValueError("give at least one shift or turn")


@dataclass(frozen=True)
class Report(Section):
    """Section `report`: which run the page shows.

    Attributes:
        preset: of the run.
        seed: of the run.
        title: of the page.
    """

    preset: str = "digits"
    seed: int = limits.seed()
    title: str = "Stacked Capsule Autoencoders"


def section(kind: type[Kind], name: str, params: str | os.PathLike = "params.yaml",
            optional: bool = False) -> Kind:
    """Section `name` of a params file as `kind`; the defaults where the file lacks it.

    Args:
        kind: one of the classes above.
        name: of the section.
        params: the file.
        optional: take the defaults where there is no such file.

    Raises:
        BadInput: no such file.
        ConfigError: unknown settings in the section.
    """
    given = {} if optional and not params_at(params).exists() else load_params(params).get(name)
    return fields.from_mapping(kind, given or {}, name)
