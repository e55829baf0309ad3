"""Several seeds beside each other in a visit: which runs share a process, and how their checkpoints come home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from parity_tests.goldens import REPOSITORY
from pipelines.support.output import write_json
from pipelines.visit import __main__ as visit
from pipelines.visit import parcel, queue


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


ENTRIES = [queue.Entry("mnist", 0, overrides=["train.tf32=true"]), queue.Entry("mnist", 1), queue.Entry("usps", 0),
           queue.Entry("mnist", 2), queue.Entry("mnist", 3), queue.Entry("mnist", 4)]


@pytest.mark.parametrize("most, expected", [
    (1, ["mnist-0", "mnist-1", "usps-0", "mnist-2", "mnist-3", "mnist-4"]),
    (3, ["mnist-0", "mnist-1 mnist-2 mnist-3", "usps-0", "mnist-4"]),
    (9, ["mnist-0", "mnist-1 mnist-2 mnist-3 mnist-4", "usps-0"])])
def test_runs_that_differ_in_their_seed_alone_share_a_process(most: int, expected: list[str]) -> None:
    """Seed 0 has another setting, so it trains by itself."""
    assert [" ".join(entry.name for entry in group) for group in queue.together(ENTRIES, most)] == expected


def run_of(work: Path, seed: int, step: int = 7) -> Path:
    folder = work / "checkpoints" / f"mnist-{seed}-a" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    write_json(folder / "state.json", {"step": step})
    for stem in ("model", "optimizer", "streams"):
        (folder / f"{stem}.safetensors").write_bytes(f"{stem} of {seed}".encode() * 100)
    return folder


def test_a_parcel_for_each_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Each is whole by itself, and together they give the work folder back."""
    work, back = tmp_path / "work", tmp_path / "back"
    folders = [run_of(work, seed) for seed in (1, 2, 12)]
    for seed in (1, 2):
        assert parcel.main([f"mnist-{seed}", "--work", str(work), "--out", str(tmp_path / str(seed))]) == 0
        brought = json.loads((tmp_path / str(seed) / "summary.json").read_text())["brought"]
        assert list(brought) == [f"mnist-{seed}-a step-00000007 {what}" for what in ("weights", "slots")]
        assert parcel.main(["--unpack", str(tmp_path / str(seed)), "--work", str(back)]) == 0
    for folder in folders[:2]:
        again = back / folder.relative_to(work)
        assert {path.name: path.read_bytes() for path in again.iterdir()} == {
            path.name: path.read_bytes() for path in folder.iterdir()}
    assert not (back / folders[2].relative_to(work)).exists()
    capsys.readouterr()
    assert parcel.main(["mnist-3", "--work", str(work), "--out", str(tmp_path / "no")]) == 2
    assert "there are mnist-1, mnist-12, mnist-2" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert parcel.main(["mnist-1", "--work", str(work)]) == 2 and "--out" in capsys.readouterr().err


def test_the_next_visit_takes_every_parcel_that_was_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the folder `brought`, one parcel or several below it; the seeds then go to one process."""
    for seed in (1, 2):
        run_of(tmp_path / "work", seed)
        parcel.main([f"mnist-{seed}", "--work", str(tmp_path / "work"), "--out", str(tmp_path / "brought" / f"{seed}")])
    stays: list[visit.Stay] = []
    monkeypatch.setattr(visit.Stay, "run", lambda self: stays.append(self) or 0)
    monkeypatch.chdir(tmp_path)
    arguments = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "next"), "--device", "cpu",
                 "--params", str(REPOSITORY / "params.yaml"), "--run", "mnist-1", "mnist-2", "--together", "4"]
    assert visit.main(arguments) == 0
    stay = stays[0]
    assert [folder.name for folder in stay.given.resume] == ["1", "2"] and stay.given.together == 4
    for folder in stay.given.resume:
        stay.go_on_from(folder)
    assert [len(stage["brought"]) for stage in stay.visit.summary["resumed"]] == [2, 2]
    stay.place = "cpu"
    words = stay.stage(*(entry for entry in queue.read(params=REPOSITORY / "params.yaml")
                         if entry.name in stay.given.runs))
    assert words[words.index("--seeds"):][:3] == ["--seeds", "1", "2"] and "--seed" not in words
