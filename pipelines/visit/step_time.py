"""Time of a training step of a preset on one rung, in a process of its own, as JSON.

    python -m pipelines.visit.step_time --preset mnist --set train.rung=captured --json FILE

The loop itself is timed, as training runs it (reading the scalars every `log_every` steps included), under
the preset's precision. Ends with code 3 where the rung does not work (`port.training.rungs`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer

import port
from pipelines import train as stage
from pipelines.bench import floors
from pipelines.prepare import dataset_for
from pipelines.support import settings
from pipelines.support.command_line import Device, Params, Preset, Program, Results, Seed, Set, to_write
from pipelines.support.output import write_json
from port.training import loop as train
from port.training import precision, rungs

BLOCK = 50   # steps between two looks at the clock, fewer where they take longer than a second
BLOCKS = 5


def measured(preset: settings.Preset, seed: int, results: Path, device: str | None, seconds: float,
             keep: Callable[[dict], object] = lambda found: None) -> dict:
    """First step, then blocks of steps until so many seconds are over, one at least, then the kernels of a step.

    Args:
        preset: of the run whose step is timed.
        seed: of that run.
        results: where the stages put what they made.
        device: `auto`, `cpu` or `cuda`; None is the preset's.
        seconds: of blocks, at most five of them.
        keep: called with what was found before the profiler runs, which may fail or hang on a new machine.

    Raises:
        RungFailed: the step cannot be made on the rung that the settings name.
    """
    wanted, place = stage.check(stage.without_epochs(preset), seed, device)
    dataset = dataset_for(preset, results).to(place)
    model = port.build(preset.config(), seed).to(place)

    def wait() -> None:
        if place.type == "cuda":
            torch.cuda.synchronize()
    with precision.mode(wanted, place) as in_force, precision.mixed(model, wanted):
        run = train.Run(model, dataset, wanted)
        began = time.perf_counter()
        run.advance([])
        wait()
        first = time.perf_counter() - began
        began = time.perf_counter()
        run.advance([])
        wait()
        block = max(1, min(BLOCK, int(1.0 / (time.perf_counter() - began))))
        began, blocks = time.perf_counter(), []
        while len(blocks) < BLOCKS and (not blocks or time.perf_counter() - began < seconds):
            at = time.perf_counter()
            for _ in range(block):
                run.advance([])
            wait()
            blocks.append((time.perf_counter() - at) / block)
        state = run.state
        loss = state.sums[0].item() / state.count if state.count else state.history[-1]["loss"]
        found = {
            "rung": run.step.in_force, "first_s": first, "step_s": min(blocks),
            "median_s": statistics.median(blocks), "blocks_s": blocks, "loss": loss,
            "finite": bool(loss - loss == 0.0),
            "likelihood": stage.pixel_likelihood(model) if hasattr(model, "part_decoder") else "none",
            "precision": in_force, "notes": run.notes,
            "peak_mib": torch.cuda.max_memory_allocated() / 2**20 if place.type == "cuda" else None}
        keep(found)
        # Whatever the profiler raises, the times stand.
        try:
            found["kernels"] = floors.breakdown(lambda: run.advance([]), place)
        except Exception as error:
            found["kernels"] = {"failed": rungs.first_line(error)}
    return found


def command(json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where the times go.",
                                                callback=to_write)],
            preset: Preset = "digits", seed: Seed = 0, overrides: Set = None, device: Device = None,
            seconds: Annotated[float, typer.Option(help="Of blocks, at most five of them.")] = 5.0,
            params: Params = "params.yaml", results: Results = "results") -> None:
    """Time of a training step of a preset on one rung, in a process of its own, as JSON."""
    found = measured(settings.load_preset(preset, overrides, params), seed, Path(results), device, seconds,
                     lambda found: write_json(json_file, found))
    write_json(json_file, found)
    print(f"step_time: {found['rung']}, {found['likelihood']}: first {found['first_s']:.1f} s, then "
          f"{1.0 / found['step_s']:.1f} steps/s, loss {found['loss']:.2f}", flush=True)


main = Program("python -m pipelines.visit.step_time", command)


if __name__ == "__main__":
    raise SystemExit(main())
