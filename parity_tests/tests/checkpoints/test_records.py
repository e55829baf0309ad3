"""`scae verify --golden DIR` on folders of records: one row a record and side, the altered one is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from parity_tests.goldens import routing as goldens_routing
from pipelines import cli

CHOSEN = {"capsnet": ("squash_s12_f64", "net_tiny_s51_f64"),
          "em": ("paper_one_child_parent_s309_f64", "schedules")}


def folder_of(family: str, place: Path) -> Path:
    """A folder with two of the committed records."""
    chosen = [record for record in goldens_routing.committed(family) if record.name in CHOSEN[family]]
    assert len(chosen) == 2, [record.name for record in goldens_routing.committed(family)]
    place.mkdir()
    for record in chosen:
        shutil.copy(record.folder / record.entry["file"], place)
    (place / "manifest.json").write_text(json.dumps({"records": [dict(r.entry) for r in chosen]}))
    return place


@pytest.mark.golden
@pytest.mark.parametrize("family", CHOSEN)
def test_records_agree(family: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Every record on both sides, in the terminal, as JSON and as a page."""
    folder = folder_of(family, tmp_path / family)
    table, page = tmp_path / "table.json", tmp_path / "table.html"
    assert cli.main(["verify", "--golden", str(folder), "--json", str(table), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "verified, 2 records agree on both sides" in printed
    rows = [row for section in json.loads(table.read_text())["sections"] for row in section["rows"]]
    assert {(row["name"], row["side"]) for row in rows} == {
        (name, side) for name in CHOSEN[family] for side in ("reference", "port")}
    assert all(row["verdict"] in ("pass", "exact") and row["max_rel"] <= row["bound"] <= 1e-6
               for row in rows)
    assert all(name in page.read_text() for name in CHOSEN[family])


@pytest.mark.golden
def test_an_altered_record_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One gradient moved by a millionth of its scale: exit 1 with the record and the array."""
    folder = folder_of("capsnet", tmp_path / "capsnet")
    path = folder / "net_tiny_s51_f64.npz"
    arrays = dict(np.load(path))
    arrays["grad/capsule2/weights"].flat[0] += 1e-6 * np.abs(arrays["grad/capsule2/weights"]).max()
    np.savez(path, **arrays)
    assert cli.main(["verify", "--golden", str(folder)]) == 1
    said = capsys.readouterr().err
    assert "net_tiny_s51_f64" in said and "grad/var/capsule2/weights" in said and said.count("\n") == 1


@pytest.mark.golden
@pytest.mark.parametrize(("family", "name", "array"), [
    ("capsnet", "squash_s12_f64", "out/length"),
    ("em", "paper_one_child_parent_s309_f64", "out/t1/spread")])
def test_an_array_that_nothing_compares_is_an_error(family: str, name: str, array: str, tmp_path: Path,
                                                    capsys: pytest.CaptureFixture) -> None:
    """No array of a known record is passed over: the row fails and names it."""
    folder = folder_of(family, tmp_path / family)
    arrays = dict(np.load(folder / f"{name}.npz"))
    np.savez(folder / f"{name}.npz", **arrays, **{array: np.ones(2)})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["records"] = [entry for entry in manifest["records"] if entry["name"] == name]
    manifest["records"][0]["keys"][array] = {"shape": [2], "dtype": "float64"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert cli.main(["verify", "--golden", str(folder)]) == 1
    said = capsys.readouterr().err
    assert name in said and f"not compared: ['{array.rpartition('/')[2]}']" in said


@pytest.mark.parametrize(("change", "says"), [
    (lambda folder: (folder / "manifest.json").unlink(), "no manifest.json"),
    (lambda folder: (folder / "manifest.json").write_text("{}"), "no list of records"),
    (lambda folder: (folder / "squash_s12_f64.npz").unlink(), "its file is not there"),
    (lambda folder: (folder / "squash_s12_f64.npz").write_bytes(b"PK\3\4 cut off"),
     "a damaged one"),
    (lambda folder: np.save(folder / "a.npy", np.ones(3)) or shutil.move(
        folder / "a.npy", folder / "squash_s12_f64.npz"), "no .npz of arrays"),
    (lambda folder: (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace(
        '"name": "squash', '"name": "unheard_of')), "unheard_of_s12_f64 is a record of a function that")])
def test_bad_folders(change, says: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = folder_of("capsnet", tmp_path / "capsnet")
    change(folder)
    assert cli.main(["verify", "--golden", str(folder)]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_verify_needs_something(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["verify"]) == 2
    assert "CKPT and OUT, or --golden DIR" in capsys.readouterr().err
