"""How many graphs torch.compile makes of a training step's forward pass, on tensors without values.

    python -m parity_tests.harness.graphs [--backward] [--planted] PRESET[:KEY=VALUE]…
    python -m parity_tests.harness.graphs --compare PRESET[:KEY=VALUE]…

prints a line of JSON a preset: graphs, graphs of the backward pass, reasons of breaks; `--planted` puts in
what breaks a graph. On the meta device models take the paths of a GPU (no kernel of the CPU). `--compare`
has values: loss and gradients, compiled and not, on the CPU. A process of its own, since a compiling torch
and TensorFlow do not share one; all presets in the same.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import torch
import typer
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

import port
from pipelines import train as stage
from pipelines.support import settings
from pipelines.support.command_line import Program
from port.families import family_of
from port.training.resume import State
from port.training.step import Step

BATCH = 4


def inputs(config, dtype: torch.dtype, device: str) -> tuple[torch.Tensor, torch.Tensor, port.Noise | None]:
    """A batch; on the meta device without values."""
    generator = torch.Generator().manual_seed(0)
    noise = port.Noise.draw(generator, config, BATCH, dtype=dtype) if family_of(config).draws else None
    if config.kind == "constellation":
        image = torch.rand(BATCH, config.n_points, 2, generator=generator, dtype=dtype)
        label = torch.ones(BATCH, config.n_points, dtype=dtype)
    else:
        image = torch.rand(BATCH, config.channels, config.canvas, config.canvas, generator=generator,
                           dtype=dtype)
        label = torch.arange(BATCH)
    return image.to(device), label.to(device), None if noise is None else noise.to(device)


def step_of(name: str, overrides: list[str], dtype: torch.dtype, device: str) -> tuple[Step, tuple]:
    """A preset's step, as it is made of a new model, and a batch for its forward pass."""
    preset = settings.load_preset(name, overrides)
    wanted = replace(stage.without_epochs(preset).train(0)[0], batch_size=BATCH, rung="eager")
    config = preset.config()
    model = port.build(config, seed=0).to(device, dtype)
    step = Step(State(model, torch.optim.SGD(model.parameters()), None, None), wanted)
    step.at_step()
    model.train()
    return step, inputs(config, dtype, device)


def counted(name: str, overrides: list[str], backward: bool, planted: bool) -> dict:
    """Compile the forward pass of a preset's step, and the backward pass if asked to."""
    torch._dynamo.reset()
    counters.clear()
    step, batch = step_of(name, overrides, torch.float32, "meta")
    if planted:
        step.model.gather = torch.compiler.disable(step.model.gather)
    found = {"graphs": 0, "backward": 0}

    def counting(kind):
        def compiler(graph, examples):
            found[kind] += 1
            return graph.forward
        return compiler
    forward = counting("graphs")
    backend = aot_autograd(fw_compiler=forward, bw_compiler=counting("backward")) if backward else forward
    loss, _ = torch.compile(step.forward.eager, backend=backend)(*batch)
    if backward:
        loss.backward()
    return found | {"breaks": [reason.splitlines()[0] for reason in counters["graph_break"]]}


def compared(name: str, overrides: list[str]) -> dict:
    """Largest relative difference of the loss and of a parameter's gradient, compiled and not, float64."""
    torch._dynamo.reset()
    step, batch = step_of(name, overrides, torch.float64, "cpu")
    found = []
    for run in (step.forward.eager, torch.compile(step.forward.eager, backend="aot_eager", fullgraph=True)):
        step.model.zero_grad()
        loss = run(*batch)[0]
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in step.model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1])
    return {"difference": max(float((a - b).abs().max() / a.abs().max().clamp(min=1e-30))
                              for a, b in zip(*found))}


def command(presets: Annotated[list[str], typer.Argument(
                metavar="PRESET[:SECTION.KEY=VALUE]…", help="With settings, each after a colon.")],
            backward: Annotated[bool, typer.Option("--backward", help="The backward pass too.")] = False,
            planted: Annotated[bool, typer.Option("--planted", help="With a break, which has to be seen.")] = False,
            compare: Annotated[bool, typer.Option("--compare", help="Values with those without compiling.")] = False
            ) -> None:
    """How many graphs torch.compile makes of a training step's forward pass, on tensors without values."""
    for words in presets:
        name, *overrides = words.split(":")
        found = compared(name, overrides) if compare else counted(name, overrides, backward, planted)
        print(json.dumps({"preset": name} | found), flush=True)


main = Program("python -m parity_tests.harness.graphs", command)

if __name__ == "__main__":
    raise SystemExit(main())
