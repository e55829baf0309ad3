"""Import what a visit brought into results/, evaluate it on the CPU, and aggregate.

    python -m pipelines.visit.bring_home FOLDER

Each run of the parcel becomes results/train/<preset>/<seed>/ as the train stage leaves it, made from its
checkpoint, with the environment of the machine it was trained on; an unfinished one too, at the step it
reached. Then the evaluate and aggregate stages run here, and `python -m pipelines.results.table --write`
puts the aggregate into the README's table. A run that is here already is replaced only by more steps of the
same run, or with --replace.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines import aggregate, evaluate, prepare
from pipelines import train as stage
from pipelines.support import identity, settings
from pipelines.support.command_line import Params, Program
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from pipelines.visit import parcel, queue
from port.configuration.fields import ConfigError
from port.training import loop as train
from port.training import optimizers, resume, rungs

FOREIGN = torch.device("cpu")  # where it is put together; where it was trained stands in its environment


@dataclass(frozen=True)
class Brought:
    """A run of a parcel.

    Attributes:
        entry: preset and seed.
        preset: with the settings it was trained with.
        checkpoint: its folder.
        slots: whether the optimizer's came along.
        environment: of the machine.
    """

    entry: queue.Entry
    preset: settings.Preset
    checkpoint: Path
    slots: bool
    environment: dict

    @property
    def position(self) -> dict:
        """Step, seconds and history."""
        return json.loads((self.checkpoint / "state.json").read_text())


def runs_in(work: Path) -> list[Brought]:
    """Every run of an unpacked parcel whose weights are there.

    Raises:
        BadInput: a file that says what a run is cannot be read.
    """
    found = []
    for path in sorted((work / "runs").glob("*.json")):
        try:
            facts = json.loads(path.read_text())
            entry = queue.Entry(facts["preset"], facts["seed"])
            sections = dict(facts["sections"])
            preset = settings.Preset(entry.preset, sections, sections.pop("model"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{path}: says nothing of a run ({error})") from None
        checkpoint = queue.newest(work, entry)
        if checkpoint is None or not list(checkpoint.glob("model*.safetensors")):
            continue
        environment = environment_of(facts, preset)
        with contextlib.suppress(OSError, ValueError):  # written when a run ends, and better
            folder = settings.folder_of("train", entry.preset, entry.seed, work / "results")
            environment |= json.loads((folder / "environment.json").read_text())
        slots = bool(list(checkpoint.glob("optimizer*.safetensors")))
        found.append(Brought(entry, preset, checkpoint, slots, environment))
    return found


def environment_of(facts: dict, preset: settings.Preset) -> dict:
    """What the train stage would record of a run that did not end."""
    wanted, rung = preset.train(facts["seed"])[0], rungs.RUNGS[facts["rung"]]
    return facts["environment"] | {
        "seed": facts["seed"], "tf32": {"matmul": wanted.tf32, "convolution": wanted.tf32},
        "deterministic": wanted.deterministic, "amp": wanted.amp, "rung": rung.name,
        "compiled": rung.compiled, "captured": rung.captured, "kernels": facts["kernels"]}


def put_in(run: Brought, results: Path, replace: bool = False) -> Path | None:
    """Write results/train/<preset>/<seed>/; None where it is there already.

    Raises:
        BadInput: another run is there, or the weights do not fit the settings.
    """
    folder = settings.folder_of("train", run.entry.preset, run.entry.seed, results)
    position = run.position
    if folder.exists() and not replace and not is_earlier(run, folder, position["step"]):
        return None
    wanted, _ = run.preset.train(run.entry.seed)
    model = port.build(run.preset.config(), run.entry.seed)
    optimizer = optimizers.make(model.named_parameters(), wanted.optimizer, wanted.batch_size,
                                wanted.momentum, wanted.weight_decay, wanted.lr_factors)
    try:
        model.load_state_dict(resume.read_tensors(run.checkpoint, "model", FOREIGN))
        if run.slots:
            resume.write_slots(model, optimizer, resume.read_tensors(run.checkpoint, "optimizer", FOREIGN))
    except (RuntimeError, KeyError) as error:
        raise BadInput(f"{run.checkpoint}: its weights do not fit preset {run.entry.preset}: "
                       f"{' '.join(str(error).split())[:300]}") from None
    trained = train.Trained(position["step"], 0, position["history"], optimizer, position["seconds"])
    with tempfile.TemporaryDirectory(dir=made(folder.parent)) as temporary:
        new = Path(temporary) / "run"
        stage.write(new, model, trained, run.preset, wanted, FOREIGN)
        if not run.slots:  # those there are fresh ones
            for path in (new / "model").glob("optimizer*"):
                path.unlink()
        home = json.loads((new / "environment.json").read_text())
        write_json(new / "environment.json", run.environment | {"weights": home["weights"],
                                                                "files": home["files"],
                                                                "imported_at": home["revision"]})
        forget_evaluations(run.entry, results, home["weights"])
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return folder


def is_earlier(run: Brought, folder: Path, step: int) -> bool:
    """Whether what is there is an earlier part of the same run.

    Raises:
        BadInput: it is another run.
    """
    config, environment, metrics = (aggregate.read(folder / f"{name}.json")
                                    for name in ("config", "environment", "metrics"))
    wanted, _ = run.preset.train(run.entry.seed)
    ours = {"train": vars(wanted), "prepare": run.preset.sections["prepare"],
            "arguments": run.preset.config().to_arguments()}
    theirs = {key: config.get(key, {}) for key in ours}
    differences = identity.differences(*(
        {key: value for key, value in identity.identity(one).items() if key != "train.steps"}
        for one in (ours, theirs)))
    if environment.get("device") != run.environment.get("device"):
        differences.append(f"device is {run.environment.get('device')!r} against "
                           f"{environment.get('device')!r}")
    if differences:
        raise BadInput(f"{folder} holds another run: {differences[0]}; move it away, or replace it with "
                       "--replace")
    return metrics["steps"] < step


def forget_evaluations(entry: queue.Entry, results: Path, weights: str) -> None:
    """Remove what was measured with other weights of this preset and seed."""
    for path in results.glob(f"evaluate/*/{entry.seed}/metrics.json"):
        name = path.parent.parent.name
        if name != entry.preset and not name.startswith(f"{entry.preset}_on_"):
            continue
        if aggregate.read(path).get("weights") != weights:
            print(f"bring_home: {path.parent} was measured with other weights; removed", flush=True)
            shutil.rmtree(path.parent)


def made(folder: Path) -> Path:
    """A folder that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def preset_here(run: Brought, params: str) -> settings.Preset:
    """The run's preset, with this machine's own place of the data."""
    with contextlib.suppress(BadInput, ConfigError):  # no such preset any more
        here = settings.load_preset(run.entry.preset, path=params).sections["prepare"]
        places = {name: here[name] for name in ("data_root", "download") if name in here}
        sections = run.preset.sections | {"prepare": run.preset.sections["prepare"] | places}
        return settings.Preset(run.preset.name, sections, run.preset.model)
    return run.preset


