"""The device tier without pytest: `python -m parity_tests.device --short --seconds 60 --json FILE`.

Exit codes: 0 all that ran holds, 1 a check failed or raised, 2 bad usage.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.support.command_line import Program
from pipelines.support.values import BadInput

COUNTS = ("pass", "fail", "error", "skipped", "not_reached")


def command(device: Annotated[str | None, typer.Option(
                help="cpu or cuda; default: cuda where there is one; pretended is a device of its own on the CPU "
                "(`pretended`).")] = None,
            short: Annotated[bool, typer.Option("--short", help="Committed recordings, no compiler.")] = False,
            seconds: Annotated[float, typer.Option(help="Begin no check after that.")] = float("inf"),
            only: Annotated[str, typer.Option(metavar="PREFIX", help="Checks whose name begins so.")] = "",
            json_file: Annotated[Path | None, typer.Option(
                "--json", metavar="FILE", help="Where the outcomes go; whole after every kind.")] = None) -> int:
    """The device tier without pytest."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # at once, even where a driver hangs and no exception could come
    began = time.perf_counter()
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # nothing here may need it
    import torch

    from parity_tests.device import checks
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = device or checks.default_device()
    there = ["cpu", "pretended", *["cuda"] * torch.cuda.is_available()]
    if device.split(":")[0] not in there:
        raise BadInput(f"--device {device}: this torch has {' and '.join(there)}")
    chosen = [check for check in checks.every(short) if check.name.startswith(only)]
    if not chosen:
        raise BadInput(f"--only {only}: no check's name begins so")
    found: list[checks.Outcome] = []
    for i, check in enumerate(chosen):
        if time.perf_counter() - began > seconds:
            break
        found.append(checks.run_pretended(check) if device == "pretended" else checks.run(check, device))
        if found[-1].verdict in ("fail", "error"):
            print(f"{found[-1].verdict}: {check.name}: {found[-1].says}", flush=True)
        if json_file and (i + 1 == len(chosen) or chosen[i + 1].kind != check.kind):
            write(json_file, report(device, chosen, found, began))
    summary = report(device, chosen, found, began)
    if json_file:
        write(json_file, summary)
    for kind, row in summary["kinds"].items():
        counts = [f"{row[name]} {name.replace('_', ' ')}" for name in COUNTS if row[name]]
        print(f"{kind:8} " + ", ".join(counts)
            + f"; worst margin {row['worst_margin']:.2g} {row['worst']}")
    print(f"device tier on {summary['device']}: {summary['verdict']}, {len(found)} of {len(chosen)} checks "
          f"in {summary['seconds']:.0f} s", flush=True)
    return int(summary["verdict"] != "pass")


main = Program("python -m parity_tests.device", command)


def report(device: str, chosen: list[Any], found: list[Any], began: float) -> dict[str, Any]:
    """What is known so far, as plain values."""
    import torch

    from parity_tests.harness.report import environment
    kinds: dict[str, dict[str, Any]] = {}
    for check in chosen:
        kinds.setdefault(check.kind, dict.fromkeys(COUNTS, 0) | {"worst_margin": 0.0, "worst": ""})
        kinds[check.kind]["not_reached"] += 1
    for outcome in found:
        row = kinds[outcome.name.split("/", 1)[0]]
        row["not_reached"] -= 1
        row[outcome.verdict] += 1
        if outcome.margin is not None and outcome.margin >= row["worst_margin"]:
            row["worst_margin"], row["worst"] = outcome.margin, outcome.name.split("/", 1)[1]
    bad = any(outcome.verdict in ("fail", "error") for outcome in found)
    held = any(outcome.verdict == "pass" for outcome in found)
    name = torch.cuda.get_device_name(0) if device.startswith("cuda") else device
    return {"device": name, "environment": environment(), "seconds": time.perf_counter() - began,
            "verdict": "fail" if bad else "pass" if held else "nothing compared", "kinds": kinds,
            "checks": [outcome.as_json() for outcome in found]}


def write(path: Path, values: dict[str, Any]) -> None:
    """Under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(temporary, path)


if __name__ == "__main__":
    ended = main()
    sys.stdout.flush()
    if "pretended" in sys.argv:  # its threads of autograd cannot be joined by torch 2.11
        os._exit(ended)
    raise SystemExit(ended)
