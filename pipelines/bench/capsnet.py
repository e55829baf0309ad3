"""Time a CapsNet training step beside the floor that its convolutions and votes set, in one process.

    python -m pipelines.bench.capsnet [--batch 64] [--threads 2] [--clock wall|cpu] [--json FILE]

What is compared runs interleaved and counts with its fastest repeat, so that only ratios within one run
mean anything. `--clock cpu` counts the process's own time, which a busy machine disturbs less; with more
than one thread it is the sum over them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
import typer

from pipelines.bench.pieces import measure, say
from pipelines.support.command_line import Clock, JsonFile, Program, Repeats, Threads, among
from port.capsnet import kernel as capsnet_kernel
from port.capsnet import network as capsnet
from port.capsnet.routing import capsule_votes, dynamic_routing
from port.capsnet.settings import PRESETS, Settings, preset
from port.core import adam as optim_adam


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


def command(name: Annotated[str, typer.Option(
                "--preset", metavar="NAME", help=f"{' or '.join(PRESETS)}.", callback=among(PRESETS))] = "paper",
            batch: Annotated[int, typer.Option(min=1, help="Images a step.")] = 64, threads: Threads = 2,
            repeats: Repeats = 5, clock: Clock = "wall", json_file: JsonFile = None) -> None:
    """Time a CapsNet training step beside the floor that its convolutions and votes set, in one process."""
    torch.set_num_threads(threads)
    seconds = measure(pieces(preset(name), batch), repeats, clock)
    ratios = {"step / (convolutions + votes)": seconds["step"] / (seconds["convolutions"] + seconds["votes"]),
              "routing_by_votes / routing": seconds["routing_by_votes"] / seconds["routing"],
              "torch_adam / adam": seconds["torch_adam"] / seconds["adam"]}
    say(f"CapsNet {name}", {"preset": name, "batch": batch, "threads": threads, "repeats": repeats, "clock": clock},
        seconds, {"ratios": ratios}, {what: f"{value:.2f}" for what, value in ratios.items()}, json_file)


main = Program("python -m pipelines.bench.capsnet", command)


if __name__ == "__main__":
    raise SystemExit(main())
