"""What the session saw, for parity.json: margins, examples, ranges, verdicts."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

STATE: dict[str, dict[str, Any]] = {"ops": {}, "goldens": {}, "failures_in_original": {}}
DTYPES = ("float32", "float64")


def reset() -> None:
    """Forget everything (for tests of the harness itself)."""
    for part in STATE.values():
        part.clear()


def op_entry(op: str) -> dict[str, Any]:
    """The running entry of one op."""
    return STATE["ops"].setdefault(op, {
        "op": op, "room": op.rpartition(".")[0], "examples": 0, "discarded": 0, "tests": 0, "passed": 0,
        "worst_forward_margin": dict.fromkeys(DTYPES, 0.0),
        "worst_gradient_margin": dict.fromkeys(DTYPES, 0.0),
        "range": {"sizes": [], "abs": []}})


def example(op: str, inputs: dict[str, np.ndarray]) -> None:
    """Count one example and widen the range drawn."""
    entry = op_entry(op)
    entry["examples"] += 1
    for value in inputs.values():
        value = np.asarray(value)
        _widen(entry["range"], "sizes", value.shape)
        if np.issubdtype(value.dtype, np.floating):
            finite = np.abs(value[np.isfinite(value)])
            _widen(entry["range"], "abs", [float(v) for v in (finite.min(), finite.max())]
                   if finite.size else [])


def _widen(entry: dict[str, list], key: str, values: Any) -> None:
    values = [*entry[key], *values]
    if values:
        entry[key] = [min(values), max(values)]


def discard(op: str) -> None:
    """Count one example that a filter or an assumption refused."""
    op_entry(op)["discarded"] += 1


def margin(op: str, kind: str, dtype: str, value: float) -> None:
    """Keep the worst margin; kind is `forward` or `gradient`."""
    worst = op_entry(op)[f"worst_{kind}_margin"]
    worst[dtype] = max(worst[dtype], float(value))


def note(op: str, text: str) -> None:
    """Count something worth knowing about an op's examples."""
    notes = op_entry(op).setdefault("notes", {})
    notes[text] = notes.get(text, 0) + 1


@contextlib.contextmanager
def test_of(op: str) -> Iterator[None]:
    """Count a test of this op, and whether it ends well."""
    entry = op_entry(op)
    entry["tests"] += 1
    yield
    entry["passed"] += 1


def verdict(entry: dict[str, Any]) -> str:
    """`pass` when every test of the op that began ended well."""
    return "pass" if entry["tests"] == entry["passed"] > 0 else "fail"


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Record nothing that lasts (for code that is wrong on purpose)."""
    kept = copy.deepcopy(STATE)
    try:
        yield
    finally:
        for part, entries in kept.items():
            STATE[part].clear()
            STATE[part].update(entries)


def golden(name: str, kind: str, value: float | None, verdict: str, reason: str = "",
           bound: float | None = None) -> None:
    """One golden comparison; value is its worst margin, bound that of the array it stands for."""
    key = f"{name} {kind}"
    entry = STATE["goldens"].setdefault(key, {
        "golden": name, "kind": kind, "worst_margin": 0.0, "verdict": verdict})
    if bound is not None and value is not None and value >= entry["worst_margin"]:
        entry["bound"] = float(bound)
    if value is not None:
        entry["worst_margin"] = max(entry["worst_margin"], float(value))
    entry["verdict"] = verdict
    if reason:
        entry["reason"] = reason


def failure_in_original(record: str, original: str, ours: str) -> None:
    """What ours does where the original failed."""
    STATE["failures_in_original"][record] = {"record": record, "original": original, "ours": ours}


def merge(other: dict[str, dict[str, Any]]) -> None:
    """Take in what another worker saw."""
    for op, theirs in other["ops"].items():
        mine = op_entry(op)
        for key in ("examples", "discarded", "tests", "passed"):
            mine[key] += theirs[key]
        for key in ("worst_forward_margin", "worst_gradient_margin"):
            for dtype in DTYPES:
                mine[key][dtype] = max(mine[key][dtype], theirs[key][dtype])
        for key in ("sizes", "abs"):
            _widen(mine["range"], key, theirs["range"][key])
        for text, count in theirs.get("notes", {}).items():
            notes = mine.setdefault("notes", {})
            notes[text] = notes.get(text, 0) + count
    STATE["goldens"].update(other["goldens"])
    STATE["failures_in_original"].update(other["failures_in_original"])


def discarded_share(entry: dict[str, Any]) -> float:
    """Discarded / (discarded + run)."""
    total = entry["discarded"] + entry["examples"]
    return entry["discarded"] / total if total else 0.0
