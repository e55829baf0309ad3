"""Several runs in one process on one GPU: each step a launch on the run's own stream.

A captured step keeps a GPU busy with many small kernels that leave most of it idle; graphs on different
streams fill the gaps with each other's. Every run has its own weights, generators and checkpoints and
takes exactly the steps that it takes alone, so its results are the same bits. On a CPU the streams are
none and the runs merely take turns; processes side by side are the better way there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from port.data.streams import Examples
from port.training import loop, precision, resume
from port.training.schedule import Settings

Name = TypeVar("Name", bound=Hashable)


class Start(NamedTuple):
    """What a run begins with: arguments of `loop.Run`, `more` those by name (folder, on_step, on_row)."""

    model: torch.nn.Module
    dataset: Examples
    settings: Settings
    more: dict[str, Any]


class Spent(Exception):
    """This process can make no more steps, since a run's raised an error (the cause), a failed capture say.

    Attributes:
        name: of the run.
    """

    def __init__(self, name: Hashable) -> None:
        super().__init__(f"{name}: its step failed")
        self.name = name


class _UnderWay(NamedTuple):
    name: Any
    run: loop.Run
    stream: Any
    kept: contextlib.ExitStack


def train_together(runs: Sequence[tuple[torch.nn.Module, Settings, dict]], dataset
                   ) -> list[loop.Trained]:
    """Train several models in turns, one step each.

    Args:
        runs: model, settings and further arguments of `loop.Run` (folder, on_step, on_row). Precision
            and determinism must be the same for all.
        dataset: uint8 images, on the models' device.

    Returns:
        What each run leaves.

    Raises:
        loop.Interrupted: SIGTERM or SIGINT came; the states of all are saved.
        resume.NonFiniteLoss: in one of them; the others have their checkpoints.
    """
    waiting = [(i, lambda run=run: Start(run[0], dataset, *run[1:])) for i, run in enumerate(runs)]
    ended, interrupted = {}, None
    try:
        with loop.caught_signals() as stop:
            for i, outcome in in_turns(waiting, len(runs), stop):
                if isinstance(outcome, loop.Interrupted):
                    interrupted = outcome
                elif isinstance(outcome, Exception):
                    raise outcome
                ended[i] = outcome
    except Spent as spent:
        raise spent.__cause__ from None
    if interrupted is not None:
        raise interrupted
    return [ended[i] for i in range(len(runs))]


def in_turns(waiting: Iterable[tuple[Name, Callable[[], Start]]], most: int, stop: list[int],
             watch: Callable[[int], object] = lambda under_way: None
             ) -> Iterator[tuple[Name, loop.Trained | Exception]]:
    """Train runs in turns, at most so many beside each other, and give each as it ends.

    A run that cannot begin or whose numbers stop being finite costs itself alone. After any other error in a
    step this process can make no more; the states of the others are saved.

    Args:
        waiting: a name, and what makes the run when its turn comes; one begins a round.
        most: runs under way at a time; fewer where a GPU's memory holds no more.
        stop: receives the number of a signal; every run then saves its state, and none begins.
        watch: called once a round with the number of runs under way.

    Yields:
        The name, and what the run leaves or what it raised: `loop.Interrupted` where its state was saved.

    Raises:
        Spent: a step failed otherwise than by a number that is not finite; what the others left came before.
    """
    coming, under_way, first = iter(waiting), [], None
    with contextlib.ExitStack() as whole:
        whole.callback(lambda: [one.kept.close() for one in under_way])
        more = True
        while under_way or (more and not stop):
            # A signal that comes in the middle of a round reaches all runs in the next.
            signals = list(stop)
            if more and not signals and len(under_way) < most and _has_room(under_way):
                try:
                    name, make = next(coming)
                except StopIteration:
                    more = False
                    continue
                kept = contextlib.ExitStack()
                try:
                    start = make()
                    if first is None:
                        first, place = start.settings, next(start.model.parameters()).device
                        in_force = whole.enter_context(precision.mode(first, place))
                    elif precision.of(first) != precision.of(start.settings):
                        raise ValueError(f"{name}: runs beside each other need one precision: "
                                         f"{precision.of(first)}, not {precision.of(start.settings)}")
                    kept.enter_context(precision.mixed(start.model, start.settings))
                    stream = _stream(start.model)
                    with _on(stream):
                        run = loop.Run(start.model, start.dataset, start.settings, **start.more)
                except Exception as error:
                    kept.close()
                    yield name, error
                    continue
                under_way.append(_UnderWay(name, run, stream, kept))
            watch(len(under_way))
            for one in list(under_way):
                outcome: loop.Trained | Exception | None = None
                try:
                    if not one.run.done:
                        with _on(one.stream):
                            one.run.advance(signals)
                    if one.run.done:
                        outcome = one.run.finish(in_force | {"amp": one.run.settings.amp})
                except (loop.Interrupted, resume.NonFiniteLoss) as error:
                    outcome = error
                except Exception as error:
                    under_way.remove(one)
                    one.kept.close()
                    yield from _left(under_way)
                    raise Spent(one.name) from error
                if outcome is not None:
                    under_way.remove(one)
                    one.kept.close()
                    yield one.name, outcome


def _left(under_way: list[_UnderWay]) -> Iterator[tuple[Any, Exception]]:
    """Save the runs of a process that can make no more steps, each as it stands after its last one."""
    while under_way:
        one = under_way.pop()
        with contextlib.suppress(Exception), _on(one.stream):
            one.run.keep()  # where that fails, too, its last checkpoint is what it goes on from
        one.kept.close()
        yield one.name, loop.Interrupted(0, one.run.state.step)


def _stream(model: torch.nn.Module):
    device = next(model.parameters()).device
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def _has_room(under_way: list[_UnderWay]) -> bool:
    """Whether a GPU's memory holds a run more, if it takes at most twice what one takes now."""
    reserved = torch.cuda.memory_reserved() if torch.cuda.is_available() else 0
    return not reserved or not under_way or torch.cuda.mem_get_info()[0] > 2 * reserved / len(under_way)


@contextlib.contextmanager
def _on(stream):
    """Work on a stream, after what was queued before it was made."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.default_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
