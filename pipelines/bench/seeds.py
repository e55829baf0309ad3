"""Several seeds at once on one device: alone, in turns on streams, batched with torch.func.

    python -m pipelines.bench.seeds --preset digits --seeds 3

`alone` and `in_turns` are training steps per seed, as `scae train` runs them: on the preset's rung and in
its precision. `torch.func` batches no optimizer, so `batched` is a forward and backward pass, on the plain
path, since the fused kernel of a CPU cannot be batched either; `passes_alone` is the same, one after the
other. Interleaved, the least of the repeats; the ratios are of this run. On a CPU processes side by side
need no measurement: each computes what a seed alone computes, on its own core.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated

import torch
import typer
from torch.func import functional_call, grad, stack_module_state, vmap

import port
from pipelines import train as stage
from pipelines.bench.data import dataset
from pipelines.support import environment, settings
from pipelines.support.command_line import Preset, Program
from port.core import backends
from port.training import loop as train
from port.training import precision


def measure(preset: settings.Preset, n_seeds: int, repeats: int, device: torch.device) -> dict:
    """Seconds per seed of each way, and the ratios of those that do the same."""
    preset = stage.without_epochs(preset)
    wanted = preset.train(0)[0]
    with contextlib.ExitStack() as stack:
        in_force = stack.enter_context(precision.mode(wanted, device))
        runs = []
        for seed in range(n_seeds):
            model = port.build(preset.config(), seed=seed).to(device)
            stack.enter_context(precision.mixed(model, wanted))
            examples = dataset(preset, wanted.batch_size, device)
            runs.append(train.Run(model, examples, replace(wanted, seed=seed)))
        ways = steps(runs, device) | passes(preset, wanted, n_seeds, device)
        # The processor's own time on a CPU, so that other processes do not count.
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        best = dict.fromkeys(ways, float("inf"))
        for repeat in range(repeats + 1):
            for name, way in ways.items():
                wait(device)
                started = clock()
                way()
                wait(device)
                if repeat:  # the first warms up
                    best[name] = min(best[name], (clock() - started) / n_seeds)
        return {"preset": preset.name, "seeds": n_seeds, "batch_size": wanted.batch_size,
                "rung": runs[0].step.in_force, "precision": in_force, "seconds_per_seed": best,
                "speedup": {"in_turns": best["alone"] / best["in_turns"],
                            "batched": best["passes_alone"] / best["batched"]},
                "environment": environment.describe(device)}


def steps(runs: list[train.Run], device: torch.device) -> dict[str, Callable[[], None]]:
    """A step of every run: one after the other, or each on a stream of its own."""
    streams = [torch.cuda.Stream() if device.type == "cuda" else None for _ in runs]

    def one(run: train.Run) -> None:
        run.step(run.state.batches.next_index(), run.settings.lr)

    def alone() -> None:
        for run in runs:
            one(run)
            wait(device)

    def in_turns() -> None:
        for run, stream in zip(runs, streams):
            with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
                one(run)
    return {"alone": alone, "in_turns": in_turns}


def passes(preset: settings.Preset, wanted: train.Settings, n_seeds: int, device: torch.device
           ) -> dict[str, Callable[[], None]]:
    """A forward and backward pass of every seed, on the plain path: one after the other, or batched."""
    config, batch = preset.config(), wanted.batch_size
    models = [port.build(config, seed=seed).to(device) for seed in range(n_seeds)]
    for model in models:
        model.check_range = False
    generator = torch.Generator(device).manual_seed(0)
    image = torch.rand(n_seeds, batch, config.channels, config.canvas, config.canvas, generator=generator,
                       device=device)
    label = torch.arange(batch, device=device).expand(n_seeds, -1) % 5
    noises = [port.Noise.draw(generator, config, batch) for _ in models]
    raw = [torch.stack(draws) for draws in zip(*(noise.raw for noise in noises), strict=True)]
    weights, _ = stack_module_state(models)

    def alone() -> None:
        for seed, model in enumerate(models):
            model.zero_grad()
            model(image[seed], label[seed], noises[seed]).loss.backward()
            wait(device)

    def loss(weights, image, label, *raw):
        noise = port.Noise(**{f"raw_{j}": value for j, value in enumerate(raw)})
        return functional_call(models[0], weights, (image, label, noise)).loss
    batched = vmap(grad(loss))
    return {"passes_alone": plain(alone), "batched": plain(lambda: batched(weights, image, label, *raw))}


def plain(way: Callable[[], object]) -> Callable[[], None]:
    """The same without kernels of ours."""
    def run() -> None:
        with backends.switched("off"):
            way()
    return run


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def command(preset: Preset = "digits", seeds: Annotated[int, typer.Option(help="How many.")] = 3,
            repeats: Annotated[int, typer.Option(help="Rounds; the fastest counts.")] = 5,
            device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
            threads: Annotated[int, typer.Option(help="Of torch.")] = 1) -> None:
    """Several seeds at once on one device: alone, in turns on streams, batched with torch.func."""
    torch.set_num_threads(threads)
    print(json.dumps(measure(settings.load_preset(preset), seeds, repeats, environment.choose_device(device)),
                     indent=1))


main = Program("python -m pipelines.bench.seeds", command)


if __name__ == "__main__":
    raise SystemExit(main())
