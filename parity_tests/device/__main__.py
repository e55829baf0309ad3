"""The device tier without pytest: `python -m parity_tests.device --short --seconds 60 --json FILE`.

Exit codes: 0 all that ran holds, 1 a check failed or raised, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

COUNTS = ("pass", "fail", "error", "skipped", "not_reached")


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, print a line a kind and one for each that does not hold, write them."""
    parser = argparse.ArgumentParser(prog="python -m parity_tests.device",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="cpu or cuda; default: cuda where there is one; "
                        "pretended is a device of its own on the CPU (`pretended`)")
    parser.add_argument("--short", action="store_true", help="committed recordings, no compiler")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no check after that")
    parser.add_argument("--only", default="", metavar="PREFIX", help="checks whose name begins so")
    parser.add_argument("--json", type=Path, help="where the outcomes go; whole after every kind")
    given = parser.parse_args(arguments)
    began = time.perf_counter()
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]  # nothing here may need it
    import torch

    from parity_tests.device import checks
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = given.device or checks.default_device()
    there = ["cpu", "pretended", *["cuda"] * torch.cuda.is_available()]
    if device.split(":")[0] not in there:
        parser.error(f"--device {device}: this torch has {' and '.join(there)}")
    chosen = [check for check in checks.every(given.short) if check.name.startswith(given.only)]
    if not chosen:
        parser.error(f"--only {given.only}: no check's name begins so")
    found: list[checks.Outcome] = []
    for i, check in enumerate(chosen):
        if time.perf_counter() - began > given.seconds:
            break
        found.append(checks.run_pretended(check) if device == "pretended" else checks.run(check, device))
        if found[-1].verdict in ("fail", "error"):
            print(f"{found[-1].verdict}: {check.name}: {found[-1].says}", flush=True)
        if given.json and (i + 1 == len(chosen) or chosen[i + 1].kind != check.kind):
            write(given.json, report(device, chosen, found, began))
    summary = report(device, chosen, found, began)
    if given.json:
        write(given.json, summary)
    for kind, row in summary["kinds"].items():
        counts = [f"{row[name]} {name.replace('_', ' ')}" for name in COUNTS if row[name]]
        print(f"{kind:8} " + ", ".join(counts)
            + f"; worst margin {row['worst_margin']:.2g} {row['worst']}")
    print(f"device tier on {summary['device']}: {summary['verdict']}, {len(found)} of {len(chosen)} checks "
          f"in {summary['seconds']:.0f} s", flush=True)
    return int(summary["verdict"] != "pass")


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
