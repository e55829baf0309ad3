"""Floors of a step: counts that can be worked out by hand, rates that are measured, shares that add up."""

from __future__ import annotations

import torch

from parity_tests.harness import runs
from pipelines.bench import floors as bench_floors

CPU = torch.device("cpu")


def test_operations_of_a_product_and_its_backward():
    """[5, 7]·[7, 3]: two operations for each of 5·7·3, forward and for each gradient."""
    a, b = torch.ones(5, 7, requires_grad=True), torch.ones(7, 3, requires_grad=True)
    assert bench_floors.count_operations(lambda: (a @ b).sum().backward()) == 3 * 2 * 5 * 7 * 3


def test_least_bytes_of_a_model():
    """Eight accesses a weight, the image once, each of two feature maps twice, all float32."""
    model = runs.model()
    image = torch.zeros(2, 1, 14, 14)
    maps = 2 * 4 * (6 * 6 + 2 * 2)  # 14 → 6 → 2 pixels a side, 4 channels, 2 images
    weights = sum(p.numel() for p in model.parameters())
    assert bench_floors.least_bytes(model, image) == 4 * (8 * weights + image.numel() + 2 * maps)


def test_breakdown_counts_calls_of_one_step():
    x = torch.ones(64, 64)
    found = bench_floors.breakdown(lambda: torch.mm(x, x), CPU)
    row = next(row for row in found["largest"] if row["name"] == "aten::mm")
    assert row["calls"] == 1 and 0 < row["share"] <= 1
    assert abs(sum(row["share"] for row in found["largest"]) - 1) < 1e-6


def test_floors_are_counts_over_rates():
    found = bench_floors.floors(10**6, 10**9, 12.0, CPU)
    assert abs(found["bytes_floor_s"] * found["bytes_per_s"] / 1e6 - 1) < 1e-12
    assert abs(found["operations_floor_s"] * found["operations_per_s"] / 1e9 - 1) < 1e-12
    assert found["launch_s"] is None and "launch_floor_s" not in found
    found["breakdown"] = {"largest": [{"name": "aten::mm", "seconds": 0.25, "calls": 2.0, "share": 0.5}]}
    lines = bench_floors.lines(found, 1.0)
    assert not any(line.split()[0] == "launch" for line in lines)
    assert "50.0%" in lines[-1] and "aten::mm" in lines[-1]
