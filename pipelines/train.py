"""Stage `train`: train a preset, leave the model and its learning curves.

    python -m pipelines.train --preset digits --seed 0
    python -m pipelines.train --preset digits --seeds 0 1 2
    python -m pipelines.train --preset mnist --set train.rung=compiled_captured
    torchrun --nproc-per-node 2 -m pipelines.train --preset digits --seed 0

Leaves results/train/<preset>/<seed>/ with model/, history.csv, metrics.json, config.json and
environment.json. Checkpoints lie in runs/<preset>-<seed>-<hash of the configuration>/ while the run
lasts: a run that was stopped continues there, whatever becomes of the results folder. Under torchrun
the ranks share each batch, and the first one writes. On a GPU the run is a process of its own, which
begins again a rung lower where a step cannot be captured (`pipelines.support.descent`); with `train.rung`
it is this one, which ends with exit code 3 then.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines.prepare import dataset_for
from pipelines.support import children, console, descent, environment, locks, run_folders, settings, tracking
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set, several
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.training import continued, given_parts, given_weights
from port.checkpoints import model_folder, run_folder
from port.configuration import limits
from port.configuration.fields import converted
from port.core import swap
from port.data import dataset as data
from port.data import validation
from port.families import family_of
from port.scae.pixel_likelihood import describe
from port.training import distributed, resume, rungs, sound
from port.training import loop as train

RUNS = Path("runs")
LEFT = ("model", run_folder.ENVIRONMENT, *run_folder.FILES)  # by a run, in its folder
EPOCHS = {"epochs": "steps", "lr_decay_epochs": "lr_decay_steps"}  # lengths in epochs → what they are in steps
CONSTELLATIONS_AN_EPOCH = 60_000  # as many as MNIST has training images


@dataclass
class Job:
    """One preset with one seed, ready to be trained."""

    preset: settings.Preset
    wanted: train.Settings
    device: torch.device
    model: torch.nn.Module
    folder: Path
    checkpoints: Path
    keep: bool = False  # the last checkpoint stays, so that a run can be made longer
    continues: Path | None = None  # whose weights, optimizer and step it begins with

    @classmethod
    def make(cls, preset: settings.Preset, seed: int, results: str | os.PathLike,
             device: torch.device, runs: Path | None = None,
             dataset: data.Dataset | None = None) -> Job:
        """Build the model and name the folders; `runs` is that of the checkpoints, kept where given.

        The data set is part of what names the checkpoints: a run on other data is another run.
        """
        wanted, _ = preset.train(seed)
        model, digest = given_parts.build(preset, seed, results)
        started = {"parts": digest} if digest else {}
        given, continues = given_weights.named(preset), None
        if "start_from" in given:
            folder = given_weights.model_folder(given["start_from"], seed, results)
            given_weights.put_in(model, folder, "start_from", whole=False)
            started["start_from"] = given_weights.digest(folder, "start_from")
        if "continue_from" in given:
            continues = given_weights.model_folder(given["continue_from"], seed, results)
            started["continue_from"] = given_weights.digest(continues, "continue_from", optimizer=True)
        decides = [model.config.to_arguments(), asdict(wanted), preset.sections["prepare"],
                   {"device": device.type}, started]
        return cls(preset, wanted, device, model.to(device),
                   settings.folder_of("train", preset.name, seed, results),
                   run_folders.checkpoints(runs or RUNS, preset.name, seed, decides, dataset,
                                           runs is not None), runs is not None, continues)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the run's folders, and clear what a process that was killed there left.

        Raises:
            BadInput: another process trains this run.
        """
        with contextlib.ExitStack() as stack:
            for folder in (self.folder, self.checkpoints):
                stack.enter_context(locks.held(folder, "trains"))
            sound.clear(self.checkpoints.parent, self.checkpoints.name)
            swap.recover(self.folder, LEFT)
            yield

    def begin(self, dataset: data.Dataset, world: distributed.World = distributed.ALONE) -> None:
        """Go on from a converted checkpoint or another run, where one is named and this run has not begun."""
        if self.continues is not None and not resume.checkpoints(self.checkpoints):
            continued.plant(self.continues, self.model, dataset, self.wanted, self.checkpoints, world)

    def curves(self, wandb: str) -> contextlib.AbstractContextManager[tracking.Log]:
        """Where the rows of the history go while the run lasts."""
        section = self.preset.sections["train"]
        return tracking.curves(self.folder, section.get("run_name") or self.checkpoints.name,
                               self.preset.resolved(), bool(resume.checkpoints(self.checkpoints)), wandb,
                               section.get("wandb_project") or "scae", section.get("wandb_team"))

    def done(self, trained: train.Trained, **facts) -> None:
        """Write everything a run leaves, then give up its checkpoints."""
        timed = self.continues is None or continued.seconds_before(self.continues) is not None
        write(self.folder, self.model, trained, self.preset, self.wanted, self.device, timed, **facts)
        if not self.keep:
            sound.discard(self.checkpoints)
        print(f"train: {trained.step:,} steps in {console.clock(trained.seconds)}, model in "
              f"{self.folder / 'model'}", flush=True)


