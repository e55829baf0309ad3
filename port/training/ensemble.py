"""Several runs in one process on one GPU: each step a launch on the run's own stream.

A captured step keeps a GPU busy with many small kernels that leave most of it idle; graphs on different
streams fill the gaps with each other's. Every run has its own weights, generators and checkpoints and
takes exactly the steps that it takes alone, so its results are the same bits. On a CPU the streams are
none and the runs merely take turns; processes side by side are the better way there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch

from port.training import loop, precision
from port.training.schedule import Settings


def train_together(runs: Sequence[tuple[torch.nn.Module, Settings, dict]], dataset
                   ) -> list[loop.Trained]:
    """Train several models in turns, one step each.

    Args:
        runs: model, settings and further arguments of `train.Run` (folder, on_step, on_row). Precision
            and determinism must be the same for all.
        dataset: uint8 images, on the models' device.

    Returns:
        What each run leaves.

    Raises:
        train.Interrupted: SIGTERM or SIGINT came; the states of all are saved.
        resume.NonFiniteLoss: in one of them; the others have their checkpoints.
    """
    device = next(runs[0][0].parameters()).device
    streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in runs]
    with contextlib.ExitStack() as stack:
        in_force = stack.enter_context(precision.mode(runs[0][1]))
        for model, settings, _ in runs:
            stack.enter_context(precision.mixed(model, settings))
        stop = stack.enter_context(loop.caught_signals())
        started = []
        for (model, settings, more), stream in zip(runs, streams, strict=True):
            with _on(stream):
                started.append(loop.Run(model, dataset, settings, **more))
        interrupted = None
        while any(not run.done for run in started) and interrupted is None:
            # A signal that comes in the middle of a round reaches all runs in the next.
            signals = list(stop)
            for run, stream in zip(started, streams, strict=True):
                if run.done:
                    continue
                with _on(stream):
                    try:
                        run.advance(signals)
                    except loop.Interrupted as error:
                        interrupted = error
        if interrupted is not None:
            raise interrupted
        return [run.finish(in_force) for run in started]


@contextlib.contextmanager
def _on(stream):
    """Work on a stream, after what was queued before it was made."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.default_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
