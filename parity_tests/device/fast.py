"""Every faster path beside the plain one on the same inputs: kernels, warp, compiled and captured steps.

The plain path in float64 is the truth, in float32 the plain path says what float32 loses; the bounds are
those of `tolerances`.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from parity_tests.device.checks import Check, Skipped
from parity_tests.goldens import REPOSITORY
from parity_tests.harness import tolerances
from parity_tests.harness.compare import Where, check
from port.core import backends, warp, warp_hat
from port.scae import config as config_schema
from port.scae import part_decoder, pixel_likelihood
from port.training import rungs

IDENTITY = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
# Where the pixel likelihood has edges: template pixels met exactly, beyond the canvas, thin, singular.
POSES = {
    "integer coordinates": [IDENTITY, [0.5, 0, 0, 0, 0.5, 0], [0.5, 0, 0.25, 0, 0.5, -0.25]],
    "beyond the canvas": [[0.3, 0, 3, 0, 0.3, 0], [0.3, 0, 0, 0, 0.3, -3], [1, 0, 1.4, 0, 1, 0.2]],
    "thin and sheared": [[1e-2, 0, 0.1, 0, 1, 0], [1, 0.3, 0, 0.4, 1e-2, 0.2], [0, 0.7, 0.1, 0.6, 0, 0]],
    "singular": [[1, 2, 0, 2, 4, 1], [0.0] * 6, IDENTITY]}
PRESENCES = {"present": None, "one absent": [0.5, 0.0, 0.9], "barely present": [1e-15, 0.4, 1e-17]}
Run = Callable[[dict[str, Tensor]], Tensor]


def checks() -> list[Check]:
    """Kernels and warp in both dtypes, and each rung of the training step in a process of its own."""
    found = []
    for dtype in ("float64", "float32"):
        found += [Check(f"fast/pixel likelihood, {name}, {presence}, {dtype}",
                        functools.partial(_likelihood, name, presence, dtype))
                  for name, presence in (*((name, "present") for name in (*POSES, "drawn")),
                                         *(("drawn", name) for name in PRESENCES if name != "present"))]
        found += [Check(f"fast/warp by hat weights, {name}, {dtype}", functools.partial(_warp, name, dtype))
                  for name in ("drawn", "cell edges")]
    found.append(Check("fast/a traced step holds the kernel", _traced))
    return found + [Check(f"rungs/{name}", functools.partial(_rung, name), short=False)
                    for name in rungs.RUNGS if name != "eager"]


# ------------------------------------------------------------------------------------------- two paths

def beside(name: str, fast: Run, plain: Run, inputs: dict[str, np.ndarray], constants: tuple[str, ...],
           dtype: str, device: str) -> float:
    """Values and gradients of Σ out·cotangent by both paths; the worst margin."""
    def results(run: Run, kind: str) -> dict[str, np.ndarray]:
        x = {key: torch.tensor(value.astype(kind), device=device, requires_grad=key not in constants)
             for key, value in inputs.items()}
        out = run(x)
        cotangent = np.random.default_rng(1).standard_normal(tuple(out.shape)).astype(dtype)
        (out * torch.tensor(cotangent.astype(kind), device=device)).sum().backward()
        found = {"out": out, "cotangent": torch.tensor(cotangent)} | {
            f"grad/{key}": value.grad if value.grad is not None else torch.zeros_like(value)
            for key, value in x.items() if key not in constants}
        return {key: value.detach().cpu().numpy() for key, value in found.items()}

    # float32 values, so that both dtypes have the same inputs.
    inputs = {key: value.astype(np.float32).astype(np.float64) for key, value in inputs.items()}
    truth, ours = results(plain, "float64"), results(fast, dtype)
    own = truth if dtype == "float64" else results(plain, dtype)
    largest = tolerances.scale(truth["cotangent"], *(v for k, v in truth.items() if k.startswith("grad/")))
    worst = 0.0
    for key, expected in truth.items():
        if key == "cotangent":
            continue
        if dtype == "float64":
            bound = tolerances.forward64(expected) if key == "out" else \
                tolerances.gradient64(expected, largest)
        else:
            bound = tolerances.forward32(expected, own[key]) if key == "out" else \
                tolerances.gradient32(expected, own[key], largest)
        place = Where(name, key, f"fast path {dtype} on {device}", "the plain path",
                      f'python -m parity_tests.device --only "{name}"')
        worst = max(worst, check(place, ours[key], expected, bound, dtype))
    return worst


def _likelihood(name: str, presence: str, dtype: str, device: str) -> float:
    """The pixel likelihood of a part decoder, by the kernel and by plain PyTorch."""
    rng = np.random.default_rng(7)
    batch, canvas, size, channels = 3, 9, (5, 3), 2
    pose = np.array(POSES.get(name, rng.normal(size=(3, 6)) * 0.3 + IDENTITY), np.float64)
    parts = len(pose)
    settings = config_schema.PartDecoder(
        template_size=size, n_channels=channels, colorize_templates=True, use_alpha_channel=True,
        template_nonlin="sigmoid", color_nonlin="sigmoid", learn_output_scale=False)
    decoder = part_decoder.PartDecoder(canvas, parts, 3, settings, np.random.default_rng(0))
    kind = torch.float64
    state = {key: torch.tensor(rng.standard_normal(tuple(value.shape)).astype(np.float32), dtype=kind)
             for key, value in decoder.named_parameters()}
    inputs = {"pose": np.repeat(pose[None], batch, 0), "feature": rng.standard_normal((batch, parts, 3)),
              "target": rng.uniform(size=(batch, channels, canvas, canvas))}
    given = PRESENCES[presence]
    inputs["presence"] = np.repeat(np.array([given or [0.5, 0.7, 0.9]]), batch, 0)
    inputs |= {f"weight/{key}": value.numpy() for key, value in state.items()}

    def run(x: dict[str, Tensor], choice: str) -> Tensor:
        weights = {key.removeprefix("weight/"): value for key, value in x.items()
                   if key.startswith("weight/")}
        with backends.switched(choice):
            made = decoder.to(device=device, dtype=x["pose"].dtype)
            if choice == "auto" and "plain" in pixel_likelihood.describe(made):
                raise Skipped(f"no kernel here: {pixel_likelihood.describe(made)}")
            return torch.func.functional_call(
                _LogProb(made), {f"decoder.{name}": value for name, value in weights.items()},
                (x["target"], x["pose"], x["presence"], x["feature"]))
    return beside(f"fast/pixel likelihood, {name}, {presence}, {dtype}", lambda x: run(x, "auto"),
                  lambda x: run(x, "off"), inputs, ("target",), dtype, device)


def _traced(device: str) -> float:
    """What torch.compile traces calls the kernel, as the step without it does.

    On torch 2.11 every traced graph passed for one that is exported, and compiled training went on without its
    kernels and said otherwise; no value shows that, only the graph.
    """
    settings = config_schema.PartDecoder(
        template_size=(5, 3), n_channels=2, colorize_templates=True, use_alpha_channel=True,
        template_nonlin="sigmoid", color_nonlin="sigmoid", learn_output_scale=False)
    decoder = part_decoder.PartDecoder(9, 3, 3, settings, np.random.default_rng(0)).to(device)
    if "plain" in pixel_likelihood.describe(decoder):
        raise Skipped(f"no kernel here: {pixel_likelihood.describe(decoder)}")
    called: list[str] = []

    def only_look(module: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        called.extend(str(node.target) for node in module.graph.nodes)
        return module.forward

    torch._dynamo.reset()
    pose = torch.tensor([IDENTITY] * 3, device=device).expand(2, -1, -1)
    torch.compile(_LogProb(decoder), backend=only_look)(
        torch.rand(2, 2, 9, 9, device=device), pose, torch.rand(2, 3, device=device),
        torch.rand(2, 3, 3, device=device))
    if not any("pixel_likelihood" in name for name in called):
        raise AssertionError(f"the traced graph has {len(called)} nodes and none of them is the kernel")
    return 0.0


class _LogProb(torch.nn.Module):
    """The likelihood as a forward pass, so that weights can be handed in."""

    def __init__(self, decoder: part_decoder.PartDecoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, target: Tensor, pose: Tensor, presence: Tensor, feature: Tensor) -> Tensor:
        return self.decoder.log_prob(target, pose, presence, self.decoder.make_templates(feature))


def _warp(name: str, dtype: str, device: str) -> float:
    """The sampler as two products beside the gather."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-2, 7, (4, 50, 2))
    points = np.floor(points) + rng.uniform(0.02, 0.98, points.shape) if name == "drawn" \
        else np.round(points)
    return beside(f"fast/warp by hat weights, {name}, {dtype}", lambda x: warp_hat.resampler(**x),
                  lambda x: warp.resampler(**x),
                  {"data": rng.standard_normal((4, 2, 5, 6)), "warp": points}, (), dtype, device)


