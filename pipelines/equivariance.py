"""Stage `equivariance`: whether part poses move with the image, before and after training.

    python -m pipelines.equivariance results/train/digits/0

Test images in the middle of their canvas are shifted by whole pixels and turned; what a part has to do to follow
a motion is `port.evaluation.equivariance`'s. Leaves results/equivariance/<preset>/<seed>/ with metrics.json and
environment.json: for each motion the distribution of the error in pixels, of the run and of the weights it
started from.
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines.prepare import dataset_for
from pipelines.support import environment, sections, settings
from pipelines.support.command_line import Device, Params, Program, ResultsOfRun
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from port.evaluation import equivariance, looks


def run(folder: str | os.PathLike, wanted: sections.Equivariance,
        results: str | os.PathLike | None = None, device: str | None = None) -> Path:
    """Measure a run.

    Args:
        folder: of the run.
        wanted: motions and images.
        results: folder of the results; None is the one that the run lies in.
        device: auto, cpu or cuda; None is the settings'.

    Returns:
        The folder written.

    Raises:
        BadInput: no run of an image model.
    """
    preset, seed = settings.preset_of_run(folder)
    results = settings.results_of_run(folder, results)
    place = environment.choose_device(device or wanted.device)
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    final = settings.load_model(folder)
    if not isinstance(final, port.ImageAutoencoder):
        raise BadInput(f"{folder} is no run of an image model with object capsules")
    models = {"initial": port.build(final.config, seed).eval().to(place), "final": final.to(place)}
    split = dataset_for(preset, results).test
    canvas = final.config.canvas
    image = looks.arranged(split.images[:wanted.images].to(place), canvas, preset.train(seed)[0].shift)
    measured = {"preset": preset.name, "seed": seed, "images": len(image), "canvas": canvas, "motions": [
        {"motion": name, "size": size, "maps": len(maps),
         **{moment: mean([equivariance.follow(model, image, matrix, wanted.batch_size) for matrix in maps])
            for moment, model in models.items()}}
        for name, size, maps in motions(wanted, canvas)]}
    out = settings.folder_of("equivariance", preset.name, seed, results)
    write_json(out / "metrics.json", measured)
    write_json(out / "environment.json", environment.describe(place, seed=seed))
    say(measured)
    return out


def motions(wanted: sections.Equivariance, canvas: int) -> list[tuple[str, float, list[torch.Tensor]]]:
    """Name, size and the maps of each kind of motion: both ways, shifts along both axes."""
    found = []
    for pixels in wanted.shifts:
        steps = [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)]
        found.append((f"shift by {pixels:g} px", float(pixels),
                      [equivariance.motion(canvas, shift=step) for step in steps]))
    for degrees in wanted.degrees:
        found.append((f"turn by {degrees:g}°", float(degrees),
                      [equivariance.motion(canvas, degrees=sign * degrees) for sign in (1, -1)]))
    return found


def mean(followed: list[equivariance.Followed]) -> dict:
    """The mean over the maps of one kind, figure by figure."""
    each = [asdict(one) for one in followed]

    def over(*path: str) -> float:
        values = []
        for one in each:
            for key in path:
                one = one[key]
            values.append(one)
        return sum(values) / len(values)

    return {"error": {q: over("error", q) for q in each[0]["error"]},
            "required": {q: over("required", q) for q in each[0]["required"]},
            "slope": over("slope"), "same_object": over("same_object"), "by_chance": over("by_chance")}


def say(measured: dict) -> None:
    """The figures as lines."""
    print(f"equivariance of {measured['preset']}, seed {measured['seed']}: {measured['images']} images on "
          f"a canvas of {measured['canvas']}; error of part poses in pixels, median (middle half)")
    for row in measured["motions"]:
        cells = []
        for moment in ("initial", "final"):
            error, found = row[moment]["error"], row[moment]
            cells.append(f"{moment} {error['50']:.2f} ({error['25']:.2f}-{error['75']:.2f}) of "
                         f"{found['required']['50']:.2f}, slope {found['slope']:.2f}, same object "
                         f"{found['same_object']:.2f} (by chance {found['by_chance']:.2f})")
        print(f"  {row['motion']:14s} {'; '.join(cells)}")


def command(folder: Annotated[str, typer.Argument(
                metavar="RUN", help="Folder of a run, as results/train/digits/0.")],
            params: Params = "params.yaml", results: ResultsOfRun = None, device: Device = None) -> None:
    """Whether part poses move with the image, before and after training."""
    run(folder, sections.section(sections.Equivariance, "equivariance", params, optional=True), results, device)


main = Program("python -m pipelines.equivariance", command)


if __name__ == "__main__":
    raise SystemExit(main())
