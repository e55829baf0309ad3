"""A visit rehearsed on the CPU: every phase, SIGTERM, the way home, on from there, import, table row."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from parity_tests.goldens import REPOSITORY
from parity_tests.harness import runs
from parity_tests.tests.training.test_beside import SMALL
from pipelines import ablation
from pipelines.results import table as results_table
from pipelines.training import rows
from pipelines.visit import bring_home, parcel
from port.training import resume

WAIT = 600.0  # seconds for one thing to happen on a busy machine


def queue_of(folder: Path, preset: str, steps: int, *overrides: str) -> Path:
    """One run, reported at every step."""
    path = folder / "queue.yaml"
    path.write_text(json.dumps({"runs": [{
        "preset": preset, "seed": 0, "steps": steps,
        "overrides": ["train.log_every=1", "train.held_out_every=0", "train.device=cpu", *overrides]}]}))
    return path


class Away:
    """A visit in a process of its own."""

    def __init__(self, out: Path, queue: Path, work: Path, *words: str) -> None:
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.visit", "--out", str(out), "--queue", str(queue), "--work",
             str(work), "--device", "cpu", "--results", str(work / "none"), "--patience", "10", *words],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"})

    def stop_after(self, pattern: str) -> None:
        """SIGTERM as soon as the log has something."""
        until = time.monotonic() + WAIT
        while time.monotonic() < until and self.process.poll() is None:
            log = self.out / "log.txt"
            if log.exists() and re.search(pattern, log.read_text()):
                self.process.send_signal(signal.SIGTERM)
                return
            time.sleep(0.2)
        raise AssertionError(f"{pattern!r} was never said: {self.log}")

    def ends_with(self, code: int) -> dict:
        """The summary of a visit that ended so."""
        self.process.communicate(timeout=WAIT)
        assert self.process.returncode == code, self.log
        return json.loads((self.out / "summary.json").read_text())

    @property
    def log(self) -> str:
        """What was said, for a message."""
        return (self.out / "log.txt").read_text()[-3000:]


@pytest.fixture(autouse=True)
def deep(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of processes."""
    monkeypatch.chdir(REPOSITORY)
    if tier != "deep":
        pytest.skip("deep tier: minutes of training in processes")


