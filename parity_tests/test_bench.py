"""`scae bench`: its figures from given samples, its refusals, and one worker that really times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines import bench, cli

SAMPLES = {
    "port step eager fast": [0.5, 0.4], "port step compiled fast": [0.3, 0.35],
    "port step eager plain": [1.5, 1.6], "reference step": [1.25, 1.2],
    "port forward eager fast": [0.2, 0.1], "port forward compiled fast": [0.3, 0.3],
    "reference forward": [0.6, 0.4], "port convolutions eager": [0.125, 0.2],
    "port convolutions compiled": [0.1, 0.12]}


def test_summary() -> None:
    """The contract's keys: minima, reference over the faster port, step over the faster floor."""
    found = bench.summary(SAMPLES, bench.Options())
    assert found["train_step"] == {"port_eager_s": 0.4, "port_compiled_s": 0.3, "reference_s": 1.2,
                                   "ratio": pytest.approx(4.0)}
    assert found["forward"] == {"port_eager_s": 0.1, "port_compiled_s": 0.3, "reference_s": 0.4,
                                "ratio": pytest.approx(4.0)}
    assert found["convolutions_floor_s"] == 0.1
    assert found["floor_multiple"] == pytest.approx(3.0)
    assert found["forward_floor_multiple"] == pytest.approx(1.0)
    assert found["fastest_step"] == "step compiled fast"
    assert found["medians_s"]["reference step"] == pytest.approx(1.225)


def test_summary_without_reference_and_compiler() -> None:
    """What could not be measured is null, not left out."""
    found = bench.summary({name: seconds for name, seconds in SAMPLES.items()
                           if "reference" not in name and "compiled" not in name}, bench.Options())
    assert found["train_step"] == {"port_eager_s": 0.4, "port_compiled_s": None, "reference_s": None,
                                   "ratio": None}
    assert found["floor_multiple"] == pytest.approx(3.2)
    text = bench.table(found | {"threads": 2, "pixel_likelihood": "plain", "notes": ["no reference"]})
    assert "no reference" in text and "x the convolutions" in text


@pytest.mark.parametrize(("arguments", "words"), [
    (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
    (["--repeats", "-1"], "--repeats must be at least 1, not -1"),
    (["--device", "tpu"], "--device must be cpu, cuda or pretended, not tpu"),
    (["--json", "/no/such/folder/b.json"], "there is no folder /no/such/folder"),
    (["--preset", "mnisd"], "mnist")])
def test_refusals(arguments: list[str], words: str, capsys: pytest.CaptureFixture) -> None:
    """One line, before anything is measured."""
    assert cli.main(["bench", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1


def test_worker() -> None:
    """A worker answers with seconds, says what it cannot do, and goes on."""
    worker = bench.Worker("port", bench.Options(preset="digits", batch_size=2), threads=1)
    try:
        assert worker.ask("run", "forward eager fast") > 0
        with pytest.raises(RuntimeError, match="nonsense"):
            worker.ask("run", "nonsense eager fast")
        assert worker.ask("memory", "step eager fast", 1)["memory_mb"] > 100
    finally:
        worker.close()


def test_written_whole(tmp_path: Path) -> None:
    """The JSON file appears under its own name only."""
    bench.write({"a": 1}, tmp_path / "b.json")
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]
    assert json.loads((tmp_path / "b.json").read_text()) == {"a": 1}
