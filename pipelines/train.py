"""Stage `train`: train a preset, leave the model and its learning curves.

    python -m pipelines.train --preset digits --seed 0

Leaves results/train/<preset>/<seed>/ with model/, history.csv, metrics.json, config.json and
environment.json. Checkpoints lie in runs/<preset>-<seed>-<hash of the configuration>/ while the run
lasts: a run that was stopped continues there, whatever becomes of the results folder.
"""

from __future__ import annotations

import contextlib
import csv
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

import port
from pipelines import console, environment, settings
from pipelines.prepare import dataset_for, write_json
from port import kernels, resume, train

RUNS = Path("runs")


def run(preset: settings.Preset, seed: int, results: str | os.PathLike = settings.RESULTS,
        device: str | None = None) -> Path:
    """Train a preset with a seed.

    Raises:
        BadInput: unknown settings, or a device that is not there.
        NonFiniteLoss: the loss is not finite.
        Interrupted: stopped by a signal; the state is saved.
    """
    wanted, preset_device = preset.train(seed)
    place = environment.choose_device(device or preset_device)
    config = preset.config()
    if wanted.threads:
        torch.set_num_threads(wanted.threads)
    dataset = dataset_for(preset, results).to(place)
    model = port.build(config, seed).to(place)

    folder = settings.folder_of("train", preset.name, seed, results)
    identity = train.identity(config.to_arguments(), asdict(wanted), preset.sections["prepare"],
                              {"device": place.type})
    checkpoints = RUNS / f"{preset.name}-{seed}-{identity}"
    print(f"train: {preset.name}, seed {seed}, {sum(p.numel() for p in model.parameters()):,} "
          f"parameters, {wanted.steps:,} steps of {wanted.batch_size} on {place.type}", flush=True)
    print(f"train: pixel likelihood by {pixel_likelihood(model)}", flush=True)
    progress = None

    def on_step(step: int) -> None:
        nonlocal progress
        if progress is None:
            progress = console.Progress(wanted.steps, step)
            if step > 1:
                print(f"train: continuing from step {step - 1}", flush=True)
        progress.step(step)

    with live(folder / "live", resume=bool(resume.checkpoints(checkpoints))) as log:
        def on_row(row: dict[str, float]) -> None:
            progress.row(row)
            log(row)
        try:
            trained = train.train(model, dataset, wanted, checkpoints, on_step, on_row)
        finally:
            if progress is not None:
                progress.close()

    write(folder, model, trained, preset, wanted, place)
    shutil.rmtree(checkpoints, ignore_errors=True)
    print(f"train: {trained.step:,} steps in {console.clock(trained.seconds)}, model in "
          f"{folder / 'model'}", flush=True)
    return folder


def pixel_likelihood(model: torch.nn.Module) -> str:
    """Which path computes the pixel likelihood, for the log.

    Raises:
        BadInput: the switch SCAE_KERNELS has another value than those there are.
    """
    try:
        return kernels.describe(model.part_decoder)
    except ValueError as error:
        raise settings.BadInput(str(error)) from None


def write(folder: Path, model: torch.nn.Module, trained: train.Trained, preset: settings.Preset,
          wanted: train.Settings, device: torch.device) -> None:
    """Everything a run leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    port.save(model, folder / "model", f"Preset `{preset.name}`, seed {wanted.seed}, trained "
              f"{trained.step:,} steps from scratch by this project.")
    resume.write_tensors(folder / "model", "optimizer",
                         resume.read_slots(model, trained.optimizer))
    columns = list(dict.fromkeys(name for row in trained.history for name in row))
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(trained.history)
    write_json(folder / "metrics.json", {
        "steps": trained.step, "seconds": round(trained.seconds, 1),
        "steps_per_second": round(trained.step / max(trained.seconds, 1e-9), 2),
        **{name: value for name, value in trained.history[-1].items()
           if name not in ("step", "seconds")}})
    write_json(folder / "config.json", preset.resolved()
               | {"train": asdict(wanted), "arguments": model.config.to_arguments()})
    write_json(folder / "environment.json", environment.describe(
        device, seed=wanted.seed, **trained.precision,
        compiled=wanted.compile and not any("torch.compile" in note for note in trained.notes),
        captured=trained.captured, notes=trained.notes))


@contextlib.contextmanager
def live(folder: Path, resume: bool):
    """A function that logs a row with DVCLive, or nothing where DVCLive is not installed."""
    try:
        from dvclive import Live
    except ImportError:
        yield lambda row: None
        return
    # dvcyaml=None: it must not rewrite dvc.yaml; the stage, not DVCLive, belongs to DVC.
    with Live(str(folder), dvcyaml=None, save_dvc_exp=False, report=None, monitor_system=False,
              resume=resume) as logger:
        def log(row: dict[str, float]) -> None:
            logger.step = row["step"]
            for name, value in row.items():
                if name != "step":
                    logger.log_metric(name, value)
            logger.make_summary()
        yield log


def main(arguments: list[str] | None = None) -> int:
    parser = console.stage_parser("train", __doc__.splitlines()[0])
    parser.add_argument("--device", help="auto, cpu or cuda; default: as the preset says")
    given = parser.parse_args(arguments)

    def work():
        preset = settings.load_preset(given.preset, given.overrides, given.params)
        run(preset, given.seed, given.results, given.device)
    return console.exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
