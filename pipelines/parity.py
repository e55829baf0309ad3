"""Stage `parity`: run a tier of the parity suite and keep what it found.

    python -m pipelines.parity

Runs pytest in a process of its own (the suite brings TensorFlow) and leaves
results/parity/parity.json, written by the suite, results/parity/metrics.json, counted from it, and all
that pytest said in results/parity/pytest.log.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from pipelines.support import console, environment, sections, settings
from pipelines.support.command_line import Params, Program, Results
from pipelines.support.output import write_json
from pipelines.support.values import BadInput, CheckFailed
from port.configuration.fields import unknown

REPOSITORY = Path(__file__).resolve().parent.parent
TIERS = ("smoke", "default", "deep")
LOG = "pytest.log"
QUARTER = 25  # per cent of the tests between two lines on the terminal
MOST_FAILURES = 4  # named on the terminal; the log has all


def run(wanted: sections.Parity, results: str | os.PathLike = settings.RESULTS) -> Path:
    """Run the suite.

    Raises:
        BadInput: an unknown tier.
        CheckFailed: a test failed, or the suite left no parity.json; what it found stands in the files.
    """
    if wanted.tier not in TIERS:
        raise BadInput("parity: " + unknown("tier", wanted.tier, TIERS))
    if not (REPOSITORY / "pyproject.toml").is_file():
        raise BadInput("parity: the suite runs in the repository, whose recordings and settings are no "
                       "part of an installed package; clone it and run there")
    folder = Path(results) / "parity"
    table = folder / "parity.json"
    folder.mkdir(parents=True, exist_ok=True)
    table.unlink(missing_ok=True)
    log = folder / LOG
    print(f"parity: {wanted.tier} tier of parity_tests, {wanted.workers or 1} processes; all that pytest "
          f"says: {log}", flush=True)
    started = time.perf_counter()
    code = follow(command(wanted, table.resolve()), log)
    seconds = time.perf_counter() - started
    if table.exists():
        found = count(json.loads(table.read_text(encoding="utf-8")))
        write_json(folder / "metrics.json", found | {"tier": wanted.tier, "seconds": round(seconds, 1)})
        write_json(folder / "environment.json", environment.describe())
        print(f"parity: {found['ops_passed']} of {found['ops']} ops and "
              f"{found['goldens_passed']} of {found['goldens']} goldens agree, {seconds:.0f} s")
    if code:
        raise CheckFailed(describe_failure(log.read_text(encoding="utf-8"), code, log))
    if not table.exists():
        raise CheckFailed(f"the suite passed but left no {table}; see {log}")
    return folder


def follow(words: list[str], log: Path) -> int:
    """Run pytest; all its output goes to the log, a line for each quarter of the tests to the terminal.

    Args:
        words: the call.
        log: written anew.

    Returns:
        pytest's exit code.
    """
    started, said = time.perf_counter(), 0
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
               "encoding": "utf-8", "errors": "replace"}
    with open(log, "w", encoding="utf-8") as file, subprocess.Popen(
            words, cwd=REPOSITORY, env=quiet_environment(), **streams) as process:
        for line in process.stdout:
            file.write(line)
            done = re.search(r"\[ *(\d+)%\]$", line.rstrip())
            quarter = int(done[1]) // QUARTER * QUARTER if done else 0
            if quarter > said:
                file.flush()
                print(f"parity: {quarter} % of the tests, {console.clock(time.perf_counter() - started)}",
                      flush=True)
                said = quarter
    return process.returncode


def describe_failure(said: str, code: int, log: Path) -> str:
    """What failed and what to do, in one line; the first failures or the end of the log above it."""
    lines = [line for line in said.splitlines() if line.strip()]
    failures = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    for line in failures[:MOST_FAILURES] or lines[-MOST_FAILURES:]:
        print(line if len(line) <= 160 else line[:157] + "...")
    if not failures:
        return f"pytest ended with {code} before it could name a test; the reason is in {log}"
    return (f"{len(failures)} tests of parity_tests failed; {log} has op, tap and values of each and the "
            "command that runs it alone")


def command(wanted: sections.Parity, table: Path) -> list[str]:
    """The pytest call; `table` is where the suite writes what it found."""
    words = [sys.executable, "-m", "pytest", "parity_tests", f"--tier={wanted.tier}",
             f"--parity-json={table}", "-q", "--no-header", "-rfE"]
    if wanted.workers:
        words += ["-n", str(wanted.workers), "--dist=worksteal"]
    return words


def quiet_environment() -> dict[str, str]:
    """TensorFlow's start-up lines off, and one thread for each of the workers."""
    return {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", **os.environ}


def count(table: dict) -> dict:
    """Number of rows and the worst margins of a parity table (a margin is error / bound)."""
    def worst(rows: list[dict], key: str) -> dict[str, float]:
        margins: dict[str, float] = {}
        for row in rows:
            for dtype, value in (row.get(key) or {}).items():
                if isinstance(value, int | float):
                    margins[dtype] = max(margins.get(dtype, 0.0), value)
        return margins
    ops, goldens = table.get("ops") or [], table.get("goldens") or []
    return {"ops": len(ops), "ops_passed": sum(row.get("verdict") == "pass" for row in ops),
            "goldens": len(goldens),
            "goldens_passed": sum(row.get("verdict") == "pass" for row in goldens),
            "examples": sum(row.get("examples") or 0 for row in ops),
            "worst_forward_margin": worst(ops, "worst_forward_margin"),
            "worst_gradient_margin": worst(ops, "worst_gradient_margin"),
            "worst_golden_margin": max((row["worst_margin"] for row in goldens if isinstance(
                row.get("worst_margin"), int | float)), default=None)}


def stage(params: Params = "params.yaml", results: Results = "results") -> None:
    """Run a tier of the parity suite and keep what it found."""
    run(sections.section(sections.Parity, "parity", params), results)


main = Program("python -m pipelines.parity", stage)


if __name__ == "__main__":
    raise SystemExit(main())
