"""`scae convert`: an original checkpoint to a PyTorch folder that is proven equal, and back.

    scae convert model.ckpt-300001 OUT --config FILE
    scae convert --to tf OUT model.ckpt-1

Neither way needs TensorFlow. That the model computes what the original does is shown by the reference,
which does: it runs in a process of its own (`pipelines.checkpoints.child`), and where it is not to be had
the card says what nobody compared.

As a DVC stage (python -m pipelines.convert) it converts the committed checkpoint of params.yaml and
verifies it against its recording.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from pathlib import Path

import numpy as np

import port
from pipelines.checkpoints import child, original
from pipelines.checkpoints.back import to_tf
from pipelines.checkpoints.comparison import Report
from pipelines.support import sections, settings
from pipelines.support.command_line import Params, Program, Results
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from port.checkpoints import contents, convert, model_card, model_folder, open_settings
from port.checkpoints.strangers import Choices
from port.checkpoints.tensor_bundle.errors import CheckpointError, printable
from port.configuration.fields import unknown
from port.core import variable_table
from port.families import Model, family_of

TARGETS = ("torch", "tf")
CHOICES = "choices"  # key of what was renamed, left out or replaced, in the folder's metadata
UNVERIFIED = "**unverified**: nobody compared it with its source."


def run(source: str, out: str, preset: str | None = None, config: str | None = None, to: str = "torch",
        dry_run: bool = False, verify: bool = True, allow_nonfinite: bool = False,
        params: str = "params.yaml", choices: Choices | None = None, overwrite: bool = False,
        weights_license: str = model_card.UNKNOWN) -> None:
    """Convert one way or the other; what is printed last says whether it is proven.

    Raises:
        BadInput: the source cannot be read or does not fit, settings are missing or contradict it,
            or the target cannot be written.
        CheckFailed: what was written is not equal to its source, or does not compute the same.
    """
    if to not in TARGETS:
        raise BadInput(f"--to: {unknown('target', to, TARGETS)}")
    if to == "tf":
        if preset or config or choices:
            raise BadInput("--to tf takes none of --preset, --config, --skip, --rename and --averages: the "
                           "folder has its configuration and the original's names")
        to_tf(source, out, dry_run, verify)
        return
    try:
        model_card.check_license(weights_license)
    except ValueError as error:
        raise BadInput(f"--license: {error}") from None
    found = original.read(source, choices)
    if not (overwrite or dry_run):
        refuse_another_model(Path(out), found)
    sorted_out = found.sorted_out()
    said, default = original.given_configuration(preset, config, params, sorted_out.variables)
    if dry_run:
        print_table(sorted_out)
        for note in found.notes:
            print(note)
    refuse_nonfinite(sorted_out, allow_nonfinite, found.prefix)
    with original.in_words(str(found.prefix)):
        model = build(sorted_out, said, default)
    if dry_run:
        print(f"{found.prefix}: every variable has its place; nothing written (--dry-run)")
        return
    with original.staged(Path(out), model_folder.FILES) as folder:
        write(folder, model, found, sorted_out, UNVERIFIED, weights_license)
        verdict = "done, unverified"
        if verify:
            report = Report(f"Conversion of {found.prefix.name}")
            prove(report, found, sorted_out, folder)
            report.conclude()
            for note in report.notes:
                print(f"note: {note}")
            if child.installed():
                write(folder, model, found, sorted_out, proven(report), weights_license)
                verdict = f"done and proven ({proven(report)})"
            else:
                write(folder, model, found, sorted_out, half_proven(report), weights_license)
                verdict = f"done, {equal(report)}; {without_reference(source, out)}"
    summary(model, found, sorted_out)
    print(f"{out}: {verdict}")


def refuse_another_model(out: Path, found: original.Original) -> None:
    """Raise where the folder holds a model that this checkpoint did not become.

    Raises:
        BadInput: naming what it was made from.
    """
    if not (out / "model.safetensors").exists():
        return
    try:
        kept = model_folder.load_metadata(out)
    except CheckpointError:  # damaged, so nobody knows whose it was
        kept = {}
    if kept.get("source_sha256") != found.digest:
        made = f"that was converted from {printable(kept['source'])}" if "source" in kept \
            else "that was not converted from this checkpoint"
        raise BadInput(f"{out} holds another model, {made}; name another folder, or give --overwrite to "
                       "replace it")


def build(source: contents.Contents, said: dict, default: bool) -> Model:
    """The model with the checkpoint's weights."""
    model = port.build(convert.configuration_of(source, said, default))
    convert.load_module(model, source.variables, table=source.origin.table)
    return model.eval()


