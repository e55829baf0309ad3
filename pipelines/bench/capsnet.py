"""Time a CapsNet training step beside the floor that its convolutions and votes set, in one process.

    python -m pipelines.bench.capsnet [--batch 64] [--threads 2] [--clock wall|cpu] [--json FILE]

What is compared runs interleaved and counts with its fastest repeat, so that only ratios within one run
mean anything. `--clock cpu` counts the process's own time, which a busy machine disturbs less; with more
than one thread it is the sum over them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer

from pipelines.support.command_line import Program, among
from pipelines.support.output import write_json
from port.capsnet import kernel as capsnet_kernel
from port.capsnet import network as capsnet
from port.capsnet.routing import capsule_votes, dynamic_routing
from port.capsnet.settings import PRESETS, Settings, preset
from port.core import adam as optim_adam

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def pieces(settings: Settings, batch: int) -> dict[str, Callable[[], None]]:
    """What is timed, each forward and backward.

    Args:
        settings: the network.
        batch: images a step.

    Returns:
        `step`: loss, gradients and Adam; `convolutions` and `votes`: the floor; `routing` as it is and
        `routing_by_votes` as the paper writes it, votes included in both; `adam` and `torch_adam`.
    """
    torch.manual_seed(0)
    image = torch.rand(batch, settings.channels, settings.canvas, settings.canvas)
    label = torch.randint(0, settings.classes, (batch,))
    model = capsnet.CapsNet(settings)
    adam = optim_adam.Adam(model.parameters(), lr=1e-3)
    torch_adam = torch.optim.Adam([p.detach().clone().requires_grad_() for p in model.parameters()])
    for group in torch_adam.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.rand_like(parameter)
    children = torch.randn(batch, settings.children, settings.primary_atoms, requires_grad=True)
    weights = model.classes.weight.detach().clone().requires_grad_()
    kernels = [layer.weight.detach().clone().requires_grad_() for layer in (model.conv1, model.primary)]

    def step() -> None:
        adam.zero_grad()
        model(image, label).loss.backward()
        adam.step()

    def convolutions() -> None:
        features = F.conv2d(image, kernels[0], stride=settings.conv1_stride).relu()
        F.conv2d(features, kernels[1], stride=settings.primary_stride).sum().backward()

    def votes() -> None:
        capsule_votes(children, weights, settings.classes).sum().backward()

    def routing() -> None:
        capsnet_kernel.route_children(children, weights, settings.classes, None, settings.iterations,
                                      settings.leaky, settings.routing_gradient).sum().backward()

    def routing_by_votes() -> None:
        dynamic_routing(capsule_votes(children, weights, settings.classes), None, settings.iterations,
                        settings.leaky, settings.routing_gradient).capsules.sum().backward()

    step()  # gives Adam its gradients
    return {"step": step, "convolutions": convolutions, "votes": votes, "routing": routing,
            "routing_by_votes": routing_by_votes, "adam": adam.step, "torch_adam": torch_adam.step}


def measure(timed: dict[str, Callable[[], None]], repeats: int, clock: str) -> dict[str, float]:
    """Seconds of the fastest of some interleaved repeats, after one that does not count."""
    now, best = CLOCKS[clock], dict.fromkeys(timed, float("inf"))
    for call in timed.values():
        call()
    for _ in range(repeats):
        for name, call in timed.items():
            began = now()
            call()
            best[name] = min(best[name], now() - began)
    return best


def command(name: Annotated[str, typer.Option(
                "--preset", metavar="NAME", help=f"{' or '.join(PRESETS)}.", callback=among(PRESETS))] = "paper",
            batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 64,
            threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
            repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 5,
            clock: Annotated[str, typer.Option(
                metavar="CLOCK", help=f"Of {' or '.join(CLOCKS)} time.", callback=among(CLOCKS))] = "wall",
            json_file: Annotated[Path | None, typer.Option(
                "--json", metavar="FILE", help="Write the numbers to this file too.")] = None) -> None:
    """Time a CapsNet training step beside the floor that its convolutions and votes set, in one process."""
    torch.set_num_threads(threads)
    seconds = measure(pieces(preset(name), batch), repeats, clock)
    floor = seconds["convolutions"] + seconds["votes"]
    ratios = {"step / (convolutions + votes)": seconds["step"] / floor,
              "routing_by_votes / routing": seconds["routing_by_votes"] / seconds["routing"],
              "torch_adam / adam": seconds["torch_adam"] / seconds["adam"]}
    print(f"CapsNet {name}, batch {batch}, {threads} threads, {clock} clock, torch {torch.__version__}")
    for what, value in seconds.items():
        print(f"  {what:18s} {value:8.4f} s")
    for what, value in ratios.items():
        print(f"  {what:30s} {value:6.2f}")
    if json_file:
        write_json(json_file, {
            "preset": name, "batch": batch, "threads": threads, "repeats": repeats, "clock": clock,
            "json": str(json_file), "torch": torch.__version__, "seconds": seconds, "ratios": ratios})


main = Program("python -m pipelines.bench.capsnet", command)


if __name__ == "__main__":
    raise SystemExit(main())