# --------------------------------------------------------------------------------------------- rungs

TRAIN = """
import json, sys
import torch
from parity_tests.harness import runs
from port.training import loop
rung, device, path = sys.argv[1:]
torch.set_num_threads(1)
model = runs.model().to(device)
done = loop.train(model, runs.dataset().to(device), runs.settings(steps=6, log_every=1, rung=rung))
with open(path, "w") as file:
    json.dump({"rung": done.rung, "rows": runs.rows(done)}, file)
"""


def _rung(rung: str, device: str) -> float:
    """Six steps on a rung beside six eager ones: every scalar of every step."""
    if rungs.RUNGS[rung].captured and not device.startswith("cuda"):
        raise Skipped(f"{rung} needs a GPU")
    expected, found = (_rows(name, device) for name in ("eager", rung))
    worst = 0.0
    for one, other in zip(expected, found, strict=True):
        for name, value in one.items():
            place = Where(f"rungs/{rung}", f"{name} of step {one['step']}", f"{rung} on {device}", "eager",
                          f"python -m parity_tests.device --only rungs/{rung}")
            bound = tolerances.STEP_FLOAT32["loss"] * max(1.0, abs(value))
            worst = max(worst, check(place, np.float64(other[name]), np.float64(value), bound))
    return worst


def _rows(rung: str, device: str) -> list[dict[str, float]]:
    """The history of a small run; in a process of its own, since a capture that fails spoils one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.json"
        done = subprocess.run([sys.executable, "-c", TRAIN, rung, device, str(path)], cwd=REPOSITORY,
                              capture_output=True, text=True, timeout=300)
        if done.returncode:
            raise RuntimeError(f"rung {rung} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        left = json.loads(path.read_text())
    if left["rung"] != rung:
        raise Skipped(f"{rung} is not possible here; it ran {left['rung']}")
    return left["rows"]