def run(preset: settings.Preset, seed: int, results: str | os.PathLike = settings.RESULTS,
        device: str | None = None, wandb: str | None = None, runs: Path | None = None,
        notes: Sequence[str] = ()) -> Path:
    """Train a preset with a seed, on as many ranks as torchrun started.

    `notes` say what was tried before, for the environment file.

    Raises:
        BadInput: unknown settings, a device that is not there, a batch that cannot be shared out.
        NonFiniteLoss: a number is not finite.
        RungFailed: the step cannot be made on the rung that the settings name.
        Interrupted: stopped by a signal; the state is saved.
        Ended: as one of these, in a process of its own.
    """
    wanted, place = check(without_epochs(preset), seed, device)
    ladder = descent.wanted(wanted, place.type)
    if ladder:
        descent.run(preset, [seed], ladder, results, device, wandb, runs)
        return settings.folder_of("train", preset.name, seed, results)
    world, place = distributed.join(place)
    try:
        dataset = load(preset, results, world).to(place)
        preset = counted(preset, dataset)
        job = Job.make(preset, seed, results, place, runs, dataset)
        wanted = job.wanted
        if not world.main:
            train.train(job.model, dataset, wanted, job.checkpoints, world=world)
            return job.folder
        with job.alone():
            job.begin(dataset, world)
            print(f"train: {preset.name}, seed {seed}, "
                  f"{sum(p.numel() for p in job.model.parameters()):,} parameters, {wanted.steps:,} "
                  f"steps of {wanted.batch_size} on {place.type}"
                  + (f", {world.size} ranks" if world.size > 1 else ""), flush=True)
            if hasattr(job.model, "part_decoder"):
                print(f"train: pixel likelihood by {pixel_likelihood(job.model)}", flush=True)
            with console.progress(wanted.steps) as bar, \
                    job.curves(preset.wandb() if wandb is None else wandb) as log:
                trained = train.train(job.model, dataset, wanted, job.checkpoints, bar.step,
                                      both(bar.row, log), world)
            trained.notes[:0] = notes
            job.done(trained, ranks=world.size)
        return job.folder
    finally:
        distributed.leave(world)


def counted(preset: settings.Preset, dataset: data.Dataset) -> settings.Preset:
    """The preset with its epochs as steps; of constellations, drawn without end, 60,000 are an epoch.

    Raises:
        BadInput: as `epochs`.
        DataError: more validation images than there are to take out.
    """
    lengths, preset = epochs(preset), without_epochs(preset)
    wanted = preset.train(0)[0]  # whatever the seed
    trained_on = validation.trained_on(dataset, wanted)
    per_epoch = (len(trained_on.train) if hasattr(trained_on, "train") else CONSTELLATIONS_AN_EPOCH) / wanted.batch_size
    steps = {EPOCHS[name]: math.ceil(length * per_epoch) for name, length in lengths.items()}
    return replace(preset, sections=preset.sections | {"train": preset.sections["train"] | steps})


def epochs(preset: settings.Preset) -> dict[str, int]:
    """Lengths in epochs that a preset gives, by `EPOCHS`.

    Raises:
        ConfigError: no whole number.
        BadInput: out of range.
    """
    where, found = f"train of preset {preset.name}", {}
    for name in EPOCHS:
        length = converted(f"{where}: {name}", int | None, preset.sections["train"].get(name))
        if length is not None:
            words = limits.Limits(at_least=1, at_most=limits.STEPS).refusal(length)
            if words:
                raise BadInput(f"{where}: {name} {words}, not {length}")
            found[name] = length
    return found


def without_epochs(preset: settings.Preset) -> settings.Preset:
    """The preset before the data are there, to look at its other settings.

    Raises:
        BadInput: as `epochs`.
    """
    epochs(preset)
    section = {name: value for name, value in preset.sections["train"].items() if name not in EPOCHS}
    return replace(preset, sections=preset.sections | {"train": section})


