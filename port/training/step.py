"""One update of the weights, from example numbers to RMSProp, without waiting for the device.

Everything that changes from step to step comes in through static tensors (which examples, the
learning rate) and generators; the results stay on the device (weights, slots, sums of the scalars).
So the same method runs eagerly, around a compiled forward pass, and captured as a CUDA graph, where
one launch replays the thousand kernels of a step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from port.core import rmsprop
from port.families import family_of
from port.scae.noise import Noise
from port.training import optimizers, precision, rungs
from port.training.distributed import ALONE, World
from port.training.resume import Snapshot, State
from port.training.schedule import Settings

WARM_UP = 3  # updates before a capture: allocators, compilers and libraries settle


class Forward:
    """Loss and scalars of a batch, compiled if asked for and possible.

    Args:
        model: called with image, label and noise.
        compiled: try torch.compile.
        notes: receives a line where it does not work.
        rung: raise `RungFailed` for this rung in place of going on without the compiler.
    """

    def __init__(self, model: torch.nn.Module, compiled: bool, notes: list[str], rung: str | None = None):
        self.model, self.notes, self.rung = model, notes, rung
        self.compiled = torch.compile(self.eager) if compiled else None
        self.worked = False

    def eager(self, image: Tensor, label: Tensor | None, noise) -> tuple[Tensor, dict[str, Tensor]]:
        result = self.model(image, label, noise)
        return result.loss, result.scalars

    def __call__(self, image: Tensor, label: Tensor | None, noise) -> tuple[Tensor, dict[str, Tensor]]:
        if self.compiled is not None:
            try:
                result = self.compiled(image, label, noise)
                self.worked = True
                return result
            except Exception as error:  # whatever a missing compiler raises; eager tells the rest
                if self.worked:
                    raise
                if self.rung is not None:
                    raise rungs.RungFailed(self.rung, "torch.compile does not work here", error) from error
                self.compiled = None
                reason = rungs.first_line(error)
                self.notes.append(f"torch.compile does not work here ({reason}); training eagerly")
                print(self.notes[-1], flush=True)
        return self.eager(image, label, noise)


class Step:
    """An update, called with the examples and the rate.

    Args:
        state: model, optimizer, batches, noise generator and running sums; all change in place.
        settings: noise, clipping, rung and precision.
        notes: receives a line where something had to be done without.
        world: takes this rank's share of each batch and averages gradients.

    Raises:
        ValueError: a capture without a GPU.
        rungs.RungFailed: at the first call, where the step cannot be captured, or not be compiled
            although the settings name the rung; the process must end then.
    """

    def __init__(self, state: State, settings: Settings, notes: list[str] | None = None,
                 world: World = ALONE):
        self.state, self.settings, self.world = state, settings, world
        self.notes = [] if notes is None else notes
        self.model, self.batches = state.model, state.batches
        device = next(self.model.parameters()).device
        self.index = torch.zeros(settings.batch_size, dtype=torch.int64, device=device)
        self.lr = optimizers.Rate(state.optimizer, device)
        self.noisy = settings.noise and family_of(self.model.config).draws
        self.gather = world.gather  # one object, by which a compiled forward pass knows that nothing changed
        self.rung = rungs.ladder(settings, device.type)[0]
        fault = rungs.compiler_fault(device.type) if self.rung.compiled else ""
        if fault:
            self.notes.append(f"torch.compile: as the settings say, though {fault}")
            print(self.notes[-1], flush=True)
        self.forward = Forward(self.model, self.rung.compiled, self.notes,
                               None if settings.rung == rungs.AUTO else self.rung.name)
        self.graph = None

    def __call__(self, index: Tensor, lr: float) -> None:
        """One update with the examples `index` at rate `lr`."""
        self.index.copy_(index)
        self.lr.fill(lr)
        self.at_step()
        if self.rung.captured and self.graph is None:
            self._capture()
        if self.graph is None:
            self.update()
        else:
            self.graph.replay()
        self.state.count += 1

    def at_step(self) -> None:
        """Let a model whose loss changes with the updates done know how many there were."""
        if hasattr(self.model, "at_step"):
            self.model.at_step(self.state.step)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """The model as an update needs it, for that long, so that whatever ends a run leaves it as it was.

        It does not look at the range of its images, which come from bytes, and sees the rows of all ranks; with
        `debug` autograd looks for what is not finite.
        """
        model = self.model
        before = model.check_range, model.gather
        model.check_range, model.gather = False, self.gather
        try:
            with torch.autograd.set_detect_anomaly(self.settings.debug):
                yield
        finally:
            model.check_range, model.gather = before

    def update(self) -> None:
        """The whole update as device code."""
        with self.at_work():
            image, label, noise = self.inputs()
            loss, scalars = self.forward(image, label, noise)
            self.backward(loss)
            self.state.optimizer.step()
            self.state.add(loss, scalars)

    def inputs(self) -> tuple[Tensor, Tensor | None, Noise | None]:
        """Images, labels and noise of `index`: drawn for the whole batch, then this rank's share."""
        image, label = self.batches.take(self.index)
        noise = None
        if self.noisy:
            noise = Noise.draw(self.state.noise_generator, self.model.config, len(image),
                                    image.device)
            noise = noise.map(self.world.share)
        return self.world.share(image), None if label is None else self.world.share(label), noise

    def backward(self, loss: Tensor) -> None:
        """Gradients of the loss, averaged over the ranks and clipped, into `.grad`."""
        self.state.optimizer.zero_grad(set_to_none=True)
        scale = precision.loss_scale(self.settings)
        (loss * scale if scale != 1.0 else loss).backward()
        clipping = self.settings.grad_value_clip or self.settings.grad_norm_clip
        if scale == 1.0 and self.world.size == 1 and not clipping:
            return  # walking through a model's parameters takes a few percent of a small model's step
        with_gradient = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in with_gradient]
        if scale != 1.0:
            torch._foreach_div_(gradients, scale)
        self.world.average_(gradients)
        if clipping:
            clipped = rmsprop.clip_gradients(gradients, self.settings.grad_value_clip,
                                           self.settings.grad_norm_clip)
            for parameter, gradient in zip(with_gradient, clipped):
                parameter.grad = gradient

    # ---------------------------------------------------------------------------------- CUDA graph

    def warm_up(self) -> None:
        """A few updates that leave no trace: what allocates, compiles or tunes itself has done so."""
        before = Snapshot(self.state)
        for _ in range(WARM_UP):
            self.update()
        before.restore()

    def _capture(self) -> None:
        """Record the update as a graph; nothing of it is executed yet."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.warm_up()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        for generator in (self.batches.place_generator, self.state.noise_generator):
            graph.register_generator_state(generator)
        # Gradients are then allocated in the graph's own memory, and stay there.
        self.state.optimizer.zero_grad(set_to_none=True)
        try:
            with torch.cuda.graph(graph):
                self.update()
        except Exception as error:  # whatever it was, the generators may be stuck
            raise rungs.RungFailed(self.rung.name, "the step cannot be captured as a CUDA graph",
                                   error) from error
        self.graph = graph

    @property
    def in_force(self) -> str:
        """The rung on which the updates were made."""
        return rungs.name(self.forward.compiled is not None, self.graph is not None)
