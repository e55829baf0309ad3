"""Stage `ablation`: one setting changed at a time, everything else as in a preset.

    python -m pipelines.ablation --row no_deformations --seed 0
    python -m pipelines.ablation --all                            every row and seed in one process
    python -m pipelines.ablation --table                          the rows side by side
    python -m pipelines.ablation --section ablation_small --row complete --seed 1 --unless-done
    python -m pipelines.ablation --section ablation_small --all --device cuda --seconds 400

The rows stand in section `ablation` of params.yaml: the paper's ablation, and each quirk of the original
that can be repaired, repaired alone. Leaves results/ablation/<row>/<seed>/ with metrics.json, config.json
and environment.json, and with --table results/ablation_table/metrics.json. The number of steps is in every
file: rows of another length, of other settings, or from another type of device, are not put beside each other.

On a GPU the runs of --all are trained beside each other (`pipelines.training.beside`), and each that is trained is
measured on the CPU by a process of its own meanwhile. A run that was stopped goes on with the same command.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.evaluation import row_measures as measures
from pipelines.support import children, settings
from pipelines.support.command_line import Device, Failed, Params, Program, Results, Runs, Seconds, Seed, Together
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.training import beside, row_runs, rows
from pipelines.training.rows import Ablation

IMAGES = ("posterior_kmeans", "prior_kmeans", "posterior_probe", "prior_probe", "rec_ll")
POINTS = ("segmentation", "log_prob")


def table(wanted: Ablation, results: str | os.PathLike = settings.RESULTS,
          params: str | os.PathLike = "params.yaml") -> dict:
    """The rows that are there side by side: mean over seeds, and the difference to the row beside.

    Where the rows are of two types of device, those of the one that most are of.

    Raises:
        BadInput: no row is there.
    """
    found = []
    runs = rows.runs_of(wanted, results, params)
    for name, (seeds, _) in runs.items():
        row = wanted.row(name)
        if seeds:
            found.append({"row": name, "words": row.words, "quirk": row.quirk, "preset": row.preset or wanted.preset,
                         "set": [str(change) for change in row.set or []], "beside": rows.beside(wanted, name),
                         "seeds": [found["seed"] for found in seeds], "steps": wanted.steps,
                         "parameters": seeds[0]["parameters"],
                         "protocols": means([found["protocols"] for found in seeds])})
    if not found:
        raise BadInput(f"no row of {wanted.steps} steps in {Path(results) / wanted.folder}; "
                       f"python -m pipelines.ablation --section {wanted.folder} --all makes them")
    by_name = {row["row"]: row for row in found}
    for row in found:
        other = by_name.get(row["beside"]) if row["beside"] != row["row"] else None
        row["difference"] = {} if other is None else difference(row["protocols"], other["protocols"])
    return {"preset": wanted.preset, "steps": wanted.steps, "full_steps": rows.full_steps(wanted, params),
            "seeds": wanted.seeds, "rows": found, "left_out": rows.left_out(wanted, runs)}


def means(protocols: list[dict]) -> dict:
    """Mean over the seeds, measure by measure."""
    return {protocol: {measure: sum(one[protocol][measure] for one in protocols) / len(protocols)
                       for measure in found} for protocol, found in protocols[0].items()}


def difference(ours: dict, theirs: dict) -> dict:
    """Ours - theirs; a repaired protocol is held against the faithful one."""
    return {protocol: {measure: value - theirs["faithful" if protocol == "repaired" else protocol][measure]
                       for measure, value in found.items()} for protocol, found in ours.items()}


def say(found: dict) -> None:
    """The table as lines: clean posterior clustering and probe, or segmentation, with differences."""
    print(f"ablation of {found['preset']}, {found['steps']:,} steps (the preset's own length is "
          f"{found['full_steps']:,}), seeds {', '.join(map(str, found['seeds']))}")
    for row in found["rows"]:
        protocol = next(iter(row["protocols"]))
        shown = [f"{name} {row['protocols'][protocol][name]:.3f}"
                 + (f" ({row['difference'][protocol][name]:+.3f})" if row["difference"] else "")
                 for name in (*IMAGES, *POINTS) if name in row["protocols"][protocol]]
        print(f"  {row['row']:26s} {protocol:9s} {'  '.join(shown)}")
    for line in found["left_out"]:
        print(f"  left out: {line}")


def command(part: Annotated[str, typer.Option("--section", help="Of the params file, as ablation_small.")] = "ablation",
            row: Annotated[str | None, typer.Option(
                "--row", "--only", help="One row of the section's changes.")] = None,
            unless_done: Annotated[bool, typer.Option(
                "--unless-done", help="With --row: leave it alone where it was run with these settings.")] = False,
            seed: Seed = 0,
            every: Annotated[bool, typer.Option(
                "--all", help="Every row and seed, those that are there left alone.")] = False,
            tabulate: Annotated[bool, typer.Option("--table", help="Put the rows side by side.")] = False,
            names: Annotated[bool, typer.Option("--list", help="Print the names of the rows.")] = False,
            steps: Annotated[int | None, typer.Option(help="Updates; default: of the section.")] = None,
            preset: Annotated[str | None, typer.Option(
                help="The preset that is changed; default: of the section.")] = None,
            together: Together = None, seconds: Seconds = None,
            processes: Annotated[int | None, typer.Option(
                metavar="N", min=0, help="With --all: so many processes measure what is trained meanwhile; default: on "
                "a GPU all cores but one, on a CPU none, and this one measures.")] = None,
            measure: Annotated[Path | None, typer.Option(
                metavar="DIR", help="Only measure a row that is trained, whose checkpoints lie there.")] = None,
            runs: Runs = None, failed: Failed = None,
            device: Device = None, params: Params = "params.yaml", results: Results = "results") -> None:
    """One setting changed at a time, everything else as in a preset."""
    children.follow_parent()
    if measure:
        print(measures.measure_trained(measure, results))
        return
    wanted = rows.section(params, steps, preset, part)
    if not (row or every or tabulate or names):
        raise BadInput("give --row NAME, --all, --table or --list")
    if names:
        print("\n".join(wanted.rows or []))
    if row and not (unless_done and rows.is_done(wanted, row, seed, results, params)):
        print(row_runs.run(wanted, row, seed, results, params, device, runs))
    if every:
        row_runs.run_all(wanted, results, params, device, beside.Options(
            together, seconds, processes, runs, failed, [
                "pipelines.ablation", "--section", part, *(["--steps", str(steps)] if steps else []),
                *(["--preset", preset] if preset else []), "--all"]))
    if tabulate or (every and not failed and rows.any_done(wanted, results, params)):
        found = table(wanted, results, params)
        write_json(Path(results) / f"{wanted.folder}_table" / "metrics.json", found)
        say(found)


main = Program("python -m pipelines.ablation", command)


if __name__ == "__main__":
    raise SystemExit(main())
