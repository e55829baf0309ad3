"""The ablation in words: a table with intervals over seeds, a sentence a row, and the paper's Table 2 beside it.

    python -m pipelines.results.ablation_page                   prints what is finished; missing rows are named
    python -m pipelines.results.ablation_page --write           puts it between the markers of docs/ablation.md

With values x of a row and y of the row beside it, over seeds, the difference is d = x̄ - ȳ with the interval

    d ± t √(s_x² / n_x + s_y² / n_y)

of 95 %, where t is the 97.5 % quantile of Student's distribution with min(n_x, n_y) - 1 degrees of freedom. A
difference whose interval holds 0 is called none that these seeds show; with one seed there is no interval. The paper's
differences are treated alike, from the means, deviations and ten runs that it prints. Rows are many and each has its
own interval, so about one in twenty of those without any effect lies outside of it.
"""

from __future__ import annotations

import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from scipy import stats

from pipelines.results import table
from pipelines.support import settings
from pipelines.support.command_line import Params, Program
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.training import rows as sections

MEASURES = (("posterior_kmeans", "posterior clusters"), ("prior_kmeans", "prior clusters"),
            ("posterior_probe", "posterior probe"))
JUDGED = "posterior_kmeans"
PAPER_RUNS = 10
# Table 2 of the paper, MNIST (28x28): % of test images right by clusters, standard deviation over ten runs.
PAPER = {"complete": (95.3, 4.65), "no_posterior_sparsity": (97.5, 1.55), "no_prior_sparsity": (72.4, 22.39),
         "no_sparsity": (84.7, 3.01), "no_noise_in_objects": (96.7, 2.30), "no_noise": (93.1, 5.09),
         "no_noise_in_parts": (93.9, 7.16), "similarity_transforms": (97.5, 1.55), "no_deformations": (87.3, 21.48),
         "linear_part_encoder": (98.0, 0.52), "conv_part_encoder": (97.6, 1.22), "mlp_object_encoder": (27.1, 9.03),
         "no_special_features": (90.7, 2.25)}


class Difference(NamedTuple):
    """Percentage points between two rows, with the ends of the interval; None where there is none."""

    points: float
    low: float | None
    high: float | None

    @property
    def direction(self) -> str:
        """`better`, `worse`, or `open` where the interval holds 0 or there is none."""
        if self.low is None or self.high is None:
            return "open"
        return "better" if self.low > 0 else "worse" if self.high < 0 else "open"


def between(ours: tuple[float, float | None, int], theirs: tuple[float, float | None, int]) -> Difference:
    """Difference of two means, each with its standard deviation and number of runs; see the top of this file."""
    (mean, std, n), (other, other_std, m) = ours, theirs
    points = mean - other
    if std is None or other_std is None:
        return Difference(points, None, None)
    half = float(stats.t.ppf(0.975, min(n, m) - 1)) * math.sqrt(std ** 2 / n + other_std ** 2 / m)
    return Difference(points, points - half, points + half)


