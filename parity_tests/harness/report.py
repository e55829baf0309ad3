"""The session's report: environment, parity.json, the terminal table."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from parity_tests.harness import recorder
from parity_tests.harness.recorder import DTYPES, STATE


def _version(*names: str) -> str:
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def environment() -> dict[str, Any]:
    """Versions and settings, without loading TensorFlow."""
    import torch
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    return {"torch": _version("torch"), "tensorflow": _version("tensorflow", "tensorflow-cpu"),
            "numpy": _version("numpy"), "hypothesis": _version("hypothesis"),
            "python": platform.python_version(), "device": device,
            "threads": int(os.environ.get("OMP_NUM_THREADS", "1")),
            "tf32": "off" if not torch.backends.cuda.matmul.allow_tf32 else "on"}


def parity_json(tier: str, seed: int | None) -> dict[str, Any]:
    """Everything the session saw."""
    ops = []
    for entry in STATE["ops"].values():
        row = {key: value for key, value in entry.items() if key not in ("discarded", "tests", "passed")}
        ops.append(row | {"discarded_share": recorder.discarded_share(entry),
                          "verdict": recorder.verdict(entry)})
    goldens = list(STATE["goldens"].values())
    worst = {kind: {dtype: max((entry[f"worst_{kind}_margin"][dtype] for entry in ops), default=0.0)
                    for dtype in DTYPES} for kind in ("forward", "gradient")}
    verdicts = {name: sum(entry["verdict"] == name for entry in goldens)
                for name in ("pass", "fail", "skipped", "elsewhere")}
    return {"environment": environment(), "tier": tier, "seed": seed, "ops": ops, "goldens": goldens,
            "failures_in_original": list(STATE["failures_in_original"].values()),
            "summary": {"ops": len(ops), "ops_passed": sum(e["verdict"] == "pass" for e in ops),
                        "examples": sum(e["examples"] for e in ops), "worst_margins": worst,
                        "goldens": verdicts,
                        "worst_golden_margin": max((e["worst_margin"] for e in goldens), default=0.0),
                        "failures_in_original": len(STATE["failures_in_original"])}}


def summary_lines() -> list[str]:
    """A compact table: per room the worst margins, per kind of golden the counts.

    A comparison that fails leaves no margin, so where an op fails a column without any has a dash, and the op is named.
    """
    lines = [f"{'room':16} {'ops':>4} {'pass':>4} {'examples':>8} {'fwd f64':>9} {'fwd f32':>9} "
             f"{'grad f64':>9} {'grad f32':>9}  worst op"]
    rooms: dict[str, list[dict[str, Any]]] = {}
    for entry in STATE["ops"].values():
        rooms.setdefault(entry["room"], []).append(entry)
    for room, entries in rooms.items():
        columns = [max(e[f"worst_{kind}_margin"][dtype] for e in entries)
                   for kind in ("forward", "gradient") for dtype in ("float64", "float32")]
        failed = [entry["op"] for entry in entries if recorder.verdict(entry) != "pass"]
        said = f"FAILED: {', '.join(failed)}" if failed else max(entries, key=_largest)["op"]
        lines.append(f"{room:16} {len(entries):4} {len(entries) - len(failed):4} "
                     f"{sum(e['examples'] for e in entries):8} "
                     + " ".join(f"{'–':>9}" if failed and not value else f"{value:9.2g}" for value in columns)
                     + f"  {said}")
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in STATE["goldens"].values():
        kinds.setdefault(entry["kind"], []).append(entry)
    for kind, entries in kinds.items():
        counts = {name: sum(e["verdict"] == name for e in entries)
                  for name in ("pass", "fail", "skipped", "elsewhere")}
        worst = max(entries, key=lambda e: e["worst_margin"])
        lines.append(f"goldens {kind}: " + ", ".join(f"{n} {name}" for name, n in counts.items() if n)
                     + f"; worst margin {worst['worst_margin']:.2g} ({worst['golden']})")
    if STATE["failures_in_original"]:
        lines.append(f"failed in the original: {len(STATE['failures_in_original'])} records, see the "
                     "report for what ours does there")
    return lines


def _largest(entry: dict[str, Any]) -> float:
    return max(*entry["worst_forward_margin"].values(), *entry["worst_gradient_margin"].values())
