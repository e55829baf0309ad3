"""The page of long training says what the committed runs say, and names the missing ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.results import soak_page as page
from pipelines.results import table
from port.data.dataset import DataError

REPOSITORY = Path(__file__).parents[3]
WANTED = (page.Wanted("small", (3, 10), (0, 1), 6), page.Wanted("parts", (3,), (0,), 9))
FINE = {"preset": "small", "factor": 3.0, "lr": 3e-4, "seed": 0, "steps": 6, "finite": True, "step": 6, "cause": None,
        "says": None, "seconds": 1.0, "largest_loss": 812.5,
        "looks": [{"step": 3, "dead_conv0": 0.5}, {"step": 6, "dead_conv0": 0.984, "dead_capsules0": 1.0,
                                                   "dead_capsules1": 0.25, "vote_spread": 0.0}]}
BROKEN = FINE | {"factor": 10.0, "lr": 1e-3, "seed": 1, "finite": False, "step": 4, "largest_loss": None, "looks": [],
                 "cause": "first non-finite tap: obj_dec/scale (step 4)"}


def write(results: Path, one: dict) -> Path:
    path = results / "soak" / one["preset"] / f"x{one['factor']:g}" / str(one["seed"]) / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(one))
    return path


def test_rows_sentences_and_what_is_missing(tmp_path: Path) -> None:
    for one in (FINE, BROKEN):
        write(tmp_path, one)
    lines = page.markdown(page.gather(tmp_path, WANTED)).splitlines()
    assert lines[2] == "| `small`, 3 × = 0.0003 | 0 | 6 | yes | 812.5 | 98 % | 100 % and 25 % | 0 |"
    assert lines[3] == ("| `small`, 10 × = 0.001 | 1 | 6 | no, from step 4: first non-finite tap: obj_dec/scale "
                        "(step 4) | – | – | – | – |")
    assert "every number stayed finite" in lines[5] and "1 of 1 left the finite numbers" in lines[6]
    assert lines[8:] == ["Missing:", "", "- `small` at 3 times its rate, 6 steps: not yet run (seed 1)",
                         "- `small` at 10 times its rate, 6 steps: not yet run (seed 0)",
                         "- `parts` at 3 times its rate: not yet run"]


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """No run, and a damaged one: one sentence, and the page stays as it is."""
    kept = tmp_path / "page.md"
    kept.write_text(f"{table.BEGIN}\nbefore\n{table.END}\n")
    assert page.main(["--results", str(tmp_path), "--write", "--page", str(kept)]) == 2
    assert "no soak in" in capsys.readouterr().err
    write(tmp_path, FINE | {"preset": "mnist_small", "seed": "one"})
    with pytest.raises(DataError, match="seed is \"one\""):
        page.gather(tmp_path)
    assert page.main(["--results", str(tmp_path), "--write", "--page", str(kept)]) == 2
    assert "seed" in capsys.readouterr().err and "before" in kept.read_text()


def test_the_page_says_what_the_committed_runs_say() -> None:
    text = (REPOSITORY / "docs/soak.md").read_text(encoding="utf-8")
    shown = text.split(table.BEGIN)[1].split(table.END)[0].strip()
    assert shown == page.markdown(page.gather(REPOSITORY / "results"))
