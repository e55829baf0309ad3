"""One side of `scae bench` in its own process: takes the names of what to time, answers with seconds.

    python -m pipelines.bench.worker SIDE {"preset": …, "batch_size": …, …}

Requests come one a line on stdin, answers go one a line to stdout as JSON; whatever a library prints
goes to stderr. SIDE is `port` or `reference`, because TensorFlow and a compiling torch do not share a
process. After a step that could not be made on its rung the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

# Kind of the configuration → class of the reference that is timed beside the port's model of that kind.
REFERENCES = {"scae": "ImageAutoencoder", "ocae": "ImageAutoencoder", "hierarchy": "HierarchyAutoencoder",
              "pcae": "PartAutoencoder", "constellation": "ConstellationAutoencoder"}


class Port:
    """Training step, forward pass and convolutions of the port; variants by name.

    Variants are `step` or `forward`, a rung of `port.training.rungs` and `fast` or `plain`, joined by
    spaces: `step compiled_captured fast`; or `convolutions` and `eager` or `compiled`. All run in the
    precision that the preset trains in.
    """

    def __init__(self, preset: str, params: str, batch_size: int, threads: int, device: str):
        import torch

        from pipelines import train as stage
        from pipelines.support import settings
        from port.training import precision
        self.torch, self.batch_size = torch, batch_size
        torch.set_num_threads(threads)
        self.preset = stage.without_epochs(settings.load_preset(preset, None, params))
        self.device = torch.device(device)
        self.wanted = replace(self.preset.train(0)[0], batch_size=batch_size)
        # As long as the process lasts.
        self.stack = contextlib.ExitStack()
        self.stack.enter_context(precision.mode(self.wanted, self.device))
        self.runs: dict[tuple[str, str], object] = {}
        self.prepared: dict[str, Callable[[], object]] = {}

    def describe(self) -> dict:
        """Versions, device, precision and the path of the pixel likelihood."""
        from pipelines.support import environment
        from port.scae import pixel_likelihood
        return {"environment": environment.describe(self.device, amp=self.wanted.amp),
                "pixel_likelihood": pixel_likelihood.describe(self.model())}

    def run(self, variant: str) -> float:
        """Seconds of one run.

        Raises:
            RungFailed: this process must end.
        """
        # The kernel's switch is read at each call, also by a compiled function's guards.
        os.environ["SCAE_KERNELS"] = "off" if variant.endswith("plain") else "auto"
        if variant not in self.prepared:
            self.prepared[variant] = self.prepare(*variant.split())
        self.synchronize()
        start = time.perf_counter()
        self.prepared[variant]()
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def prepare(self, what: str, rung: str, path: str = "fast") -> Callable[[], object]:
        """A function to time."""
        made = {"step": self.step, "forward": self.forward, "convolutions": self.convolutions}[what]
        return made(rung, path)

    def model(self):
        """A model of the preset, in the precision that it trains in."""
        import port
        from port.training import precision
        model = port.build(self.preset.config(), seed=0).to(self.device).train()
        self.stack.enter_context(precision.mixed(model, self.wanted))
        return model

    def run_on(self, rung: str, path: str):
        """A run as `scae train` starts it; the step and the forward pass of a rung share one."""
        from pipelines.bench.data import dataset
        from port.training import loop as train
        if (rung, path) not in self.runs:
            self.runs[rung, path] = train.Run(
                self.model(), dataset(self.preset, self.batch_size, self.device),
                replace(self.wanted, rung=rung))
        return self.runs[rung, path]

    def step(self, rung: str, path: str) -> Callable[[], object]:
        """A whole update, as `scae train` makes it."""
        run = self.run_on(rung, path)
        return lambda: run.step(run.state.batches.next_index(), self.wanted.lr)

    def forward(self, rung: str, path: str) -> Callable[[], object]:
        """Examples, forward pass and loss, ready for a backward pass."""
        step = self.run_on(rung, path).step
        step.at_step()

        def once() -> object:
            with step.at_work():
                return step.forward(*step.inputs())
        return once

    def convolutions(self, rung: str, path: str) -> Callable[[], object]:
        """The encoder's convolutions alone, forward and backward, channels last: no port does less."""
        model, layout = self.model(), self.torch.channels_last
        cnn = model.part_encoder.cnn
        image = self.examples().contiguous(memory_format=layout)
        for conv in cnn.conv:
            conv.weight.data = conv.weight.data.contiguous(memory_format=layout)
        parameters = list(cnn.parameters())
        run = self.torch.compile(lambda x: cnn(x)[0]) if rung == "compiled" else lambda x: cnn(x)[0]
        return lambda: self.torch.autograd.grad(run(image).sum(), parameters)

    def examples(self):
        """Canvases of a batch, or points."""
        config, generator = self.preset.config(), self.torch.Generator().manual_seed(0)
        shape = (config.n_points, 2) if config.kind == "constellation" else (
            config.channels, config.canvas, config.canvas)
        return self.torch.rand(self.batch_size, *shape, generator=generator).to(self.device)

    def memory(self, variant: str, steps: int) -> dict:
        """Peak resident (on a GPU also allocated) memory of this process after some training steps."""
        for _ in range(steps):
            self.run(variant)
        peak = {"memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0}
        if self.device.type == "cuda":
            peak["device_memory_mb"] = self.torch.cuda.max_memory_allocated() / 2**20
        return peak

    def floors(self) -> dict:
        """Floors of a training step on this device, and where an eager step's time goes."""
        from pipelines.bench import budget
        from pipelines.bench import floors as bench_floors
        os.environ["SCAE_KERNELS"] = "off"  # operations inside a kernel of ours are not counted
        operations = bench_floors.count_operations(self.step("eager", "plain"))
        os.environ["SCAE_KERNELS"] = "auto"
        where = bench_floors.breakdown(self.step("eager", "fast"), self.device)
        run = self.run_on("eager", "fast")
        return bench_floors.floors(bench_floors.least_bytes(self.model(), self.examples()), operations,
                                   where["calls"], self.device) | {
            "breakdown": where, "budget": budget.measure(run.step, run.state.optimizer)}


class Reference:
    """Training step and forward pass of the reference, each one `tf.function`."""

    def __init__(self, preset: str, params: str, batch_size: int, threads: int, device: str):
        import tensorflow as tf

        import reference
        from pipelines.support import settings
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self.tf, self.reference, self.batch_size = tf, reference, batch_size
        self.preset = settings.load_preset(preset, None, params)
        self.prepared: dict[str, Callable[[], object]] = {}

    def describe(self) -> dict:
        return {"tensorflow": self.tf.__version__}

    def run(self, variant: str) -> float:
        """Seconds of one run."""
        if variant not in self.prepared:
            self.prepared[variant] = self.prepare(variant)
        start = time.perf_counter()
        self.prepared[variant]().numpy()
        return time.perf_counter() - start

    def prepare(self, variant: str) -> Callable[[], object]:
        """A function to time; it draws its noise, as the port's does."""
        from reference.core import rmsprop
        tf, config = self.tf, self.preset.config()
        model, given = self.model(), self.examples()
        # Frozen parts have no gradient, and take no part in an update.
        variables = {name: variable for name, variable in model.variables_by_name.items() if variable.trainable}
        settings = self.preset.train(0)[0]
        update = rmsprop.RMSProp(variables, settings.lr, rmsprop.rmsprop_epsilon(self.batch_size))
        shapes = noise_shapes(config, self.batch_size)

        def loss():
            return model(*given, [tf.random.uniform(shape, low, low + 1.0)
                                  for shape, low in shapes]).loss

        def step():
            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, list(variables.values()))
            update.step(dict(zip(variables, gradients, strict=True)))
            return value
        return tf.function(step if variant.startswith("step") else loss)

    def model(self):
        """The reference's model of the preset's kind."""
        config = self.preset.config()
        return getattr(self.reference, REFERENCES[config.kind])(config.to_arguments(), seed=0)

    def examples(self) -> tuple:
        """Images and labels of a batch, or points that are all there."""
        tf, config, n = self.tf, self.preset.config(), self.batch_size
        if config.kind == "constellation":
            return tf.random.uniform((n, config.n_points, 2), -1.0, 1.0), tf.ones((n, config.n_points))
        image = tf.random.uniform((n, config.canvas, config.canvas, config.channels))
        if config.kind == "pcae":
            return image, None
        return image, tf.random.uniform((n,), 0, config.autoencoder.n_classes, tf.int32)


def noise_shapes(config, batch_size: int) -> list[tuple[tuple[int, ...], float]]:
    """Shape and lower end of each uniform draw; other distributions cost about the same."""
    from port.scae.noise import noise_plan
    return [((batch_size, *draw.shape), 0.0 if draw.kind == "uniform01" else -0.5)
            for draw in noise_plan(config)]


def main() -> int:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    if sys.argv[1] == "reference":
        # The presets are read through modules that import torch, whose optimizers would load Triton.
        sys.modules["triton"] = None
    side = {"port": Port, "reference": Reference}[sys.argv[1]](**json.loads(sys.argv[2]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": getattr(side, request[0])(*request[1:])}
        except Exception as error:  # whatever it is, the other variants go on
            kind = type(error).__name__
            answer = {"kind": kind, "error": (str(error).strip().splitlines() or [kind])[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)
        if answer.get("kind") == "RungFailed":
            return 3  # a generator may be stuck: another process goes on
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
