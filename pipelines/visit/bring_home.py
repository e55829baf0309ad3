"""Import what a visit brought into results/, evaluate it on the CPU, and aggregate.

    python -m pipelines.visit.bring_home FOLDER

Each run of the parcel becomes results/train/<preset>/<seed>/ as the train stage leaves it, made from its
checkpoint, with the environment of the machine it was trained on; an unfinished one too, at the step it
reached. Then the evaluate and aggregate stages run here, and `python -m pipelines.results.table --write`
puts the aggregate into the README's table. A run that is here already is replaced only by more steps of the
same run, or with --replace. Rows of an ablation and soaks of the parcel go to their own folders, and those that
are trained and not measured are measured here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines import train as stage
from pipelines.support import settings
from pipelines.support.command_line import Params, Program
from pipelines.support.values import BadInput
from pipelines.visit import bring_rows, parcel, queue, taken_in
from port.training import loop as train
from port.training import optimizers, resume, rungs

FOREIGN = torch.device("cpu")  # where it is put together; where it was trained stands in its environment


@dataclass(frozen=True)
class InParcel(taken_in.Brought):
    """A run of a parcel.

    Attributes:
        checkpoint: its folder.
        slots: whether the optimizer's came along.
    """

    checkpoint: Path
    slots: bool


def runs_in(work: Path) -> list[InParcel]:
    """Every run of an unpacked parcel whose weights are there.

    Raises:
        BadInput: a file that says what a run is cannot be read.
    """
    found = []
    for path in sorted((work / "runs").glob("*.json")):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
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
            environment |= json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        found.append(InParcel(entry, preset, state_of(checkpoint)["step"], environment, checkpoint,
                              bool(list(checkpoint.glob("optimizer*.safetensors")))))
    return found


def environment_of(facts: dict, preset: settings.Preset) -> dict:
    """What the train stage would record of a run that did not end."""
    wanted, rung = preset.train(facts["seed"])[0], rungs.RUNGS[facts["rung"]]
    return facts["environment"] | {
        "seed": facts["seed"], "tf32": {"matmul": wanted.tf32, "convolution": wanted.tf32},
        "deterministic": wanted.deterministic, "amp": wanted.amp, "rung": rung.name,
        "compiled": rung.compiled, "captured": rung.captured, "kernels": facts["kernels"]}


def state_of(checkpoint: Path) -> dict:
    """Step, seconds and history."""
    return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))


def write(run: InParcel, new: Path) -> None:
    """A run as the train stage leaves it, made from its checkpoint.

    Raises:
        BadInput: the weights do not fit the settings.
    """
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
    state = state_of(run.checkpoint)
    trained = train.Trained(state["step"], 0, state["history"], optimizer, state["seconds"])
    stage.write(new, model, trained, run.preset, wanted, FOREIGN)
    if not run.slots:  # those there are fresh ones
        for path in (new / "model").glob("optimizer*"):
            path.unlink()


def run(folder: Path, results: Path = settings.RESULTS, replace: bool = False, measure: bool = True,
        params: str = "params.yaml") -> list[Path]:
    """Import every run, row and soak of a parcel; evaluate and aggregate where asked for.

    Raises:
        BadInput: no parcel, nothing in it, a preset that is not here, or another run in a run's place.
    """
    with tempfile.TemporaryDirectory(prefix="brought-") as temporary:
        work = Path(temporary)
        summary = parcel.unpack(folder, work)
        for name in summary["lost"]:
            print(f"bring_home: {name} of {folder} is missing or damaged; going on without it", flush=True)
        found = runs_in(work)
        here = taken_in.presets_here(found, params)
        imported = []
        for brought in found:
            target = taken_in.put_in(brought, results, functools.partial(write, brought), replace)
            print(f"bring_home: {brought.entry.name} at step {brought.steps:,}, trained on "
                  f"{brought.environment.get('device_name')}: "
                  + ("is here already" if target is None else f"in {target}"), flush=True)
            if target is not None:
                imported.append(target)
        taken = bring_rows.take_in(work, results, params, replace, measure)
    if not found and not taken.any:
        raise BadInput(f"{folder}: no run whose weights came along, and no row or soak; its summary.json says what was "
                       "done")
    if measure:
        taken_in.assess(found, here, results)
    if taken.refused:
        raise BadInput(f"{folder}: refused, the rest is here: {'; '.join(taken.refused)}")
    return imported + taken.new


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