def spread(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, standard deviation (None of one value) and number, in %."""
    shown = [100 * value for value in values]
    return statistics.fmean(shown), statistics.stdev(shown) if len(shown) > 1 else None, len(shown)


def gather(wanted: sections.Ablation, results: str | os.PathLike = settings.RESULTS,
           params: str | os.PathLike = "params.yaml") -> dict:
    """What the page says, as plain values.

    Raises:
        BadInput: no row is finished.
    """
    runs = sections.runs_of(wanted, results, params)
    rows = [row_of(wanted, name, runs) for name, (found, _) in runs.items() if found]
    if not rows:
        raise BadInput(f"no row of {wanted.steps:,} steps in {Path(results) / wanted.folder}; python -m "
                       f"pipelines.ablation --section {wanted.folder} --row NAME --seed N makes one")
    return {"preset": wanted.preset, "steps": wanted.steps, "seeds": wanted.seeds,
            "full_steps": sections.full_steps(wanted, params), "rows": rows,
            "devices": Counter(one["device_name"] or "an unknown device"
                               for found, _ in runs.values() for one in found),
            "left_out": sections.left_out(wanted, runs)}


def row_of(wanted: sections.Ablation, name: str, runs: dict) -> dict:
    """A row's means, its difference from the row beside it, the paper's, and a sentence."""
    row, other = wanted.row(name), sections.beside(wanted, name)
    found = runs[name][0]
    values = {measure: [one["protocols"]["clean"][measure] for one in found] for measure, _ in MEASURES
              if all(measure in one["protocols"].get("clean", {}) for one in found)}
    if JUDGED not in values:
        raise BadInput(f"row {name} has no {JUDGED} under the clean protocol; leave it out of the section's rows")
    judged, compared = spread(values[JUDGED]), runs.get(other, ([], []))[0]
    told: dict = {"row": name, "words": row.words, "quirk": row.quirk, "beside": other,
                  "beside_words": wanted.row(other).words,
                  "seeds": [one["seed"] for one in found], "values": values,
                  "seconds": statistics.fmean(one["seconds"] for one in found), "difference": None, "paper": None}
    if name != other and compared:
        told["difference"] = between(judged, spread([one["protocols"]["clean"][JUDGED] for one in compared]))
    if name in PAPER and other in PAPER:
        told["paper"] = None if name == other else between((*PAPER[name], PAPER_RUNS), (*PAPER[other], PAPER_RUNS))
    told["sentence"] = sentence(told)
    return {key: value._asdict() | {"direction": value.direction} if isinstance(value, Difference) else value
            for key, value in told.items()}


def sentence(row: dict) -> str:
    """What a row says, in words and from its numbers alone."""
    mean, _, n = spread(row["values"][JUDGED])
    subject = row["words"][:1].upper() + row["words"][1:]
    found = f"{subject}: {mean:.1f} % of the test images by posterior clusters ({seeds(n)})"
    if row["row"] == row["beside"]:
        return f"{found}; the other rows are compared with it."
    change = row["difference"]
    if change is None:
        return f"{found}; what it is compared with, {row['beside_words']}, is not yet run."
    found += f", {abs(change.points):.1f} points {'fewer' if change.points < 0 else 'more'} than {row['beside_words']}"
    if change.low is None:
        found += "; one seed gives no interval"
    else:
        found += f" ({interval(change)})" if change.direction != "open" else (
            f", which these seeds cannot distinguish from no difference ({interval(change)})")
    paper = row["paper"]
    if paper is None:
        return f"{found}."
    found += f". The paper: {PAPER[row['row']][0]:.1f} %, {paper.points:+.1f} points ({interval(paper)}): "
    return found + agreement(change, paper) + "."


def agreement(ours: Difference, paper: Difference) -> str:
    """Whether two differences have the same sign, as far as either can be distinguished from 0."""
    if ours.low is None:
        return "ours cannot be judged yet"
    if "open" in (ours.direction, paper.direction):
        who = {(True, True): "neither is", (True, False): "ours is not", (False, True): "the paper's is not"}
        return f"{who[ours.direction == 'open', paper.direction == 'open']} distinguishable from 0"
    return "the same direction" if ours.direction == paper.direction else "the opposite direction"


def interval(change: Difference) -> str:
    """`-12.1 to -3.5`."""
    return f"{change.low:+.1f} to {change.high:+.1f}"


def seeds(n: int) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} seed{'s' if n != 1 else ''}"


def cell(values: Sequence[float]) -> str:
    """`79.0 ± 2.1 %`."""
    mean, std, _ = spread(values)
    return f"{mean:.1f}{'' if std is None else f' ± {std:.1f}'} %"


def difference(change: dict | None) -> str:
    """`-7.8 (-12.1 to -3.5)`."""
    if change is None:
        return "–"
    ends = "" if change["low"] is None else f" ({change['low']:+.1f} to {change['high']:+.1f})"
    return f"{change['points']:+.1f}{ends}"


def markdown(found: dict) -> str:
    """The page's generated part."""
    minutes = statistics.fmean(row["seconds"] for row in found["rows"]) / 60
    devices = ", ".join(f"{name} ({runs} run{'s' if runs != 1 else ''})" for name, runs in found["devices"].items())
    lines = [f"Preset `{found['preset']}` at {found['steps']:,} of its {found['full_steps']:,} steps, trained on "
             f"{devices}; a run took {minutes:.0f} minutes on average, others beside it included. All figures are of "
             "test images under the clean protocol.", "",
             f"| row | {' | '.join(words for _, words in MEASURES)} | seeds | difference in posterior clusters, points "
             "| paper, % | paper's difference |", f"|---|{'---|' * len(MEASURES)}---|---|---|---|"]
    for row in found["rows"]:
        paper = PAPER.get(row["row"])
        lines.append("| " + " | ".join([
            row["words"], *(cell(row["values"][name]) if name in row["values"] else "–" for name, _ in MEASURES),
            str(len(row["seeds"])), difference(row["difference"]),
            "–" if paper is None else f"{paper[0]:.1f} ({paper[1]:.2f})", difference(row["paper"])]) + " |")
    lines += ["", *(f"- {row['sentence']}" for row in found["rows"])]
    if found["left_out"]:
        lines += ["", "Missing:", "", *(f"- {line}" for line in found["left_out"])]
    return "\n".join(lines)


def command(section: Annotated[str, typer.Option(help="Of the params file.")] = "ablation_small",
            results: Annotated[str, typer.Option(metavar="DIR", help="Folder the results lie in.")] = "results",
            params: Params = "params.yaml",
            write: Annotated[bool, typer.Option(
                "--write", help="Put the page and results/SECTION_table/metrics.json there.")] = False,
            page: Annotated[str, typer.Option(metavar="FILE", help="The file with the markers.")] = "docs/ablation.md"
            ) -> None:
    """The page of the ablation, of whatever rows are finished."""
    wanted = sections.section(params, name=section)
    found = gather(wanted, results, params)
    if write:
        table.put_into(Path(page), markdown(found))
        write_json(Path(results) / f"{wanted.folder}_table" / "metrics.json", found)
    else:
        print(markdown(found))


main = Program("python -m pipelines.results.ablation_page", command)


if __name__ == "__main__":
    raise SystemExit(main())
