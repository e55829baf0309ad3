"""The figure of accuracy over time: what is read, on which axis, from runs and from committed curves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.results import accuracy_over_time as over_time
from pipelines.support.output import write_json

POSTERIOR, PRIOR = (column for column, _ in over_time.PANELS)


def left(results: Path, preset: str, seed: int, rows: list[dict], threads: int = 1, **training) -> None:
    folder = results / "train" / preset / str(seed)
    folder.mkdir(parents=True)
    with open(folder / "history.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)), restval="")
        writer.writeheader()
        writer.writerows(rows)
    write_json(folder / "config.json", {"train": training})
    write_json(folder / "environment.json", {"threads": threads})


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two seeds, the second on a machine that did other work; rows without a look between."""
    for seed, wait in ((0, 0), (1, 300)):
        left(tmp_path, "small", seed, [
            {"step": 10, "seconds": 60}, {"step": 20, "seconds": 120, POSTERIOR: 0.5, PRIOR: 0.1},
            {"step": 30, "seconds": 180 + wait},
            {"step": 40, "seconds": 240 + wait, POSTERIOR: (7 + seed) / 10, PRIOR: 0.2}],
            threads=2, validation_images=1024)
    left(tmp_path, "unseen", 0, [{"step": 10, "seconds": 60}])
    return tmp_path


def test_by_time(results: Path) -> None:
    """Seconds of the clock times threads; the mean lies at the mean of the times."""
    found = over_time.read("small", "minutes", results)
    steps, minutes, shares = found.curves[1].columns[POSTERIOR]
    assert (steps.tolist(), minutes.tolist(), shares.tolist()) == ([20, 40], [4, 18], [0.5, 0.8])
    across, mean = over_time.mean(found.curves, POSTERIOR, "minutes")
    assert across.tolist() == [4, 13] and mean == pytest.approx([0.5, 0.75])
    assert found.in_words() == "small: seeds 0, 1, 40 steps, read on 1,024 training images that were kept out"


def test_at_its_pace_a_busy_machine_counts_for_nothing(results: Path) -> None:
    found = over_time.read("small", "pace", results)
    assert all(np.allclose(curve.columns[PRIOR][1], [4, 8]) for curve in found.curves)


def test_by_step_the_committed_curves_serve(results: Path) -> None:
    """For seeds without a history; of those with one the history counts."""
    path = results / "aggregate" / "small" / "curves.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"seed,step,{POSTERIOR},{PRIOR}\n0,20,0.9,0.9\n5,20,0.6,\n5,40,0.9,\n")
    found = over_time.read("small", "steps", results)
    assert [curve.seed for curve in found.curves] == [0, 1, 5] and set(found.curves[2].columns) == {POSTERIOR}
    across, mean = over_time.mean(found.curves, POSTERIOR, "steps")
    assert across.tolist() == [20, 40] and mean == pytest.approx([1.6 / 3, 0.8])


def test_by_time_without_a_history_the_time_of_the_run_serves(results: Path) -> None:
    """Its own mean pace, or that of the fastest seed; a seed that says none is left out."""
    path = results / "aggregate" / "cloned" / "curves.csv"
    path.parent.mkdir(parents=True)
    path.write_text(f"seed,step,{POSTERIOR},{PRIOR}\n" + "".join(f"{seed},20,0.9,0.9\n" for seed in range(3)))
    for seed, told in enumerate(({"steps": 40, "seconds": 240.0}, {"steps": 40, "seconds": 480.0}, {"steps": 40})):
        folder = results / "train" / "cloned" / str(seed)
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(told))
        (folder / "environment.json").write_text(json.dumps({"threads": 2}))
    by_clock, by_pace, by_step = (over_time.read("cloned", x, results).curves for x in ("minutes", "pace", "steps"))
    assert [(curve.seed, *curve.columns[POSTERIOR][1]) for curve in by_clock] == [(0, 4.0), (1, 8.0)]
    assert [(curve.seed, *curve.columns[POSTERIOR][1]) for curve in by_pace] == [(0, 4.0), (1, 4.0), (2, 4.0)]
    assert [curve.seed for curve in by_step] == [0, 1, 2]


@pytest.mark.parametrize("x", over_time.AXES)
def test_a_picture(results: Path, tmp_path: Path, capsys, x: str) -> None:
    out = tmp_path / "curves.png"
    assert over_time.main(["small", "--x", x, "--results", str(results), "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG") and len(out.read_bytes()) < 100_000
    assert "seeds 0, 1, 40 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["unseen", "nowhere"])
def test_no_probes_no_picture(results: Path, tmp_path: Path, capsys, name: str) -> None:
    out = tmp_path / "curves.png"
    assert over_time.main([name, "--results", str(results), "--out", str(out)]) == 2
    assert "no history.csv with probes" in capsys.readouterr().err and not out.exists()
