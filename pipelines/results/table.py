"""The tables of results in README.md and docs/results.md, made from the committed aggregates: no number is typed.

    python -m pipelines.results.table            prints the full table, of docs/results.md
    python -m pipelines.results.table --write    puts both between their markers

The full table has one row per data set and measure: the figure of the paper, ours under both protocols as
mean ± std over seeds with the interval, and the verdict; what has no aggregate is named "not yet run". The
README's has only what has run, under the clean protocol, with steps, seeds, device and hours. A third table, in
docs/results.md too, says where and with which revision each seed was trained.
"""

from __future__ import annotations

import os
import statistics
from pathlib import Path
from typing import Annotated

import typer

from pipelines.results import paper
from pipelines.support import settings
from pipelines.support.command_line import Program
from pipelines.support.values import BadInput
from port.checkpoints import run_files
from port.core import files
from port.data import validation

BEGIN, END = "<!-- results table: begin -->", "<!-- results table: end -->"
CONDITIONS = "<!-- conditions: begin -->", "<!-- conditions: end -->"
# (name of the results, data set) in the order shown; further aggregates follow.
EXPECTED = (("mnist", "mnist"), ("mnist_paper", "mnist"), ("mnist28_paper", "mnist"),
            ("mnist_coupled", "mnist"), ("mnist_small", "mnist"), ("mnist_small_step_decay", "mnist"),
            ("svhn", "svhn"), ("cifar10", "cifar10"), ("cifar10_small", "cifar10"), ("mnist_on_affnist", "affnist"),
            ("usps", "usps"), ("usps_step_decay", "usps"), ("digits", "digits"), ("capsnet_mnist", "mnist"),
            ("capsnet_mnist40_on_affnist", "affnist"), ("capsnet_svhn", "svhn"),
            ("capsnet_cifar10", "cifar10"), ("em_mnist", "mnist"), ("em_smallnorb", "smallnorb"))
CLASSIFIERS = ("capsnet", "em")  # the routing ancestors: how their presets' names begin
AGGREGATE = {"preset": str, "data": str, "protocols": {"*": dict}, "seeds": [run_files.count], "steps": run_files.count,
             "finished": bool, "full_steps": run_files.count, "environments": [dict]}
MEASURES = (("posterior_kmeans", "clustering"), ("posterior_probe", "linear probe"))
HEAD = ("| data set, preset | measure | paper | ours, clean | ours, faithful | runs | verdict |",
        "|---|---|---|---|---|---|---|")
SHORT_HEAD = ("| data set, preset | measure | ours | paper | verdict | seeds, steps of each | device, time of a seed |",
              "|---|---|---|---|---|---|---|")


def aggregates(results: str | os.PathLike = settings.RESULTS) -> dict[str, dict]:
    """Every aggregate of test images that is there, by name."""
    return {path.parent.name: run_files.read(path, AGGREGATE)
            for path in sorted(Path(results).glob("aggregate/*/metrics.json"))
            if not path.parent.name.endswith(f"_on_{validation.NAME}")}


def rows(results: str | os.PathLike = settings.RESULTS) -> list[dict]:
    """Rows of the table as plain values, the missing ones with `ours` None."""
    found = aggregates(results)
    known = [name for name, _ in EXPECTED]
    wanted = [*EXPECTED, *((name, found[name]["data"]) for name in found if name not in known)]
    shown = []
    for name, data in wanted:
        measured = found.get(name)
        classifies = measured.get("model") in CLASSIFIERS if measured else name.startswith(CLASSIFIERS)
        for measure, words in (("accuracy", "test accuracy"),) if classifies else MEASURES:
            data = measured["data"] if measured else data
            figure = paper.figure(data, measure, measured["preset"] if measured else name.split("_on_")[0])
            ours = None if measured is None else {
                protocol: measured["protocols"].get(protocol, {}).get(measure)
                for protocol in ("clean", "faithful")}
            shown.append({"name": name, "data": data, "measure": words, "figure": figure,
                          "aggregate": measured, "ours": ours})
    return shown


