"""Time a training step of matrix capsules beside the floor of its convolution and vote products.

    python -m pipelines.bench.em [--batch 64] [--threads 2] [--clock wall|cpu] [--json FILE]

The network is the small one of the paper (A = 64, B = 8, C = D = 16, three iterations) on 32 × 32 crops
of two cameras. What is compared runs interleaved and counts with its fastest repeat, so that only ratios
within one run mean anything; memory is the process's largest resident size above that before the network.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer

from pipelines.bench.pieces import measure, say
from pipelines.support.command_line import Clock, JsonFile, Program, Repeats, Threads, among
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
        preset: of `em.settings`.
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
            side: Annotated[int, typer.Option(min=24, help="Of the images.")] = 32, threads: Threads = 2,
            repeats: Repeats = 5, clock: Clock = "wall", json_file: JsonFile = None) -> None:
    """Time a training step of matrix capsules beside the floor of its convolution and vote products."""
    torch.set_num_threads(threads)
    before = resident_mb()
    timed = pieces(preset, batch, side)
    timed["step"]()
    memory = resident_mb() - before  # before the floor's votes, which are kept whole
    seconds = measure(timed, repeats, clock)
    ratio = seconds["step"] / (seconds["convolution"] + seconds["votes"])
    path = em_fused.reason_against(torch.device("cpu")) or "kernel"
    say(f"matrix capsules {preset} ({path})",
        {"preset": preset, "batch": batch, "side": side, "threads": threads, "repeats": repeats, "clock": clock},
        seconds, {"path": path, "ratio": ratio, "memory_mb": memory},
        {"step / (convolution + votes)": f"{ratio:.2f}", "memory of a step": f"{memory:.0f} MB"}, json_file)


main = Program("python -m pipelines.bench.em", command)


if __name__ == "__main__":
    raise SystemExit(main())
