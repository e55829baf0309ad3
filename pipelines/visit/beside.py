"""Phases of a visit that train many small runs beside each other: the rows of an ablation, soaks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.training import rows
from port.core import backends

PHASES = ("ablation", "soak")
MEASURING = 60.0  # seconds at most that are kept for measuring what is trained last
SOAKED, FACTORS, SEEDS = "mnist_small", (3, 10), (0, 1, 2, 3, 4)
# More queues of a GPU than the usual eight, so that the streams wait for each other less.
QUEUES = {"CUDA_DEVICE_MAX_CONNECTIONS": "32"}


def command(phase: str, limit: float, work: Path, device: str, params: str, section: str, soak_steps: int,
            together: int | None) -> list[str]:
    """Arguments of Python for a phase.

    Args:
        phase: of `PHASES`.
        limit: seconds until it is sent SIGTERM.
        work: folder of the visit.
        device: cpu or cuda.
        params: the file of presets.
        section: of the ablation.
        soak_steps: of each soak.
        together: runs beside each other; None leaves it open.
    """
    what = ["pipelines.ablation", "--section", section, "--all"] if phase == "ablation" else [
        "pipelines.soak", "--preset", SOAKED, "--steps", str(soak_steps), "--factors", *map(str, FACTORS), "--seeds",
        *map(str, SEEDS)]
    seconds = max(limit / 2, limit - (MEASURING if phase == "ablation" else MEASURING / 4))
    return ["-m", *what, "--device", device, "--params", str(params), "--results", str(work / "results"), "--runs",
            str(work / "checkpoints"), "--seconds", f"{seconds:.0f}",
            *(["--together", str(together)] if together else [])]


def environment(wrong_kernels: bool) -> dict[str, str]:
    """What such a process needs; a kernel that failed in the device tier is not used."""
    return QUEUES | ({backends.SWITCH: "off"} if wrong_kernels else {})


def bring_along(results: Path, work: Path, device: str) -> None:
    """Results of rows and soaks that are done already, from the same type of device, so that none is made twice."""
    for place in (*results.glob("ablation*/*/*"), *results.glob("soak/*/*/*")):
        target = work / "results" / place.relative_to(results)
        facts = rows.read(place / "environment.json")
        if facts and facts.get("device") == device and not target.exists():
            shutil.copytree(place, target)


def counted(work: Path) -> dict[str, Any]:
    """How many are done, wait to be measured, or are under way, for the summary."""
    results, checkpoints = work / "results", work / "checkpoints"
    begun = [path for path in (*checkpoints.glob("ablation-*"), *checkpoints.glob("soak_*")) if path.is_dir()]
    waiting = [path for path in begun if (path / rows.TRAINED).exists()]
    found: Mapping[str, int] = {
        "rows": len(list(results.glob("ablation*/*/*/metrics.json"))),
        "soaks": len(list(results.glob("soak/*/*/*/metrics.json"))), "waiting": len(waiting),
        "under_way": len(begun) - len(waiting)}
    return dict(found)