def refuse_nonfinite(source: contents.Contents, allowed: bool, prefix: Path) -> None:
    """Raise for NaN and infinities in weights or slots, unless they are wanted."""
    bad = source.nonfinite()
    if bad and not allowed:
        name, count = next(iter(bad.items()))
        raise BadInput(f"{prefix}: {name} has {count} entries that are NaN or infinite ({len(bad)} arrays "
                       "have such); --allow-nonfinite converts them as they are")


def write(folder: Path, model: Model, found: original.Original, source: contents.Contents,
          verdict: str, weights_license: str = model_card.UNKNOWN) -> None:
    """The files of a converted model."""
    tool = f"scae-port {port.__version__}"
    slots = "yes, in optimizer.safetensors" if source.slots else "none"
    note = (f"Converted from the TensorFlow checkpoint `{found.prefix.name}` (SHA-256 of its files "
            f"`{found.digest}`) by {tool}.\n\nStep: {step_of(source)}. Optimizer slots: {slots}.\n\n"
            f"Verification: {verdict}")
    if found.notes:
        note += "\n\nNot as the checkpoint has it:\n\n" + "\n".join(f"- {line}" for line in found.notes)
    left_open = open_settings.sentences(model.config.unset)
    if left_open:
        note += ("\n\nNeither the checkpoint nor its converter told these settings, which have the original's "
                 "defaults:\n\n"
                 + "\n".join(f"- {line}." for line in left_open))
    metadata = {"source": found.prefix.name, "source_sha256": found.digest, "tool": tool}
    if found.choices:
        metadata[CHOICES] = json.dumps(found.choices.as_json())
    with original.in_words(str(folder)):
        tensors = convert.slots_from_tf(model, source.variables | source.slots)
        model_folder.write_files(folder, model, note, tensors, source.step, metadata, weights_license)


def step_of(source: contents.Contents) -> str:
    """The step in words."""
    return "not recorded" if source.step is None else str(source.step)


def prove(report: Report, found: original.Original, source: contents.Contents, folder: Path) -> None:
    """Reload a converted folder and compare it with its source: tensors, then both sides' taps.

    The second needs TensorFlow; where it is not installed only the first is done.

    Raises:
        CheckFailed: something differs.
    """
    from pipelines.checkpoints import proof

    model = original.load_folder(folder)
    with original.in_words(str(folder)):
        slots, step = model_folder.load_slots(folder, model)
    proof.tensors(report, source, model, slots, step)
    report.conclude()
    if child.installed():
        report.add(child.ask("prove", source=str(found.prefix), digest=found.digest, folder=str(folder),
                             choices=found.choices.as_json()))


def prove_forward(source: str, digest: str, folder: str, choices: dict) -> dict:
    """Where TensorFlow is: its own reading of the checkpoint, then both sides on random input.

    Args:
        source: the checkpoint's prefix.
        digest: of what was converted.
        folder: the converted model.
        choices: what was renamed, left out or replaced.

    Returns:
        The report as plain values.

    Raises:
        BadInput: the checkpoint is another one by now.
    """
    from pipelines.checkpoints import proof

    found = original.read(source, Choices(**choices))
    if found.digest != digest:
        raise BadInput(f"{source} changed while it was converted; convert it again")
    report = Report("")
    proof.reading(report, found)
    sorted_out, model = found.sorted_out(), original.load_folder(folder)
    proof.forward(report, model.config, sorted_out.variables, convert.to_tf(model))
    return report.as_json()


def proven(report: Report) -> str:
    """The proof in one line."""
    worst = report.worst()
    return (f"{equal(report)}; on random input the port differs from the "
            f"reference by at most {worst['port float64']['max_rel']:.1e} of a tap's scale in float64 and "
            f"{worst['port float32']['max_rel']:.1e} in float32")


