"""`scae verify`: a converted folder against its checkpoint, and both sides against a recording."""

from __future__ import annotations

from pathlib import Path

from pipelines import original, proof
from pipelines.comparison import Report
from port import checkpoint, convert


def run(source: str, out: str, golden: str | None = None, json_file: str | None = None,
        html_file: str | None = None, table: bool = True) -> None:
    """Compare, print the table, write it, and say whether all agrees.

    Args:
        source: checkpoint.
        out: converted folder.
        golden: folder of a recording, held to by both sides.
        json_file: where the table goes as JSON.
        html_file: where it goes as a page.
        table: print it too, else only its counts.

    Raises:
        BadInput: something cannot be read, or settings contradict the recording.
        CheckFailed: naming the first place that differs.
    """
    found = original.read(source)
    sorted_out = found.sorted_out()
    model = original.load_folder(out)
    with original.in_words(out):
        slots, step = checkpoint.load_slots(out, model)
        metadata = checkpoint.load_metadata(out)
    report = Report(f"Verification of {Path(out).name}", {
        "checkpoint": found.prefix.name, "checkpoint_sha256": found.digest, "folder": Path(out).name,
        "tool": metadata.get("tool", "not recorded")})
    if metadata.get("source_sha256", found.digest) != found.digest:
        report.notes.append("the folder was converted from other files than this checkpoint "
                            f"(SHA-256 {metadata['source_sha256'][:12]}…)")
    proof.tensors(report, sorted_out, model, slots, step)
    fits = {row.name for row in report.sections[0].rows if row.note.startswith(("shape", "not"))}
    if not fits:
        if golden is None:
            proof.forward(report, model.config, sorted_out.variables, convert.to_tf(model))
        else:
            from pipelines import recordings

            recordings.compare(report, Path(golden), sorted_out, model, slots)
    if table:
        report.print()
    else:
        report.print_counts(json_file, html_file)
    report.write(json_file, html_file)
    report.conclude()
    counts = report.counts()
    print(f"{out}: verified, {counts['exact'] + counts['pass']} rows agree, {counts['exact']} of them in "
          "every bit")
