"""Where a number first stopped being finite: the run is repeated from the last good state, watched."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from port.scae.noise import Noise
from port.training import resume, schedule
from port.training.resume import Snapshot
from port.training.step import Step


def first_cause(step: Step, good: Snapshot, until: int) -> str:
    """Repeat the steps after `good`, eagerly, and name the first thing that is not finite.

    Args:
        step: of the run; its state is changed.
        good: a state from which the run went wrong.
        until: the step at which that was noticed.

    Returns:
        A clause for the message: a tap in the order of computation, or a parameter whose gradient is
        not finite while the loss still is.
    """
    with step.at_work():
        return _repeated(step, good, until)


def _repeated(step: Step, good: Snapshot, until: int) -> str:
    state, world = step.state, step.world
    good.restore()
    while state.step < until:
        step.index.copy_(state.batches.next_index())
        step.at_step()
        image, label, noise = step.inputs()
        loss, scalars = step.forward.eager(image, label, noise)
        if _any(world, not all(torch.isfinite(v) for v in (loss, *scalars.values()))):
            found = min(world.collect(first_tap(step.model, image, label, noise)))
            return f"first non-finite tap: {found[1]} (step {state.step + 1})"
        step.backward(loss)
        bad = resume.non_finite({name: parameter.grad for name, parameter
                                 in step.model.named_parameters() if parameter.grad is not None})
        if bad:
            return (f"the loss is finite, the gradient of {', '.join(bad[:3])} is not "
                    f"(step {state.step + 1})")
        step.lr.fill(schedule.learning_rate(step.settings, state.step))
        state.optimizer.step()
        state.step += 1
    return "repeated eagerly from the last good state, everything stayed finite"


def first_tap(model: torch.nn.Module, image: Tensor, label: Tensor, noise: Noise | None
              ) -> tuple[float, str]:
    """The first non-finite tap of a forward pass, by the order in which the tensors were made.

    Taps are recorded in groups, which is not quite the order of computation, so every operation is
    counted and a tap has the number of the one that made it.

    Returns:
        Number (infinite for none, so that it sorts last among several ranks) and name.
    """
    # One picture per object capsule: in no loss, and for a large batch more memory than a step.
    model.record_per_capsule = lambda *arguments: None
    try:
        with torch.no_grad(), _Count() as made:
            taps = model(image, label, noise, taps=True).taps
    finally:
        del model.record_per_capsule
    bad = [(made.order.get(id(tensor), -1), name) for name, tensor in taps.as_computed().items()
           if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    # Among taps of one operation the first that was recorded.
    return min(bad, key=lambda pair: pair[0], default=(float("inf"), "none"))


class _Count(TorchDispatchMode):
    """Numbers tensors in the order in which operations return them.

    A dead tensor's id may be given to a later one, which then overwrites its number; the tensors
    that are asked for are alive to the end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.order: dict[int, int] = {}

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.order[id(tensor)] = len(self.order)
        return result


def _any(world, value: bool) -> bool:
    """Whether it is so on any rank."""
    return any(world.collect(value))
