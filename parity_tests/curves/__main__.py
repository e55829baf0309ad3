"""Train the port as the original was trained, or judge what was trained.

    python -m parity_tests.curves learn --seeds 0 1 2 --out port.npz
    python -m parity_tests.curves learn --seeds 2 --start seed_2_initial.ckpt-0 --noise-seeds 200 201 --out start.npz
    python -m parity_tests.curves judge [--port port.npz]
    python -m parity_tests.curves figure
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from parity_tests.curves import bundle, judge, learn
from pipelines.support import console
from pipelines.support.output import write_json

FIXTURES = bundle.FIXTURES


def main(arguments: list[str] | None = None) -> int:
    parser = console.Parser(prog="python -m parity_tests.curves", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=argparse.ArgumentParser)
    train = commands.add_parser("learn", help="runs of the port, 1,200 steps each, about a minute of one core")
    train.add_argument("--seeds", type=int, nargs="+", required=True)
    train.add_argument("--start", type=Path, help="an original checkpoint whose weights are the initial values")
    train.add_argument("--noise-seeds", type=int, nargs="+", help="runs of the first seed with other noise")
    train.add_argument("--wrong", choices=learn.WRONG, help="with a mistake that the judge has to find")
    train.add_argument("--out", type=Path, required=True)
    verdict = commands.add_parser("judge", help="compare with the original's runs")
    verdict.add_argument("--port", type=Path, default=FIXTURES / "port.npz",
                         help="of `learn`; default: the committed runs")
    verdict.add_argument("--json", type=Path, help="where the figures go")
    drawn = commands.add_parser("figure", help="draw the committed curves")
    drawn.add_argument("--out", type=Path, default=Path("results/readme/learning_curves.png"))
    given = parser.parse_args(arguments)

    def judged() -> None:
        original = bundle.read(FIXTURES / "original.npz")
        found = {}
        wrong = {one.stem: one for one in sorted(FIXTURES.glob("wrong_*.npz"))}
        for name, runs in {"port": given.port, **wrong}.items():
            mine = bundle.read(runs)
            found[name] = said(name, mine, judge.judge(mine, original))
        start, noise = (bundle.read(FIXTURES / f"start_{side}.npz") for side in ("port", "original"))
        found["port, original's initial values"] = said(
            "port, original's initial values", start, judge.judge(start, noise, equality=False))
        if given.json:
            write_json(given.json, found)

    def work() -> None:
        torch.set_num_threads(1)
        if given.command == "judge":
            return judged()
        if given.command == "figure":
            from parity_tests.curves import figure
            return figure.draw(given.out)
        learn.bundle(given.seeds, given.start, given.noise_seeds, given.wrong,
                     lambda line: print(line, flush=True)).save(given.out)
    return console.exit_code(work)


def said(name: str, mine: bundle.Bundle, verdict: judge.Verdict) -> dict:
    """A verdict on the terminal, and as JSON."""
    print(f"{name} ({len(mine)} runs): p {verdict.p:.3f}; " + ("; ".join(verdict.reasons) or "passes"), flush=True)
    return {"runs": len(mine), "p": verdict.p, "passes": not verdict.reasons, "reasons": verdict.reasons,
            "largest": dict(verdict.largest), "intervals": {
                one.name: {"difference": one.difference, "half": one.half, "margin": one.margin}
                for one in verdict.intervals}}


if __name__ == "__main__":
    raise SystemExit(main())