def equal(report: Report) -> str:
    """What needs no reference, in words."""
    return f"verified: {len(report.sections[0].rows)} arrays equal in every bit"


def half_proven(report: Report) -> str:
    """The proof without the reference, for a model card."""
    return (f"**in part**; {equal(report)}. That the model computes what the original does was not "
            "compared, since TensorFlow was not installed; `scae verify CHECKPOINT FOLDER` does that where "
            "it is.")


def without_reference(source: str, out: str) -> str:
    """What is open without TensorFlow, and how to close it."""
    return ("not proven: that it computes what the original does, since TensorFlow is not installed "
            f"({child.HOW}; then {shlex.join(['scae', 'verify', source, out])})")


def print_table(source: contents.Contents) -> None:
    """Every variable with its target, and what is skipped."""
    rows = []
    for name, array in source.variables.items():
        target = variable_table.port_name(name, source.origin.table)
        if target is None:
            rows.append((name, str(list(array.shape)), "", ""))
            continue
        if isinstance(target[1], variable_table.Layout):  # its shape is the configuration's
            shape, how = "", "another order of numbers"
        else:
            shape = f" {list(variable_table.to_port(np.empty(array.shape, np.int8), target[1]).shape)}"
            how = "" if target[1] == "same" else target[1]
        slots = " + slots" * (f"{name}/{next(iter(source.origin.slots))}" in source.slots)
        rows.append((name, str(list(array.shape)), f"{target[0]}{shape}{slots}", how))
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(3)]
    for row in rows:
        print(" ".join(f"{cell:{width}}" for cell, width in zip(row, [*widths, 0])).rstrip())
    for name, reason in source.skipped.items():
        print(f"{printable(name)}: skipped, {reason}")


def summary(model: Model, found: original.Original, source: contents.Contents) -> None:
    """What was converted, in a few words."""
    config = model.config
    what = family_of(config).words(config)
    print(f"{source.parameters:,} parameters, {what}; step {step_of(source)}, "
          f"{len(source.slots)} optimizer slots, {len(source.skipped)} arrays skipped")
    for note in found.notes:
        print(note)
    deciding = open_settings.deciding(config.unset)
    if deciding:
        print(f"not told, and able to change what the model answers: {', '.join(deciding)}; they have the original's "
              "defaults")
    if len(config.unset) > len(deciding):
        print(f"not told, and of the noise and the loss alone: {len(config.unset) - len(deciding)} settings, which the "
              "model card lists")


def stage(wanted: sections.Convert, results: str | os.PathLike = settings.RESULTS) -> Path:
    """Convert the checkpoint of section `convert`, hold both sides to its recording, count.

    Raises:
        BadInput: the section names no checkpoint or recording.
        CheckFailed: the conversion is not proven.
    """
    from pipelines.commands import verify

    folder = Path(results) / "convert"
    model, table = folder / "model", folder / "verification.json"
    if model.is_symlink():  # of DVC, to its cache
        model.unlink()
    shutil.rmtree(model, ignore_errors=True)
    started = time.perf_counter()
    page = table.with_suffix(".html")
    run(wanted.checkpoint, str(model), config=wanted.golden)
    try:
        verify.run(wanted.checkpoint, str(model), wanted.golden, str(table), str(page), table=False)
    except CheckFailed as error:
        raise CheckFailed(f"{error}; {page} has every row in order of computation, and what follows the "
                          "first that fails inherits its error") from None
    found = json.loads(table.read_text(encoding="utf-8"))
    write_json(folder / "metrics.json", {
        "rows": found["rows"], "worst": found["worst"], "seconds": round(time.perf_counter() - started, 1)})
    return folder


def command(params: Params = "params.yaml", results: Results = "results") -> None:
    """What section `convert` names: an original checkpoint to a PyTorch folder that is proven equal."""
    stage(sections.section(sections.Convert, "convert", params), results)


main = Program("python -m pipelines.convert", command)


if __name__ == "__main__":
    raise SystemExit(main())
