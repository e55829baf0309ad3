"""What a visit brings home: it fits, comes out whole, and a damaged file costs what it held."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from parity_tests.tests.pipelines.visit_parcels import checkpoint, packed
from pipelines.support.output import write_json
from pipelines.support.values import BadInput
from pipelines.visit import parcel

MIB = 2**20
# Weights and slots of mnist, cifar10 and CapsNet in bytes → what cannot come home.
SIZES = {"mnist-0-a": (13.6 * MIB, 27.1 * MIB, []), "cifar10-0-a": (17.4 * MIB, 34.8 * MIB, []),
         "capsnet_mnist-0-a": (31.3 * MIB, 62.7 * MIB, ["capsnet_mnist-0-a step-00000007 slots"])}


@pytest.mark.parametrize("name", SIZES)
def test_a_parcel_fits_and_comes_out_whole(name: str, tmp_path: Path) -> None:
    weights, slots, left_out = SIZES[name]
    folder = checkpoint(tmp_path / "work", name, 7, {"model": int(weights), "optimizer": int(slots)})
    write_json(tmp_path / "work" / "measured" / "probe.json", {"copy": 1})
    found = packed(tmp_path)
    assert found["left_out"] == left_out
    expected = {path.name for path in folder.iterdir()
                if not left_out or not path.name.startswith("optimizer")}
    parcel.unpack(tmp_path / "out", tmp_path / "next")
    again = tmp_path / "next" / folder.relative_to(tmp_path / "work")
    assert {path.name: path.stat().st_size for path in again.iterdir()} == {
        name: (folder / name).stat().st_size for name in expected}
    assert (tmp_path / "next" / "measured" / "probe.json").exists()


def test_weights_of_every_run_come_before_slots_of_any(tmp_path: Path) -> None:
    for seed in range(5):
        folder = checkpoint(tmp_path / "work", f"mnist28_paper-{seed}-a", 9, {
            "model": int(9.6 * MIB), "optimizer": int(19.2 * MIB)})
        os.utime(folder, (seed, seed))
    found = packed(tmp_path)
    assert sum(name.endswith("weights") for name in found["brought"]) == 5
    assert all(name.endswith("slots") for name in found["left_out"])


def test_a_damaged_file_costs_what_it_held(tmp_path: Path) -> None:
    checkpoint(tmp_path / "work", "mnist-0-a", 7, {"model": int(13 * MIB), "optimizer": int(20 * MIB)})
    checkpoint(tmp_path / "work", "digits-0-a", 7, {"model": 1000})
    packed(tmp_path)
    holder = next(path for path in (tmp_path / "out").glob("tensors-*")
                  if b"mnist-0-a/step-00000007/optimizer" in path.read_bytes())
    holder.unlink()
    found = parcel.unpack(tmp_path / "out", tmp_path / "next")
    assert found["lost"][0] == holder.name and "mnist-0-a step-00000007 slots" in found["lost"]
    assert [path.parent.name for path in parcel.newest_checkpoints(tmp_path / "next")] == ["digits-0-a"]
    for path in (tmp_path / "out").glob("*.tar*"):
        path.write_bytes(b"")
    with pytest.raises(BadInput, match="nothing of it can be used"):
        parcel.unpack(tmp_path / "out", tmp_path / "last")
    with pytest.raises(BadInput, match="no summary.json"):
        parcel.unpack(tmp_path, tmp_path / "last")


def test_packing_while_training_replaces_its_checkpoint(tmp_path: Path) -> None:
    """Whatever happens meanwhile, what was packed before stays whole."""
    folder = checkpoint(tmp_path / "work", "digits-0-a", 1, {"model": 200_000})
    packed(tmp_path)
    stop, step = threading.Event(), 1

    def train() -> None:
        nonlocal folder, step
        while not stop.wait(0.01):
            step += 1
            new = checkpoint(tmp_path / "work", "digits-0-a", step, {"model": 200_000})
            shutil.rmtree(folder)
            folder = new
    thread = threading.Thread(target=train)
    thread.start()
    try:
        good = 0
        began = time.monotonic()
        while (seconds := time.monotonic() - began) < 2.0 or (not good and seconds < 60.0):  # a busy machine
            try:
                found = parcel.pack(tmp_path / "work", tmp_path / "out")
            except FileNotFoundError:
                continue
            write_json(tmp_path / "out" / "summary.json", found)
            good += 1
    finally:
        stop.set()
        thread.join()
    assert good
    assert not parcel.unpack(tmp_path / "out", tmp_path / "next")["lost"]