def run(folder: Path, results: Path = settings.RESULTS, replace: bool = False, measure: bool = True,
        params: str = "params.yaml") -> list[Path]:
    """Import every run of a parcel; evaluate and aggregate where asked for.

    Raises:
        BadInput: no parcel, no run in it, or another run in its place.
    """
    with tempfile.TemporaryDirectory(prefix="brought-") as temporary:
        work = Path(temporary)
        summary = parcel.unpack(folder, work)
        for name in summary["lost"]:
            print(f"bring_home: {name} of {folder} is missing or damaged; going on without it", flush=True)
        found = runs_in(work)
        if not found:
            raise BadInput(f"{folder}: no run whose weights came along; its summary.json says what was "
                           "done")
        imported = []
        for brought in found:
            target = put_in(brought, results, replace)
            print(f"bring_home: {brought.entry.name} at step {brought.position['step']:,}, trained on "
                  f"{brought.environment.get('device_name')}: "
                  + ("is here already" if target is None else f"in {target}"), flush=True)
            if target is not None:
                imported.append(target)
        presets = [preset_here(brought, params) for brought in found]
    if measure:
        for brought, preset in zip(found, presets):
            assess(brought.entry.seed, preset, results, params)
    return imported


def assess(seed: int, preset: settings.Preset, results: Path, params: str) -> None:
    """Evaluate a run on the CPU as it was trained; aggregate it against the preset as it stands here."""
    prepare.dataset_for(preset, results)
    try:
        evaluate.run(preset, seed, results, "cpu")
    except CheckFailed as error:  # of an unfinished run, say: what was measured is written all the same
        print(f"bring_home: {error}", flush=True)
    with contextlib.suppress(BadInput, ConfigError):  # no such preset any more: then against its own settings
        preset = settings.load_preset(preset.name, path=params)
    aggregate.run(preset, results)


def command(folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What came back.")],
            results: Annotated[Path, typer.Option(
                metavar="DIR", help="Folder the results go to.")] = settings.RESULTS,
            replace: Annotated[bool, typer.Option(
                "--replace", help="In place of another run of preset and seed.")] = False,
            no_evaluate: Annotated[bool, typer.Option("--no-evaluate", help="Import alone.")] = False,
            params: Params = "params.yaml") -> None:
    """Import what a visit brought into results/, evaluate it on the CPU, and aggregate."""
    run(folder, results, replace, not no_evaluate, params)


main = Program("python -m pipelines.visit.bring_home", command)


if __name__ == "__main__":
    raise SystemExit(main())
