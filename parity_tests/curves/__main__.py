"""Train the port as the original was trained, or judge what was trained.

    python -m parity_tests.curves learn --seeds 0 1 2 --out port.npz
    python -m parity_tests.curves learn --seeds 2 --start seed_2_initial.ckpt-0 --noise-seeds 200 201 --out start.npz
    python -m parity_tests.curves judge [--port port.npz]
    python -m parity_tests.curves figure
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from parity_tests.curves import bundle, judge, learn
from pipelines.support.command_line import Command, Program, among, application, several
from pipelines.support.output import write_json

FIXTURES = bundle.FIXTURES
app = application("Train the port as the original was trained, or judge what was trained.", add_completion=False)


@app.command("learn", cls=Command)
def train(seeds: Annotated[list[int], several(metavar="N", help="Of the runs.")],
          out: Annotated[Path, typer.Option(metavar="FILE", help="Where the curves go.")],
          start: Annotated[Path | None, typer.Option(
              metavar="CKPT", help="An original checkpoint whose weights are the initial values.")] = None,
          noise_seeds: Annotated[list[int] | None, several(
              metavar="N", help="Runs of the first seed with other noise.")] = None,
          wrong: Annotated[str | None, typer.Option(
              metavar="MISTAKE", help=f"With a mistake that the judge has to find: {', '.join(learn.WRONG)}.",
              callback=among(learn.WRONG))] = None) -> None:
    """Runs of the port, 1,200 steps each, about a minute of one core."""
    torch.set_num_threads(1)
    learn.bundle(seeds, start, noise_seeds or None, wrong, lambda line: print(line, flush=True)).save(out)


@app.command("judge", cls=Command)
def judged(port: Annotated[Path, typer.Option(
               metavar="FILE", help="Of `learn`; default: the committed runs.", show_default=False
               )] = FIXTURES / "port.npz",
           json_file: Annotated[Path | None, typer.Option(
               "--json", metavar="FILE", help="Where the figures go.")] = None) -> None:
    """Compare with the original's runs."""
    torch.set_num_threads(1)
    original = bundle.read(FIXTURES / "original.npz")
    found = {}
    wrong = {one.stem: one for one in sorted(FIXTURES.glob("wrong_*.npz"))}
    for name, runs in {"port": port, **wrong}.items():
        mine = bundle.read(runs)
        found[name] = said(name, mine, judge.judge(mine, original))
    start, noise = (bundle.read(FIXTURES / f"start_{side}.npz") for side in ("port", "original"))
    found["port, original's initial values"] = said(
        "port, original's initial values", start, judge.judge(start, noise, equality=False))
    if json_file:
        write_json(json_file, found)


@app.command("figure", cls=Command)
def drawn(out: Annotated[Path, typer.Option(
        metavar="FILE", help="The picture.")] = Path("results/readme/learning_curves.png")) -> None:
    """Draw the committed curves."""
    from parity_tests.curves import figure
    torch.set_num_threads(1)
    figure.draw(out)


def said(name: str, mine: bundle.Bundle, verdict: judge.Verdict) -> dict:
    """A verdict on the terminal, and as JSON."""
    print(f"{name} ({len(mine)} runs): p {verdict.p:.3f}; " + ("; ".join(verdict.reasons) or "passes"), flush=True)
    return {"runs": len(mine), "p": verdict.p, "passes": not verdict.reasons, "reasons": verdict.reasons,
            "largest": dict(verdict.largest), "intervals": {
                one.name: {"difference": one.difference, "half": one.half, "margin": one.margin}
                for one in verdict.intervals}}


main = Program("python -m parity_tests.curves", app)


if __name__ == "__main__":
    raise SystemExit(main())
