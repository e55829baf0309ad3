"""`scae train`: a preset, or the ML@B port's options, in a numbered run unless `--results` is given."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
from typing import Annotated, Any

import typer

from pipelines.support.command_line import Params
from pipelines.support.values import BadInput, CheckFailed, load_params

OPTIM = ("tf-rmsprop", "rmsprop", "sgd", "adam", "radam")
PARTS, OBJECTS, LOG = "Part capsules (PCAE)", "Object capsules (OCAE)", "Logging"


def _complete(names: str):
    """Values that a shell may complete, from `pipelines.commands.mlab`."""
    def found(incomplete: str) -> list[str]:
        from pipelines.commands import mlab
        return [name for name in getattr(mlab, names) if name.startswith(incomplete)]
    return found


def _presets(incomplete: str) -> list[str]:
    return [name for name in load_params()["presets"] if name.startswith(incomplete)]


def train(
        preset: Annotated[str | None, typer.Option(
            help="A preset of params.yaml; default: digits, or mlab with any option below --seeds.",
            autocompletion=_presets)] = None,
        seed: Annotated[int, typer.Option(help="Seed of the run.")] = 0,
        seeds: Annotated[str | None, typer.Option(
            metavar="N,N,…", help="Several seeds at once, in place of --seed.")] = None,
        batch_size: Annotated[int | None, typer.Option(
            "-n", "--batch-size", help="Images a step. mlab: 128.")] = None,
        num_epochs: Annotated[int | None, typer.Option(
            "-N", "--num-epochs", help="Passes over the training images. mlab: 3000.")] = None,
        non_deterministic: Annotated[bool | None, typer.Option(
            "--non-deterministic", help="Allow algorithms whose bits vary from run to run.")] = None,
        debug: Annotated[bool | None, typer.Option(
            "-d", "--debug", help="Autograd's anomaly detection (slow).")] = None,
        model: Annotated[str | None, typer.Option(
            help="ccae, pcae, ocae, scae, hierarchy, capsnet or em. mlab: scae.",
            autocompletion=_complete("WORDS"))] = None,
        dataset: Annotated[str | None, typer.Option(
            help="mnist, usps, cifar10, svhn, svhn_head, digits, constellation; smallnorb with em. "
            "mlab: mnist.",
            autocompletion=_complete("DATASETS"))] = None,
        images: Annotated[str | None, typer.Option(
            "--data", metavar="PATH", help="Own images: a folder with a folder for each class, or without, "
            "or an .npz; size, channels and classes come from them.")] = None,
        data_workers: Annotated[int | None, typer.Option(
            help="Threads that cut batches out of the data, on a CPU. mlab: 0.")] = None,
        pcae_num_caps: Annotated[int | None, typer.Option(
            help="Part capsules. mlab: 16.", rich_help_panel=PARTS)] = None,
        pcae_caps_dim: Annotated[int | None, typer.Option(
            help="Numbers of a pose; only 6 are a pose. mlab: 6.", rich_help_panel=PARTS)] = None,
        pcae_feat_dim: Annotated[int | None, typer.Option(
            help="Special features of a part. mlab: 16.", rich_help_panel=PARTS)] = None,
        pcae_lr: Annotated[float | None, typer.Option(
            help="Learning rate of the parts. mlab: 0.003.", rich_help_panel=PARTS)] = None,
        pcae_lr_decay: Annotated[float | None, typer.Option(
            help="Factor an epoch, with exp. mlab: 0.998.", rich_help_panel=PARTS)] = None,
        pcae_lr_restart_interval: Annotated[int | None, typer.Option(
            help="Steps between restarts, with cosrestarts. mlab: 4000.", rich_help_panel=PARTS)] = None,
        pcae_weight_decay: Annotated[float | None, typer.Option(
            help="Weight decay of the update rule; with tf-rmsprop in the loss. mlab: 0.",
            rich_help_panel=PARTS)] = None,
        pcae_decoder_lr_coeff: Annotated[float | None, typer.Option(
            help="Factor on the rate of templates and colours. mlab: 1.", rich_help_panel=PARTS)] = None,
        pcae_optimizer: Annotated[str | None, typer.Option(
            help=f"{', '.join(OPTIM)}. mlab: radam.", rich_help_panel=PARTS,
            autocompletion=_complete("OPTIMIZERS"))] = None,
        pcae_lr_scheduler: Annotated[str | None, typer.Option(
            help="none, exp or cosrestarts. mlab: cosrestarts.", rich_help_panel=PARTS,
            autocompletion=_complete("SCHEDULERS"))] = None,
        pcae_loss_ll_coeff: Annotated[float | None, typer.Option(
            help="Weight of the pixels' log-likelihood. mlab: 1.", rich_help_panel=PARTS)] = None,
        pcae_loss_temp_l1_coeff: Annotated[float | None, typer.Option(
            help="Weight of the templates' L1. mlab: 0.", rich_help_panel=PARTS)] = None,
        pcae_loss_mse_coeff: Annotated[float | None, typer.Option(
            help="Weight of the mean picture's squared error. mlab: 0.", rich_help_panel=PARTS)] = None,
        alpha_channel: Annotated[bool | None, typer.Option(
            "--alpha-channel/--no-alpha-channel", help="Templates with an alpha channel. mlab: without.",
            rich_help_panel=PARTS)] = None,
        no_inverse: Annotated[bool | None, typer.Option(
            "--pcae-no-inverse-space-transform", help="Poses map the canvas to the template.",
            rich_help_panel=PARTS)] = None,
        ocae_lr: Annotated[float | None, typer.Option(
            help="Learning rate of the objects and probes. mlab: 0.1.", rich_help_panel=OBJECTS)] = None,
        parts: Annotated[str | None, typer.Option(
            metavar="PRESET|DIR", help="Part capsules to start from; --model ocae needs them and keeps "
            "them as they are.", rich_help_panel=OBJECTS)] = None,
        init: Annotated[str | None, typer.Option(
            "--init", metavar="PRESET|DIR", help="A converted checkpoint or another run to go on from: weights, "
            "optimizer slots and step (`train.continue_from`).")] = None,
        log_run_name: Annotated[str | None, typer.Option(
            help="Folder of the runs and name at Weights & Biases; default: the preset.",
            rich_help_panel=LOG)] = None,
        log_project: Annotated[str | None, typer.Option(
            help="Project at Weights & Biases. mlab: SCAE.", rich_help_panel=LOG)] = None,
        log_team: Annotated[str | None, typer.Option(
            help="Team at Weights & Biases. mlab: none.", rich_help_panel=LOG)] = None,
        log_upload: Annotated[bool | None, typer.Option(
            "--log-upload/--no-log-upload", help="Upload to Weights & Biases. mlab: off.",
            rich_help_panel=LOG)] = None,
        log_frequency: Annotated[int | None, typer.Option(
            help="Steps between two rows of the history. mlab: 1.", rich_help_panel=LOG)] = None,
        wandb: Annotated[str | None, typer.Option(
            help="Weights & Biases: none, offline or online; default: as the preset says.",
            rich_help_panel=LOG)] = None,
        overrides: Annotated[list[str] | None, typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Override a setting, as in train.lr=1e-4; may be "
            "repeated.")] = None,
        config: Annotated[str | None, typer.Option(
            "--config", metavar="FILE", help="JSON or YAML file of model keys that overlays the "
            "preset's.")] = None,
        device: Annotated[str | None, typer.Option(
            help="auto, cpu or cuda; default: as the preset says.")] = None,
        params: Params = "params.yaml",
        results: Annotated[str | None, typer.Option(
            metavar="DIR", help="Folder the results go to; default: a new runs/NAME/N.")] = None,
        resume: Annotated[bool, typer.Option(
            "--resume", help="Go on with the latest numbered run, finished or not, with its own "
            "settings.")] = False
        ) -> None:
    """Train a preset, or what the options say; a run that was stopped goes on when asked for again."""
    options: dict[str, Any] = {
        "batch_size": batch_size, "num_epochs": num_epochs, "debug": debug,
        "deterministic": None if non_deterministic is None else not non_deterministic,
        "model": model, "dataset": dataset, "data_workers": data_workers, "pcae_num_caps": pcae_num_caps,
        "pcae_caps_dim": pcae_caps_dim, "pcae_feat_dim": pcae_feat_dim, "pcae_lr": pcae_lr,
        "pcae_lr_decay": pcae_lr_decay, "pcae_lr_restart_interval": pcae_lr_restart_interval,
        "pcae_weight_decay": pcae_weight_decay, "pcae_decoder_lr_coeff": pcae_decoder_lr_coeff,
        "pcae_optimizer": pcae_optimizer, "pcae_lr_scheduler": pcae_lr_scheduler,
        "pcae_loss_ll_coeff": pcae_loss_ll_coeff, "pcae_loss_temp_l1_coeff": pcae_loss_temp_l1_coeff,
        "pcae_loss_mse_coeff": pcae_loss_mse_coeff, "alpha_channel": alpha_channel,
        "inverse_space_transform": None if no_inverse is None else not no_inverse, "ocae_lr": ocae_lr,
        "parts": parts, "log_run_name": log_run_name, "log_project": log_project, "log_team": log_team,
        "log_upload": log_upload, "log_frequency": log_frequency}
    if images is not None:
        from pipelines.support import fit_images
        if dataset is not None:
            raise BadInput("--data and --dataset both name the images; give one of them")
        overrides = [*fit_images.overrides(images), *(overrides or ())]
    if init is not None:
        overrides = [*(overrides or ()), f"train.continue_from={json.dumps(init)}"]
    run(preset, options, seed, seeds, overrides, config, device, wandb, params, results, resume)


def run(preset: str | None, options: dict[str, Any], seed: int, seeds: str | None,
        overrides: list[str] | None, config: str | None, device: str | None, wandb: str | None, params: str,
        results: str | None, resume: bool) -> None:
    """What `train` does; arguments as there.

    Raises:
        BadInput: settings that cannot be used together.
    """
    from pipelines import families
    from pipelines import train as stage
    from pipelines.commands import mlab
    from pipelines.support import console, locks, settings
    from pipelines.training import given_parts, numbered
    from pipelines.training import seeds as several

    given = {name: value for name, value in options.items() if value is not None}
    said = bool(preset or given)
    name = preset or ("mlab" if given.keys() - {"log_run_name"} else "digits")
    if given.get("model") in mlab.ROUTING:
        # A program of its own: model and data set name one of its presets.
        name = families.preset_of(preset or "digits", given.pop("model"), given.pop("dataset", None))
    run_name = given.get("log_run_name", name)
    folder = before = begun = None
    if "num_epochs" in given and any(word.startswith("train.steps=") for word in overrides or ()):
        raise BadInput("-N and --set train.steps both say how long to train; give one of them")
    if resume:
        if results is not None or config is not None or seeds is not None:
            raise BadInput("--resume goes on with a numbered run: leave --results, --config and "
                           "--seeds out")
        # No name at all: the run begun last.
        folder = numbered.latest(run_name if said else None)
        run_name = folder.parent.name
        chosen = before = numbered.stored(folder)
        stored_seed = numbered.seed_of(folder)
        seed = seed if stored_seed is None else stored_seed
    else:
        chosen = settings.load_preset(name, None, params, config)
    chosen = settings.overridden(mlab.apply(chosen, given), overrides)
    if resume:
        numbered.refuse_changes(before, chosen, folder)
    elif results is None:
        if "RANK" in os.environ:
            raise BadInput("with torchrun, name the folder of the results with --results")
        # What can be refused is, before a folder is made.
        given_parts.named(chosen)
        for one in [seed] if seeds is None else several.parse(seeds):
            stage.check(stage.without_epochs(chosen), one, device)
        if seeds is None:
            chosen = numbered.with_given_weights(chosen, seed)
        folder = numbered.unfinished(chosen, run_name, seed) if seeds is None else None
        if folder is None:
            folder = begun = numbered.begin(chosen, run_name)
        else:
            locks.refuse_held(settings.folder_of("train", chosen.name, seed, folder), "trains")
            print(f"train: going on with {folder}, which was stopped", flush=True)
    try:
        if seeds is not None:
            several.run(chosen, several.parse(seeds), folder or results, device, wandb)
            return
        stage.run(chosen, seed, folder or results, device, wandb, runs=folder and folder / "checkpoints")
    except Exception as error:
        code = console.code_of(error)
        if code in (128 + signal.SIGINT, 128 + signal.SIGTERM) and folder is not None and seeds is None:
            say_how_to_go_on(folder, run_name)
        # Bad input, or too little memory, that shows with the data or the weights alone: no run has been.
        if begun is not None and (code == console.BAD_INPUT or isinstance(error, CheckFailed)) \
                and not numbered.has_begun(begun):
            shutil.rmtree(begun)
            with contextlib.suppress(OSError):  # other runs of the name are there
                begun.parent.rmdir()
        raise
    if folder is not None:
        words = ["scae", "evaluate", "--params", folder / numbered.PARAMS, "--preset", chosen.name, "--seed", seed,
                 "--results", folder]
        print(f"train: this is {folder}; {shlex.join(map(str, words))}", flush=True)


def say_how_to_go_on(folder: os.PathLike, run_name: str) -> None:
    """The command that continues a numbered run."""
    words = ["scae", "train", "--resume", "--log-run-name", run_name]
    print(f"train: {folder} goes on with {shlex.join(words)}", flush=True)