def markdown(results: str | os.PathLike = settings.RESULTS) -> str:
    """The table."""
    lines = list(HEAD)
    for row in rows(results):
        ours, measured = row["ours"], row["aggregate"]
        cells = [f"{paper.name_of(row['data'])}, `{row['name']}`", row["measure"],
                 percent(row["figure"]) if row["figure"] else "–"]
        if ours is None:
            cells += ["not yet run", "not yet run", "–", "–"]
        else:
            fine = row["measure"] == "test accuracy"
            cells += [accuracy(ours[protocol], fine) for protocol in ("clean", "faithful")]
            cells += [runs(measured), verdicts(ours)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def short(results: str | os.PathLike = settings.RESULTS) -> str:
    """The README's table: what has run."""
    lines = list(SHORT_HEAD)
    for row in rows(results):
        ours, measured = row["ours"], row["aggregate"]
        if ours is None or ours["clean"] is None:
            continue
        cells = [f"{paper.name_of(row['data'])}, `{row['name']}`", row["measure"],
                 accuracy(ours["clean"], row["measure"] == "test accuracy"),
                 *((percent(row["figure"]), verdicts({"clean": ours["clean"]})) if row["figure"] else "––"),
                 runs(measured), places(measured["environments"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def conditions(results: str | os.PathLike = settings.RESULTS) -> str:
    """Where each aggregate's seeds were trained: machine, hours of each, revision, settings unlike the preset's."""
    lines = ["| preset | seeds | steps | machine, time of each seed | revision of the training | unlike the preset |",
             "|---|---|---|---|---|---|"]
    for name, measured in aggregates(results).items():
        known = measured["environments"]
        times = ", ".join(hours(one["seconds"]) if one.get("seconds") else "?" for one in known)
        lines.append(f"| `{name}` | {', '.join(map(str, measured['seeds']))} | {measured['steps']:,} | "
                     f"{' and '.join(unlike(known, 'device'))}: {times} | {', '.join(unlike(known, 'revision'))} | "
                     f"{'; '.join(measured.get('unlike_preset') or []) or '–'} |")
    return "\n".join(lines)


def unlike(environments: list[dict], key: str) -> list[str]:
    """The different values of a condition, in the seeds' order."""
    return list(dict.fromkeys(str(one.get(key) or "unknown") for one in environments))


def places(environments: list[dict]) -> str:
    """`AMD EPYC, 2.6 h`: each device, and the mean time of a seed where all have one."""
    devices = dict.fromkeys(str(one["device"] or "unknown") for one in environments)
    seconds = [one["seconds"] for one in environments]
    return " and ".join(devices) + (f", {hours(statistics.fmean(seconds))}" if all(seconds) else "")


def hours(seconds: float) -> str:
    """`2.6 h`, below an hour `8 min`."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"


def accuracy(row: dict | None, fine: bool = False) -> str:
    """`54.9 ± 0.8 % (53.1–56.0)`; `fine` has a second decimal."""
    if row is None:
        return "–"
    mean, std, low, high = (None if row[name] is None else f"{100 * row[name]:.{2 if fine else 1}f}"
                            for name in ("mean", "std", "low", "high"))
    return f"{mean}{'' if std is None else f' ± {std}'} % ({low}–{high})"


def runs(measured: dict) -> str:
    """`5 seeds, 3,200 steps`, with the full length where it is not reached, and TF32 where it was allowed."""
    n = len(measured["seeds"])
    of = "" if measured["finished"] or not measured["full_steps"] \
        else f" of {measured['full_steps']:,}"
    tf32 = ", TF32" if measured.get("tf32") else ""
    return f"{n} seed{'s' if n != 1 else ''}, {measured['steps']:,}{of} steps{tf32}"


def verdicts(ours: dict[str, dict | None]) -> str:
    """One verdict where both protocols agree, else one each; the reason where there is none.

    How far an unfinished run is stands in the column beside it.
    """
    words = {protocol: row["verdict"] if row["verdict"] != "none" else
             f"not comparable: {'unfinished' if row['reason'].startswith('unfinished') else row['reason']}"
             for protocol, row in ours.items() if row}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{protocol} {word}" for protocol, word in words.items()) or "–"


def percent(figure: paper.Figure) -> str:
    """As many decimals as were printed, one at least."""
    return f"{100 * figure.value:.{2 if figure.unit < 0.001 else 1}f} %"


def put_into(path: Path, table: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Replace what stands between the markers.

    Raises:
        BadInput: no file, or no markers in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        before, rest = text.split(markers[0])
        _, after = rest.split(markers[1])
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise BadInput(f"{path} must hold {' and '.join(markers)} once each") from None
    files.write_text(path, f"{before}{markers[0]}\n{table}\n{markers[1]}{after}")


def command(results: Annotated[str, typer.Option(metavar="DIR", help="Folder the results lie in.")] = "results",
            write: Annotated[bool, typer.Option("--write", help="Put the tables into both files.")] = False,
            readme: Annotated[str, typer.Option(metavar="FILE", help="The file of the short table.")] = "README.md",
            page: Annotated[str, typer.Option(
                metavar="FILE", help="The file of the full table.")] = "docs/results.md") -> None:
    """The tables of results in README.md and docs/results.md, made from the committed aggregates."""
    table = markdown(results)
    if write:
        put_into(Path(readme), short(results))
        put_into(Path(page), table)
        put_into(Path(page), conditions(results), CONDITIONS)
    else:
        print(table)


main = Program("python -m pipelines.results.table", command)


if __name__ == "__main__":
    raise SystemExit(main())
