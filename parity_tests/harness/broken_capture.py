"""A GPU on which no capture succeeds, pretended on the CPU, for the tests of `port.training.rungs`.

    python -m parity_tests.harness.broken_capture ARGUMENT…

is `python -m pipelines.train` with it. As in torch 2.11, a generator that was registered with a graph
whose capture failed stays in capture mode: whoever draws from it afterwards gets an error.
"""

from __future__ import annotations

import contextlib
import sys
from types import SimpleNamespace
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

REASON = "operation not permitted when stream is capturing"
STUCK = "Offset increment outside graph capture encountered unexpectedly."


class Stuck(TorchFunctionMode):
    """Drawing from one of the generators is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.generators: list[torch.Generator] = []

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if any(keywords.get("generator") is one for one in self.generators):
            raise RuntimeError(STUCK)
        return function(*arguments, **keywords)


class Graph:
    """A graph that remembers what was registered."""

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)


@contextlib.contextmanager
def broken_capture():
    """The capture's part of `torch.cuda`; what is captured runs, and ending the capture raises."""
    stuck = Stuck()

    @contextlib.contextmanager
    def capture(graph: Graph):
        yield
        stuck.generators += graph.generators
        raise RuntimeError(REASON)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    with mock.patch.multiple(
            torch.cuda, Stream=lambda *place: stream, current_stream=lambda: stream, CUDAGraph=Graph,
            stream=contextlib.nullcontext, graph=capture), stuck:
        yield


@contextlib.contextmanager
def pretended_gpu():
    """`cuda` may be asked for; what is computed is computed on the CPU, and captures fail."""
    from pipelines.support import environment
    from port.training import distributed, rungs

    ladder, cpu = rungs.ladder, torch.device("cpu")
    with broken_capture(), \
            mock.patch.object(environment, "choose_device", lambda name: torch.device("cuda")), \
            mock.patch.object(distributed, "join", lambda place: (distributed.ALONE, cpu)), \
            mock.patch.object(rungs, "ladder", lambda settings, device: ladder(settings, "cuda")):
        yield


if __name__ == "__main__":
    from pipelines import train
    with pretended_gpu():
        raise SystemExit(train.main(sys.argv[1:]))
