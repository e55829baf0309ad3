"""What long training at too high a rate came to: a table of the runs, a sentence for each rate, and what is missing.

    python -m pipelines.results.soak_page                   prints what is finished
    python -m pipelines.results.soak_page --write           puts it between the markers of docs/soak.md
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from pipelines import soak
from pipelines.results import table
from pipelines.support import settings
from pipelines.support.command_line import Program
from pipelines.support.values import BadInput


class Wanted(NamedTuple):
    """Runs that the page asks for."""

    preset: str
    factors: tuple[float, ...]
    seeds: tuple[int, ...]
    steps: int


# The whole model, half as long as its preset; and part capsules alone on colour images, ten times as long as theirs.
SEEDS = (0, 1, 2, 3, 4)
WANTED = (Wanted("mnist_small", (3, 10), SEEDS, 50_000), Wanted("pcae_cifar10", (3, 10), SEEDS, 20_000))
HEAD = ("| preset, rate | seed | steps | every number finite | largest mean loss | dead outputs, first convolution "
        "| dead hidden units, both networks of the capsules | spread of votes |",
        "|---|---|---|---|---|---|---|---|")


def gather(results: str | os.PathLike = settings.RESULTS, wanted: Sequence[Wanted] = WANTED) -> dict:
    """The finished runs by preset, and those that are missing, in words.

    Raises:
        BadInput: there is no run.
    """
    found, missing = {}, []
    for each in wanted:
        try:
            found[each.preset] = soak.summary(each.preset, Path(results))
        except BadInput:
            missing.append(f"`{each.preset}` at {listed(each.factors)} times its rate: not yet run")
            continue
        done = {(one["factor"], one["seed"]) for one in found[each.preset]["runs"]}
        for factor in each.factors:
            left = [seed for seed in each.seeds if (factor, seed) not in done]
            if left:
                missing.append(f"`{each.preset}` at {factor:g} times its rate, {each.steps:,} steps: not yet run (seed"
                               f"{'s' * (len(left) > 1)} {', '.join(map(str, left))})")
    if not found:
        raise BadInput(f"no soak in {results}; python -m pipelines.soak --factor 3 --seed 0 makes one")
    return {"presets": found, "missing": missing}


def listed(factors: Sequence[float]) -> str:
    """`3 and 10`."""
    return " and ".join(f"{factor:g}" for factor in factors)


def markdown(found: dict) -> str:
    """The page's generated part."""
    lines = list(HEAD)
    for summary in found["presets"].values():
        lines += [row(one) for one in summary["runs"]]
    lines += ["", *(f"- {sentence}" for summary in found["presets"].values() for sentence in summary["sentences"])]
    if found["missing"]:
        lines += ["", "Missing:", "", *(f"- {line}" for line in found["missing"])]
    return "\n".join(lines)


def row(one: dict) -> str:
    """A run as a line of the table; its last look says what was alive."""
    last = one["last_look"]
    fine = "yes" if one["finite"] else f"no, from step {one['step']:,}: {one['cause']}"
    loss = "–" if one["largest_loss"] is None else f"{one['largest_loss']:,.1f}"
    dead = " and ".join(share(last, f"dead_capsules{i}") for i in range(2))
    spread = f"{last['vote_spread']:.3g}" if "vote_spread" in last else "–"
    cells = [f"`{one['preset']}`, {one['factor']:g} × = {one['lr']:g}", str(one["seed"]), f"{one['steps']:,}", fine,
             loss, share(last, "dead_conv0"), "–" if dead == "– and –" else dead, spread]
    return f"| {' | '.join(cells)} |"


def share(look: dict, name: str) -> str:
    """`98 %`, or a dash where the model has no such layer."""
    return f"{100 * look[name]:.0f} %" if name in look else "–"


def command(results: Annotated[str, typer.Option(metavar="DIR", help="Folder the results lie in.")] = "results",
            write: Annotated[bool, typer.Option("--write", help="Put it into the page.")] = False,
            page: Annotated[str, typer.Option(metavar="FILE", help="The file with the markers.")] = "docs/soak.md"
            ) -> None:
    """The table of docs/soak.md, of whatever runs are finished."""
    text = markdown(gather(results))
    if write:
        table.put_into(Path(page), text)
    else:
        print(text)


main = Program("python -m pipelines.results.soak_page", command)


if __name__ == "__main__":
    raise SystemExit(main())