def check(preset: settings.Preset, seed: int, device: str | None
          ) -> tuple[train.Settings, torch.device]:
    """Settings and device, refused before anything is started; also sets the threads."""
    wanted, preset_device = preset.train(seed)
    place = environment.choose_device(device or preset_device)
    if wanted.amp != "none" and not family_of(preset.config()).low_precision:
        raise BadInput(f"train.amp: the layers of model {preset.config().kind} run in float32 "
                       "only; set it to none")
    try:
        rungs.ladder(wanted, place.type)
    except ValueError as error:
        raise BadInput(f"train.{error}") from None
    try:
        distributed.check_divisible(wanted.batch_size, distributed.launched_size())
    except ValueError as error:
        raise BadInput(str(error)) from None
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    return wanted, place


def load(preset: settings.Preset, results: str | os.PathLike, world: distributed.World
         ) -> data.Dataset:
    """The prepared data; the first rank of each machine prepares them where they are missing."""
    if distributed.first_here():
        dataset = dataset_for(preset, results)
        world.barrier()
        return dataset
    world.barrier()
    return dataset_for(preset, results)


def both(*listeners: Callable[[dict[str, float]], None]) -> Callable[[dict[str, float]], None]:
    """One listener that tells several."""
    def tell(row: dict[str, float]) -> None:
        for listener in listeners:
            listener(row)
    return tell


def pixel_likelihood(model: torch.nn.Module) -> str:
    """Which path computes the pixel likelihood, for the log.

    Raises:
        BadInput: the switch SCAE_KERNELS has another value than those there are.
    """
    try:
        return describe(model)
    except ValueError as error:
        raise BadInput(str(error)) from None


def write(folder: Path, model: torch.nn.Module, trained: train.Trained, preset: settings.Preset,
          wanted: train.Settings, device: torch.device, timed: bool = True, **facts) -> None:
    """Everything a run leaves, in place of what was there, whole; `facts` go into the environment file.

    Without `timed` nobody knows how long its first steps took, which another program made.
    """
    with swap.swapped(folder, LEFT) as new:
        port.save(model, new / "model", f"Preset `{preset.name}`, seed {wanted.seed}, trained to "
                  f"step {trained.step:,} by this project, {given_weights.in_words(preset)}.",
                  metrics=run_folder.held_out(trained.history[-1]))
        # The step lies with the slots: beside the weights it would be a second word of their file's head, whose
        # words stand in any order, and equal weights would not be equal files.
        resume.write_tensors(new / "model", "optimizer", resume.read_slots(model, trained.optimizer)
                             | {model_folder.STEP: torch.tensor(trained.step)})
        columns = list(dict.fromkeys(name for row in trained.history for name in row))
        with open(new / "history.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(trained.history)
        write_json(new / "metrics.json", {
            "steps": trained.step, "seconds": round(trained.seconds, 1),
            "steps_per_second": round(trained.step / max(trained.seconds, 1e-9), 2) if timed else None,
            **{name: value for name, value in trained.history[-1].items()
               if name not in ("step", "seconds")}})
        write_json(new / "config.json", preset.resolved()
                   | {"train": asdict(wanted) | given_weights.named(preset),
                      "arguments": model.config.to_arguments()})
        write_json(new / "environment.json", environment.describe(
            device, seed=wanted.seed, weights=given_weights.digest(new / "model", "model"),
            **trained.precision,
            rung=trained.rung, compiled=rungs.RUNGS[trained.rung].compiled,
            captured=rungs.RUNGS[trained.rung].captured, notes=trained.notes,
            files=run_folder.digests(new), **facts))


def command(preset: Preset = "digits", seed: Seed = 0,
            seeds: Annotated[list[int] | None, several(
                metavar="N", help="Several seeds at once, in place of --seed.")] = None,
            overrides: Set = None, device: Device = None,
            wandb: Annotated[str | None, typer.Option(
                help="none, offline or online; default: as the preset says.")] = None,
            runs: Annotated[Path | None, typer.Option(
                metavar="DIR", help="Where the checkpoints go, which are kept then.")] = None,
            notes: Annotated[Path | None, typer.Option(
                metavar="FILE", help="Lines for environment.json; a rung that fails adds its own.")] = None,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """Train a preset, leave the model and its learning curves."""
    children.follow_parent()
    chosen = settings.load_preset(preset, overrides, params)
    try:
        if seeds:
            from pipelines.training import seeds as several_seeds
            several_seeds.run(chosen, seeds, results, device, wandb, descent.notes(notes), runs)
        else:
            run(chosen, seed, results, device, wandb, runs, descent.notes(notes))
    except rungs.RungFailed as error:
        if notes:
            descent.add_note(notes, str(error))
        raise


main = Program("python -m pipelines.train", command)


if __name__ == "__main__":
    raise SystemExit(main())
