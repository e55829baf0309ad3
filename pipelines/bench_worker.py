"""One side of `scae bench` in its own process: takes the names of what to time, answers with seconds.

    python -m pipelines.bench_worker SIDE {"preset": …, "batch_size": …, …}

Requests come one a line on stdin, answers go one a line to stdout as JSON; whatever a library prints
goes to stderr. SIDE is `port` or `reference`, because TensorFlow and a compiling torch do not share a
process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable

N_BATCHES = 4  # images of the synthetic data set, in batches


class Port:
    """Training step, forward pass and convolutions of the port; variants by name.

    Variants are `step`, `forward` or `convolutions`, then `eager`, `compiled` or `captured`, then for
    the first two `fast` or `plain`, joined by spaces: `step eager fast`.
    """

    def __init__(self, preset: str, params: str, batch_size: int, threads: int, device: str):
        import torch

        import port
        from pipelines import settings
        self.torch, self.port, self.batch_size = torch, port, batch_size
        torch.set_num_threads(threads)
        self.preset = settings.load_preset(preset, None, params)
        self.device = torch.device(device)
        self.prepared: dict[str, Callable[[], object]] = {}

    def describe(self) -> dict:
        """Versions, device and the path of the pixel likelihood."""
        from pipelines import environment
        from port import kernels
        model = self.port.ImageAutoencoder(self.preset.config()).to(self.device)
        return {"environment": environment.describe(self.device),
                "pixel_likelihood": kernels.describe(model.part_decoder)}

    def run(self, variant: str) -> float:
        """Seconds of one run."""
        if variant not in self.prepared:
            self.prepared[variant] = self.prepare(variant)
        # The kernel's switch is read at each call, also by a compiled function's guards.
        os.environ["SCAE_KERNELS"] = "off" if variant.endswith("plain") else "auto"
        self.synchronize()
        start = time.perf_counter()
        self.prepared[variant]()
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize()

    def prepare(self, variant: str) -> Callable[[], object]:
        """A function to time."""
        what, mode, *_ = variant.split()
        return {"step": self.step, "forward": self.forward, "convolutions": self.convolutions}[what](mode)

    def data(self):
        """Random bytes as images of the canvas' size."""
        config, generator = self.preset.config(), self.torch.Generator().manual_seed(0)
        n = N_BATCHES * self.batch_size
        images = self.torch.randint(0, 256, (n, config.channels, config.canvas, config.canvas),
                                    generator=generator, dtype=self.torch.uint8)
        labels = self.torch.randint(0, config.autoencoder.n_classes, (n,), generator=generator)
        return self.port.data.Split(images.to(self.device), labels.to(self.device))

    def model(self):
        return self.port.ImageAutoencoder(self.preset.config()).to(self.device).train()

    def step(self, mode: str) -> Callable[[], object]:
        """A whole update, as `scae train` makes it."""
        from dataclasses import replace

        from port import optimizers, resume, step
        settings = replace(self.preset.train(0)[0], batch_size=self.batch_size,
                           compile=mode == "compiled",
                           capture="always" if mode == "captured" else "never")
        model = self.model()
        batches = self.port.data.Batches(self.data(), self.batch_size, model.config.canvas, 0)
        optimizer = optimizers.make(model.named_parameters(), settings.optimizer, self.batch_size,
                                    settings.momentum, settings.weight_decay, settings.lr_factors)
        state = resume.State(model, optimizer, batches, self.torch.Generator(self.device).manual_seed(0))
        update = step.Step(state, settings)
        index = self.torch.arange(self.batch_size, device=self.device)
        return lambda: update(index, settings.lr)

    def forward(self, mode: str) -> Callable[[], object]:
        """Forward pass and loss, ready for a backward pass."""
        model, images = self.model(), self.data()
        model.check_range = False
        image = images.images[:self.batch_size].float() / 255.0
        label = images.labels[:self.batch_size]
        generator = self.torch.Generator(self.device).manual_seed(0)

        def loss(image, label, noise):
            return model(image, label, noise).loss
        run = self.torch.compile(loss) if mode == "compiled" else loss
        return lambda: run(image, label, self.port.Noise.draw(
            generator, model.config, self.batch_size, self.device))

    def convolutions(self, mode: str) -> Callable[[], object]:
        """The encoder's convolutions alone, forward and backward, channels last: no port does less."""
        cnn, layout = self.model().part_encoder.cnn, self.torch.channels_last
        image = (self.data().images[:self.batch_size].float() / 255.0).contiguous(memory_format=layout)
        for conv in cnn.conv:
            conv.weight.data = conv.weight.data.contiguous(memory_format=layout)
        parameters = list(cnn.parameters())
        run = self.torch.compile(lambda x: cnn(x)[0]) if mode == "compiled" else lambda x: cnn(x)[0]
        return lambda: self.torch.autograd.grad(run(image).sum(), parameters)

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
        from pipelines import bench_floors
        image = self.data().images[:self.batch_size].float() / 255.0
        os.environ["SCAE_KERNELS"] = "off"  # operations inside a kernel of ours are not counted
        operations = bench_floors.count_operations(self.step("eager"))
        os.environ["SCAE_KERNELS"] = "auto"
        where = bench_floors.breakdown(self.step("eager"), self.device)
        return bench_floors.floors(bench_floors.least_bytes(self.model(), image), operations,
                                   where["calls"], self.device) | {"breakdown": where}


class Reference:
    """Training step and forward pass of the reference, each one `tf.function`."""

    def __init__(self, preset: str, params: str, batch_size: int, threads: int, device: str):
        import tensorflow as tf

        import reference
        from pipelines import settings
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
        from reference import optim
        tf, config = self.tf, self.preset.config()
        model = self.reference.ImageAutoencoder(config.to_arguments(), seed=0)
        variables = model.variables_by_name
        settings = self.preset.train(0)[0]
        update = optim.RMSProp(variables, settings.lr, optim.rmsprop_epsilon(self.batch_size))
        image = tf.random.uniform((self.batch_size, config.canvas, config.canvas, config.channels))
        label = tf.random.uniform((self.batch_size,), 0, config.autoencoder.n_classes, tf.int32)
        shapes = noise_shapes(config, self.batch_size)

        def loss():
            return model(image, label, [tf.random.uniform(shape, low, low + 1.0)
                                        for shape, low in shapes]).loss

        def step():
            with tf.GradientTape() as tape:
                value = loss()
            gradients = tape.gradient(value, list(variables.values()))
            update.step(dict(zip(variables, gradients, strict=True)))
            return value
        return tf.function(step if variant.startswith("step") else loss)


def noise_shapes(config, batch_size: int) -> list[tuple[tuple[int, ...], float]]:
    """Shape and lower end of each uniform draw; other distributions cost about the same."""
    from port.noise import noise_plan
    return [((batch_size, *draw.shape), 0.0 if draw.kind == "uniform01" else -0.5)
            for draw in noise_plan(config)]


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
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
            answer = {"error": (str(error).strip().splitlines() or [type(error).__name__])[0][:300]}
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
