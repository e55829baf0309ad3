"""`scae verify`: a converted folder against its checkpoint, and both sides against a recording."""

from __future__ import annotations

import json
from pathlib import Path

from pipelines.checkpoints import child, original, proof
from pipelines.checkpoints.comparison import Report
from pipelines.support.values import BadInput
from port import checkpoints
from port.checkpoints import convert, model_folder
from port.checkpoints.strangers import Choices


def run(source: str, out: str, golden: str | None = None, json_file: str | None = None,
        html_file: str | None = None, table: bool = True) -> None:
    """Compare, print the table, write it, and say whether all agrees.

    Where TensorFlow is not installed the tensors alone are compared, and that is said.

    Args:
        source: the checkpoint.
        out: the converted folder.
        golden: a recording, held to by both sides.
        json_file: for the table.
        html_file: the same as a page.
        table: print it too, else only its counts.

    Raises:
        BadInput: something cannot be read, or settings contradict the recording.
        CheckFailed: naming the first place that differs.
    """
    with original.in_words():
        checkpoints.read_checkpoint(source)  # what is not there is said at once
    given = {"source": source, "out": out, "golden": golden, "json_file": json_file, "html_file": html_file,
             "table": table}
    if child.installed():
        child.ask("verify", **given)
    elif golden is not None:
        raise BadInput("--golden holds both sides to a recording, and TensorFlow is not installed here: "
                       f"{child.HOW}")
    else:
        verify(**given, forward=False)


def verify(source: str, out: str, golden: str | None, json_file: str | None, html_file: str | None,
           table: bool = True, forward: bool = True) -> None:
    """The comparison itself.

    Args:
        source: the checkpoint.
        out: the converted folder.
        golden: a recording.
        json_file: for the table.
        html_file: the same as a page.
        table: print it, else only its counts.
        forward: both sides are run, for which TensorFlow is there.
    """
    model = original.load_folder(out)
    with original.in_words(out):
        slots, step = model_folder.load_slots(out, model)
        metadata = model_folder.load_metadata(out)
    found = original.read(source, choices_of(metadata, out))
    sorted_out = found.sorted_out()
    report = Report(f"Verification of {Path(out).name}", {
        "checkpoint": found.prefix.name, "checkpoint_sha256": found.digest, "folder": Path(out).name,
        "tool": metadata.get("tool", "not recorded")})
    if metadata.get("source_sha256", found.digest) != found.digest:
        report.notes.append("the folder was converted from other files than this checkpoint "
                            f"(SHA-256 {metadata['source_sha256'][:12]}…)")
    report.notes += found.notes
    proof.tensors(report, sorted_out, model, slots, step)
    fits = not any(row.note.startswith(("shape", "not")) for row in report.sections[0].rows)
    if fits and forward:
        proof.reading(report, found)
        if golden is None:
            proof.forward(report, model.config, sorted_out.variables, convert.to_tf(model))
        else:
            from pipelines.checkpoints import recordings

            recordings.compare(report, Path(golden), sorted_out, model, slots)
    if not forward:
        report.notes.append("not compared: what the model computes, since TensorFlow is not installed "
                            f"({child.HOW})")
    if table:
        report.print()
    else:
        report.print_counts(json_file, html_file)
    report.write(json_file, html_file)
    report.conclude()
    counts = report.counts()
    print(f"{out}: verified{' in part' * (not forward)}, {counts['exact'] + counts['pass']} rows agree, "
          f"{counts['exact']} of them in every bit")


def choices_of(metadata: dict[str, str], out: str) -> Choices:
    """What was renamed, left out or replaced when the folder was converted.

    Raises:
        BadInput: its note of that is damaged.
    """
    try:
        return Choices(**json.loads(metadata.get("choices", "{}")))
    except (ValueError, TypeError):
        raise BadInput(f"{out}: model.safetensors says in no way that is known what was renamed or left out"
                       ) from None
