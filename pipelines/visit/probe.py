"""What the machine is and how fast its memory and matrix units are, as JSON.

    python -m pipelines.visit.probe --device cuda --json FILE
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

from pipelines.support import environment
from pipelines.support.command_line import Program, to_write
from pipelines.support.output import write_json

REPEATS = 5


def timed(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Median seconds of one call, after one that warms up."""
    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
    work()
    wait()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def products(device: torch.device, size: int) -> dict[str, float]:
    """Rates of a square product on random values in TFLOP/s, by type of the factors."""
    found = {}
    for name, dtype, tf32 in (("float32", torch.float32, False), ("tf32", torch.float32, True),
                              ("bf16", torch.bfloat16, False), ("float64", torch.float64, False)):
        if tf32 and device.type != "cuda":
            continue
        torch.backends.cuda.matmul.allow_tf32 = tf32
        one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        seconds = timed(lambda one=one, other=other: one @ other, device)
        found[name] = round(2 * size**3 / seconds / 1e12, 3)
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def launches(device: torch.device) -> dict[str, float]:
    """Microseconds of one small operation, eager and, on a GPU, within a replayed graph."""
    x, n = torch.zeros(32, device=device), 200

    def many() -> None:
        for _ in range(n):
            x.add_(1.0)
    found = {"eager_us": round(timed(many, device) / n * 1e6, 2)}
    if device.type == "cuda":
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            many()
        found["replayed_us"] = round(timed(graph.replay, device) / n * 1e6, 2)
    return found


def measured(device: torch.device) -> dict:
    """Everything; small sizes on a CPU."""
    on_gpu = device.type == "cuda"
    facts: dict = {"environment": environment.describe(device), "cores": os.cpu_count(),
                   "triton": installed("triton"), "python": platform.python_version()}
    if on_gpu:
        card = torch.cuda.get_device_properties(device)
        facts["card"] = {"name": card.name, "memory_gib": round(card.total_memory / 2**30, 1),
                         "multiprocessors": card.multi_processor_count,
                         "capability": f"{card.major}.{card.minor}", "cuda": torch.version.cuda,
                         "cudnn": torch.backends.cudnn.version()}
    n = 2**30 if on_gpu else 2**26
    source = torch.randint(0, 256, (n,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    facts["copy_gb_per_s"] = round(2 * n / timed(lambda: target.copy_(source), device) / 1e9, 1)
    facts["products_tflops"] = products(device, 8192 if on_gpu else 512)
    facts["launches"] = launches(device)
    return facts


def installed(package: str) -> str | None:
    """Version of a package without importing it."""
    import importlib.metadata
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def command(json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the facts go.",
                                                callback=to_write)],
            device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
            facts: Annotated[bool, typer.Option(
                "--facts", help="What the machine is, and measure nothing.")] = False) -> None:
    """What the machine is and how fast its memory and matrix units are, as JSON."""
    place = environment.choose_device(device)
    if facts:
        return write_json(json_file, {"environment": environment.describe(place)})
    found = measured(place)
    write_json(json_file, found)
    print(f"probe: {found['environment']['device_name']}, copy {found['copy_gb_per_s']} GB/s, products "
          f"{found['products_tflops']} TFLOP/s, launches {found['launches']}", flush=True)


main = Program("python -m pipelines.visit.probe", command)


if __name__ == "__main__":
    raise SystemExit(main())
