"""Several seeds at once on one device: alone, in turns on streams, batched with torch.func.

    python -m pipelines.bench_seeds --preset digits --seeds 3

Times one forward and backward pass per seed on random images, interleaved, the least of the repeats; the
ratios are of this run. The fused kernel of a CPU cannot be batched, so `batched` goes with `alone_plain`,
both without it. On a CPU processes side by side need no measurement: each computes what a seed alone
computes, on its own core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time

import torch
from torch.func import functional_call, grad, stack_module_state, vmap

import port
from pipelines import console, environment, settings
from port import kernels


def measure(preset: settings.Preset, n_seeds: int, repeats: int, device: torch.device) -> dict:
    """Seconds per seed of the three ways, and their ratios to a seed alone."""
    config, batch = preset.config(), preset.train(0)[0].batch_size
    models = [port.ImageAutoencoder(config, seed=seed).to(device) for seed in range(n_seeds)]
    for model in models:
        model.check_range = False
    generator = torch.Generator(device).manual_seed(0)
    side = config.canvas
    image = torch.rand(n_seeds, batch, config.channels, side, side, generator=generator, device=device)
    label = torch.randint(0, config.autoencoder.n_classes, (n_seeds, batch), generator=generator,
                          device=device)
    noises = [port.Noise.draw(generator, config, batch) for _ in models]
    streams = [torch.cuda.Stream() if device.type == "cuda" else None for _ in models]

    def one(seed: int) -> None:
        models[seed].zero_grad()
        models[seed](image[seed], label[seed], noises[seed]).loss.backward()

    def alone() -> None:
        for seed in range(n_seeds):
            one(seed)
            if device.type == "cuda":
                torch.cuda.synchronize()

    def in_turns() -> None:
        for seed, stream in enumerate(streams):
            with torch.cuda.stream(stream) if stream else contextlib.nullcontext():
                one(seed)

    def plain(way):
        def run() -> None:
            before = os.environ.get(kernels.SWITCH)
            os.environ[kernels.SWITCH] = "off"
            try:
                way()
            finally:
                if before is None:
                    del os.environ[kernels.SWITCH]
                else:
                    os.environ[kernels.SWITCH] = before
        return run

    weights, _ = stack_module_state(models)
    raw = [torch.stack(draws) for draws in zip(*(noise.raw for noise in noises), strict=True)]

    def loss(weights, image, label, *raw):
        noise = port.Noise(**{f"raw_{j}": value for j, value in enumerate(raw)})
        return functional_call(models[0], weights, (image, label, noise)).loss
    batched = vmap(grad(loss))

    # The processor's own time on a CPU, so that other processes do not count.
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    ways = {"alone": alone, "in_turns": in_turns, "alone_plain": plain(alone),
            "batched": plain(lambda: batched(weights, image, label, *raw))}
    best = dict.fromkeys(ways, float("inf"))
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            started = clock()
            way()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat:  # the first warms up
                best[name] = min(best[name], (clock() - started) / n_seeds)
    return {"preset": preset.name, "seeds": n_seeds, "batch_size": batch,
            "seconds_per_seed": best,
            "speedup": {name: best["alone"] / value for name, value in best.items()},
            "environment": environment.describe(device)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pipelines.bench_seeds",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)

    def work() -> None:
        torch.set_num_threads(given.threads)
        print(json.dumps(measure(settings.load_preset(given.preset), given.seeds, given.repeats,
                                 environment.choose_device(given.device)), indent=1))
    return console.exit_code(work)


if __name__ == "__main__":
    raise SystemExit(main())
