"""What no training step can go below on a machine, and where its time goes: for `scae bench --floors`.

Three floors, each a count of the step over a rate measured on the same device in the same process:
bytes that have to move over memory bandwidth, products over the speed of a large matrix product, and
on a GPU launches over the rate at which a captured graph launches kernels that do nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

COPY_BYTES = {"cuda": 2**30, "cpu": 2**28}  # far above any cache
MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
ROUNDS = 5
LAUNCHES = 1000
PROFILED_STEPS = 3
SHOWN = 15
# Accesses of each weight: it, both slots read and written, its gradient written and read.
PER_WEIGHT = 8


def best(run: Callable[[], object], device: torch.device, rounds: int = ROUNDS) -> float:
    """Seconds of the fastest of some runs, after one that is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        wait(device)
        start = time.perf_counter()
        run()
        wait(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def bandwidth(device: torch.device, n_bytes: int | None = None) -> float:
    """Bytes per second of a copy, read and written bytes counted."""
    n_bytes = n_bytes or COPY_BYTES[device.type]
    source = torch.zeros(n_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * len(source) / best(lambda: target.copy_(source), device)


def product_rate(device: torch.device, side: int | None = None) -> float:
    """Operations per second (an addition or a product each) of a square float32 product."""
    side = side or MATRIX_SIDE[device.type]
    a = torch.ones(side, side, device=device)
    out = torch.empty_like(a)
    return 2 * side**3 / best(lambda: torch.mm(a, a, out=out), device)


def launch_seconds(device: torch.device) -> float | None:
    """Seconds a kernel of a captured graph takes at least; None on a CPU."""
    if device.type != "cuda":
        return None
    one = torch.zeros(1, device=device)
    one.add_(1.0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(LAUNCHES):
            one.add_(1.0)
    return best(graph.replay, device) / LAUNCHES


def least_bytes(model: torch.nn.Module, image: torch.Tensor) -> int:
    """Bytes a step has to move: weights, gradients and slots, the images, and the encoder's feature maps.

    A feature map is written by the forward pass and read by the backward pass; everything else could
    in principle stay in registers.
    """
    sizes: list[int] = []
    encoder = getattr(model, "part_encoder", None)
    maps = encoder.cnn.conv if encoder is not None else [  # of the routing ancestors
        part for part in (getattr(model, name, None) for name in ("conv1", "conv")) if part is not None]
    hooks = [conv.register_forward_hook(lambda module, args, out: sizes.append(out.nbytes)) for conv in maps]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    weights = sum(p.nbytes for p in model.parameters())
    return PER_WEIGHT * weights + image.nbytes + 2 * sum(sizes)


def count_operations(step: Callable[[], object]) -> int:
    """Additions and products of the matrix products and convolutions of a step.

    Run it on the plain path: a kernel of our own is not counted, nor is arithmetic entry by entry.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def breakdown(step: Callable[[], object], device: torch.device) -> dict:
    """Where the time of a step goes, by kernel (GPU) or operator (CPU), and how many there are a step."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device.type == "cuda"
    step()
    wait(device)
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if on_gpu else [])
    with profile(activities=activities) as profiler:
        for _ in range(PROFILED_STEPS):
            step()
        wait(device)
    rows = []
    for event in profiler.key_averages():
        micro = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if micro > 0 and (not on_gpu or event.device_type.name == "CUDA"):
            rows.append({"name": event.key[:120], "seconds": micro / 1e6 / PROFILED_STEPS,
                         "calls": event.count / PROFILED_STEPS})
    rows.sort(key=lambda row: -row["seconds"])
    total = sum(row["seconds"] for row in rows)
    for row in rows:
        row["share"] = row["seconds"] / total
    return {"seconds": total, "calls": sum(row["calls"] for row in rows), "largest": rows[:SHOWN]}


def floors(n_bytes: int, operations: int, calls: float, device: torch.device) -> dict:
    """Counts, measured rates and the seconds each floor comes to."""
    rates = {"bytes_per_s": bandwidth(device), "operations_per_s": product_rate(device),
             "launch_s": launch_seconds(device)}
    found = {"bytes": n_bytes, "operations": operations, "calls": calls, **rates,
             "bytes_floor_s": n_bytes / rates["bytes_per_s"],
             "operations_floor_s": operations / rates["operations_per_s"]}
    if rates["launch_s"] is not None:
        found["launch_floor_s"] = calls * rates["launch_s"]
    return found


def lines(found: dict, step_s: float) -> list[str]:
    """Floors and breakdown for a terminal, beside the fastest step."""
    said = [f"  floors of a step ({found['bytes'] / 1e6:,.0f} MB, {found['operations'] / 1e9:,.1f} G "
            f"operations, {found['calls']:,.0f} calls), at measured rates; share of the fastest step:"]
    rate = {"bytes": f"{found['bytes_per_s'] / 1e9:,.0f} GB/s",
            "operations": f"{found['operations_per_s'] / 1e12:,.2f} T/s",
            "launch": f"{(found['launch_s'] or 0.0) * 1e6:.2f} us each"}
    for name in ("bytes", "operations", "launch"):
        seconds = found.get(f"{name}_floor_s")
        if seconds is not None:
            said.append(f"    {name:12}{seconds:10.5f} s{seconds / step_s:8.1%}   at {rate[name]}")
    if "budget" in found:
        from pipelines.bench import budget
        said += budget.lines(found["budget"])
    said.append("  where the time of an eager step goes:")
    said += [f"    {row['share']:6.1%}{row['seconds']:10.5f} s{row['calls']:8.1f} x  {row['name'][:70]}"
             for row in found["breakdown"]["largest"]]
    return said


def wait(device: torch.device) -> None:
    """Until everything there is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
