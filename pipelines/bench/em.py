"""Time a training step of matrix capsules beside the floor of its convolution and vote products.

    python -m pipelines.bench.em [--batch 64] [--threads 2] [--clock wall|cpu] [--json FILE]

The network is the small one of the paper (A = 64, B = 8, C = D = 16, three iterations) on 32 × 32 crops
of two cameras. What is compared runs interleaved and counts with its fastest repeat, so that only ratios
within one run mean anything; memory is the process's largest resident size above that before the network.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer

from pipelines.bench.capsnet import CLOCKS, measure
from pipelines.support.command_line import Program, among
from pipelines.support.output import write_json
from port.core import adam as optim_adam
from port.em import fused as em_fused
from port.em import settings as em_settings
from port.em.layers import pose_product
from port.em.network import MatrixCapsules
from port.em.windows import windows


def resident_mb() -> float:
    """Largest resident size of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def pieces(preset: str, batch: int, side: int) -> dict[str, Callable[[], None]]:
    """What is timed, each forward and backward.

    Args:
        preset: of `em_settings`.
        batch: images a step.
        side: of the images.

    Returns:
        `step`: loss, gradients and Adam; `convolution` and `votes`: the floor, every vote made once.
    """
    settings = em_settings.preset(preset, image_channels=2)
    network = MatrixCapsules(settings, np.random.default_rng(0))
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(batch, 2, side, side, generator=generator)
    label = torch.randint(0, settings.classes, (batch,), generator=generator)
    adam = optim_adam.Adam(network.parameters(), lr=settings.lr)
    kernel = network.conv.weight.detach().clone().requires_grad_()
    with torch.no_grad():
        found = network(image)
        pose, _ = network.primary(network.conv(image))
    poses = [pose, *(layer.pose for layer in found.layers[:-2])]

    def step() -> None:
        loss, _ = network.loss(network(image).activation, label, 0)
        adam.zero_grad()
        loss.backward()
        adam.step()

    def convolution() -> None:
        F.conv2d(image, kernel, stride=settings.conv_stride).relu().sum().backward()

    def votes() -> None:
        for pose, layer in zip(poses, network.capsules):
            seen = windows(pose, layer.kernel, layer.stride).contiguous().requires_grad_()
            pose_product(seen, layer.weight.detach().requires_grad_()).sum().backward()

    return {"step": step, "convolution": convolution, "votes": votes}


def command(preset: Annotated[str, typer.Option(
                metavar="NAME", help=f"{' or '.join(em_settings.PRESETS)}.", callback=among(em_settings.PRESETS)
                )] = "paper",
            batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 64,
            side: Annotated[int, typer.Option(min=24, help="Of the images.")] = 32,
            threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
            repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 5,
            clock: Annotated[str, typer.Option(
                metavar="CLOCK", help=f"Of {' or '.join(CLOCKS)} time.", callback=among(CLOCKS))] = "wall",
            json_file: Annotated[Path | None, typer.Option(
                "--json", metavar="FILE", help="Write the numbers to this file too.")] = None) -> None:
    """Time a training step of matrix capsules beside the floor of its convolution and vote products."""
    torch.set_num_threads(threads)
    before = resident_mb()
    timed = pieces(preset, batch, side)
    timed["step"]()
    memory = resident_mb() - before  # before the floor's votes, which are kept whole
    seconds = measure(timed, repeats, clock)
    ratio = seconds["step"] / (seconds["convolution"] + seconds["votes"])
    path = em_fused.reason_against(torch.device("cpu")) or "kernel"
    print(f"matrix capsules {preset}, batch {batch}, {threads} threads, {clock} clock, torch {torch.__version__}, "
          f"{path}")
    for name, value in seconds.items():
        print(f"  {name:12s} {value:8.4f} s")
    print(f"  step / (convolution + votes) {ratio:6.2f}\n  memory of a step {memory:8.0f} MB")
    if json_file:
        write_json(json_file, {
            "preset": preset, "batch": batch, "side": side, "threads": threads, "repeats": repeats, "clock": clock,
            "json": str(json_file), "torch": torch.__version__, "path": path, "seconds": seconds, "ratio": ratio,
            "memory_mb": memory})


main = Program("python -m pipelines.bench.em", command)


if __name__ == "__main__":
    raise SystemExit(main())