def phases(summary: dict) -> dict[str, dict]:
    """By the first word of their names and the second of a timed way."""
    return {phase["name"]: phase for phase in summary["phases"]}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_digits_from_probe_to_table(tmp_path: Path) -> None:
    """Every phase; stopped, brought, gone on elsewhere, imported twice, evaluated, aggregated, a row."""
    queue = queue_of(tmp_path, "digits", 40)
    first = Away(tmp_path / "one", queue, tmp_path / "machine", "--seconds", "2000", "--ways", "eager")
    first.stop_after(r"train \d+/40")
    summary = first.ends_with(128 + signal.SIGTERM)
    found = phases(summary)
    assert found["probe"]["code"] == found["device"]["code"] == found["time eager"]["code"] == 0
    assert summary["probe"]["copy_gb_per_s"] > 0 and summary["device_tier"]["verdict"] == "pass"
    assert summary["times"]["eager"]["rung"] == "eager" == summary["way"]
    trained = found[f"train digits-0 {summary['way']}"]
    assert trained["ended"] == "stopped" and trained["code"] == 143
    files = list((tmp_path / "one").iterdir())
    assert len(files) <= parcel.FILES and len(summary["brought"]) == 2 and not summary["left_out"]

    home = tmp_path / "home"
    step = results_after(tmp_path / "one", home)
    assert 5 <= step < 40
    row = next(row for row in results_table.rows(home) if row["name"] == "digits" and row["aggregate"])
    assert row["aggregate"]["steps"] == step and not row["aggregate"]["finished"]

    # Another machine, on which nothing is but what was carried there.
    second = Away(tmp_path / "two", queue, tmp_path / "other", "--seconds", "2000", "--phases", "train",
                  "--resume", str(tmp_path / "one"), "--ways", "eager")
    summary = second.ends_with(0)
    assert f"train: continuing from step {step}" in second.log
    assert results_after(tmp_path / "two", home) == 40
    with open(home / "train" / "digits" / "0" / "history.csv", newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 41))
    table = results_table.markdown(home)
    assert "| digits (scikit-learn), `digits` | clustering |" in table
    assert "1 seed, 40 of 3,200 steps" in table
    assert len(list((home / "baselines").iterdir())) == 1  # measured once for both

    # What went on is what would have been without the stop, bit for bit.
    whole = Away(tmp_path / "three", queue, tmp_path / "third", "--seconds", "2000", "--phases", "train",
                 "--ways", "eager")
    whole.ends_with(0)
    one, other = (resume.read_tensors(parcel.newest_checkpoints(tmp_path / place)[0], "model", "cpu")
                  for place in ("other", "third"))
    assert not runs.differing(one, other)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_rows_and_soaks_beside_each_other(tmp_path: Path) -> None:
    """Stopped while rows are under way, gone on elsewhere, soaks after them, taken in; the page is made of it."""
    small = SMALL | {"presets": {"mnist_small": SMALL["presets"]["small"], "digits": SMALL["presets"]["small"]},
                     "ablation_small": SMALL["ablation"] | {
                         "folder": "ablation_small", "preset": "mnist_small", "steps": 300}}
    del small["ablation"]
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(small))
    queue = tmp_path / "queue.yaml"
    queue.write_text(json.dumps({"runs": [{"preset": "digits", "seed": 0, "steps": 4}]}))
    words = ["--seconds", "2000", "--params", str(params), "--together", "2", "--soak-steps", "4",
             "--phases", "ablation"]
    first = Away(tmp_path / "one", queue, tmp_path / "machine", *words)
    first.stop_after(r"whole, seed [01]: done")
    summary = first.ends_with(128 + signal.SIGTERM)
    (phase,) = summary["phases"]
    assert phase["code"] == 143 and summary["beside"]["under_way"] and summary["beside"]["rows"] < 4
    assert any(name.endswith("state") for name in summary["brought"])

    second = Away(tmp_path / "two", queue, tmp_path / "other", *words, "soak", "--resume", str(tmp_path / "one"))
    summary = second.ends_with(0)
    assert summary["beside"] == {"rows": 4, "soaks": 10, "waiting": 0, "under_way": 0}
    assert made_in(first.log, second.log) == {f"{row}, seed {seed}" for row in ("whole", "plain") for seed in (0, 1)}
    home = tmp_path / "home"
    assert bring_home.main([str(tmp_path / "two"), "--results", str(home), "--params", str(params)]) == 0
    wanted = rows.section(params, name="ablation_small")
    assert all(rows.is_done(wanted, name, seed, home, params) for name in ("whole", "plain") for seed in (0, 1))
    assert len(list(home.glob("soak/mnist_small/x*/*/metrics.json"))) == 10

    # What went on is what would have been without the stop.
    assert ablation.main(["--section", "ablation_small", "--all", "--params", str(params), "--results",
                          str(tmp_path / "alone"), "--runs", str(tmp_path / "runs")]) == 0
    for name in ("whole", "plain"):
        for seed in (0, 1):
            one, other = (json.loads((place / "ablation_small" / name / str(seed) / "metrics.json").read_text())
                          for place in (home, tmp_path / "alone"))
            assert one["protocols"] == other["protocols"]


def made_in(*logs: str) -> set[str]:
    """The rows whose training ended, as the logs say."""
    return {found for log in logs for found in re.findall(r"^(\w+, seed \d): done", log, re.MULTILINE)}


def results_after(brought: Path, home: Path) -> int:
    """Import with evaluation, and the step that the run is at then."""
    assert bring_home.main([str(brought), "--results", str(home)]) == 0
    evaluated = json.loads((home / "evaluate" / "digits" / "0" / "metrics.json").read_text())
    trained = json.loads((home / "train" / "digits" / "0" / "metrics.json").read_text())
    assert evaluated["steps"] == trained["steps"]
    return trained["steps"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.shared
def test_mnist_at_its_size(tmp_path: Path) -> None:
    """The run that comes first: 42 MB of state in files below 16 MiB, and on from them."""
    if not (Path(os.environ.get("SCAE_DATA", "data")) / "MNIST").is_dir():
        pytest.skip("MNIST is not here: it belongs into the data root (SCAE_DATA)")
    queue = queue_of(tmp_path, "mnist", 6)
    first = Away(tmp_path / "one", queue, tmp_path / "machine", "--seconds", "3000", "--phases", "train",
                 "--ways", "eager")
    first.stop_after("train 2/6")
    summary = first.ends_with(128 + signal.SIGTERM)
    assert not summary["left_out"]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "one").iterdir()}
    assert len(sizes) <= parcel.FILES and max(sizes.values()) < parcel.EACH
    assert 40 * 2**20 < sum(sizes.values()) < 45 * 2**20
    second = Away(tmp_path / "two", queue, tmp_path / "other", "--seconds", "3000", "--phases", "train",
                  "--ways", "eager", "--resume", str(tmp_path / "one"))
    second.ends_with(0)
    assert "train: continuing from step " in second.log
    made = bring_home.run(tmp_path / "two", tmp_path / "home", measure=False)
    assert json.loads((made[0] / "metrics.json").read_text())["steps"] == 6
