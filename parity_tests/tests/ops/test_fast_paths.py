"""The faster paths of the port under the same checks as the plain ones.

`registry_fast` holds the fused kernel to the reference's values and gradients, edges included; whole
models and recordings run once more without taps, which is how training runs them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys

import hypothesis
import pytest

from parity_tests import goldens, registry
from parity_tests.goldens import REPOSITORY, Golden
from parity_tests.goldens.verify_models import arguments_of, verify_without_taps
from parity_tests.harness import every_family, models, recorder
from parity_tests.harness.strategies import Case, cases
from parity_tests.harness.verify import verify
from parity_tests.registry import OpCase

ROWS = registry.fast_rows()
SPECIAL = [(row, name, case) for row in ROWS for name, case in row.special]
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None,
                                 reason="the kernel needs Numba, which is not installed")


def skip_without_kernel(row: OpCase) -> None:
    """Only the kernel needs Numba."""
    if "scae.pixel_forward" in row.judges and importlib.util.find_spec("numba") is None:
        pytest.skip("the kernel needs Numba, which is not installed")


@pytest.mark.parametrize("row", ROWS, ids=[row.op for row in ROWS])
def test_op(row: OpCase, request: pytest.FixtureRequest) -> None:
    """Random examples."""
    skip_without_kernel(row)
    tier = request.config.getoption("--tier")
    reproduce = f'python -m pytest "parity_tests/tests/ops/test_fast_paths.py::test_op[{row.op}]" --tier={tier}'

    @hypothesis.given(cases(row.draw, row.op))
    def parity(case: Case) -> None:
        recorder.example(row.op, case.inputs)
        verify(row, case, reproduce)

    with recorder.test_of(row.op):
        parity()


@pytest.mark.parametrize(("row", "name", "case"), SPECIAL,
                         ids=[f"{row.op}-{name}" for row, name, _ in SPECIAL])
def test_special(row: OpCase, name: str, case: Case) -> None:
    """Ties, footprints off the canvas, singular poses, absent parts, one named case each."""
    skip_without_kernel(row)
    with recorder.test_of(row.op):
        verify(row, case, f'python -m pytest "parity_tests/tests/ops/test_fast_paths.py::test_special'
               f'[{row.op}-{name}]"', strict=True)


RUNS = [(golden, variant, dtype) for golden in goldens.models() for variant in ("nonoise", "noise")
        for dtype, infix in (("float64", "64"), ("float32", ""))
        if golden.has(f"grads{infix}_{variant}.npz") or golden.has(f"forward{infix}_{variant}.npz")]


@needs_numba
@pytest.mark.golden
@pytest.mark.parametrize("run", RUNS, ids=[f"{g.name}-{v}-{d}" for g, v, d in RUNS])
def test_recording(run: tuple[Golden, str, str], tier: str) -> None:
    """Loss, scalars and every gradient of a recorded model as training runs it: without taps."""
    golden, variant, dtype = run
    if tier == "smoke" and (dtype == "float32" or not golden.folder.is_relative_to(goldens.HERE)):
        pytest.skip("smoke tier: committed fixtures in float64")
    model = models.build("port", arguments_of(golden), dtype)
    against = importlib.import_module("port.scae.pixel_likelihood").describe(model)
    if "plain" in against:
        pytest.skip(f"no faster path for this configuration: {against}")
    verify_without_taps(golden, variant, dtype)


@needs_numba
@pytest.mark.parametrize("kind", ["scae", "pcae"])
@pytest.mark.parametrize(("setting", "reason"), [
    ({}, None), ({"inverse_space_transform": False}, "poses from canvas to template"),
    ({"mse_weight": 0.5}, "the loss needs the mean picture"), ({"use_alpha_channel": False}, "templates without alpha"),
])
def test_what_is_said_is_what_runs(kind: str, setting: dict, reason: str | None,
                                   monkeypatch: pytest.MonkeyPatch) -> None:
    """The line in a log names the kernel where a forward pass calls it, and the reason where it does not."""
    from port.scae import pixel_likelihood
    calls = []
    original = pixel_likelihood.pixel_log_prob
    monkeypatch.setattr(pixel_likelihood, "pixel_log_prob", lambda *given: calls.append(1) or original(*given))
    model = every_family.model(kind, **{"use_alpha_channel": True} | setting)
    model(every_family.examples(model, 2))
    said = pixel_likelihood.describe(model)
    assert said == (f"plain PyTorch ({reason})" if reason else "fused CPU kernel (Numba)")
    assert len(calls) == (reason is None)


COMPARE = """
import sys, torch, port
from port.scae import pixel_likelihood
config = port.config.from_flat({"canvas_size": 20, "n_part_caps": 6, "n_obj_caps": 4, "template_size": 5,
    "n_part_special_features": 3, "colorize_templates": True, "use_alpha_channel": True,
    "template_nonlin": "sigmoid", "color_nonlin": "sigmoid", "output_channels": [4, 4],
    "strides": [2, 1], "n_hiddens": 8, "n_output_dims": 8, "n_obj_caps_params": 4})
model = port.ImageAutoencoder(config, seed=3)
image = torch.rand(7, 1, 20, 20, generator=torch.Generator().manual_seed(1))
def gradients(run):
    model.zero_grad()
    loss = run(image).loss
    loss.backward()
    # A compiled graph may return zeros where eager has no path at all.
    return torch.cat([loss.detach()[None], *(torch.zeros(p.numel()) if p.grad is None
                                             else p.grad.flatten() for p in model.parameters())])
def close(one, other, places):
    assert (one - other).abs().max() <= places * 2.0 ** -23 * other.abs().max(), (one - other).abs().max()
"""
CHECKS = {
    # The examples are shared out among threads: nothing may depend on how.
    "threads": """
assert "Numba" in pixel_likelihood.describe(model)
found = []
for threads in (1, 2, 3, 1):
    torch.set_num_threads(threads)
    target = torch.rand(7, 1, 20, 20, generator=torch.Generator().manual_seed(2))
    pose = torch.eye(3)[:2].flatten().repeat(7, 6, 1) * torch.rand(7, 6, 1, generator=torch.Generator()
        .manual_seed(4)) + 0.1
    pose.requires_grad_()
    decoder = model.part_decoder
    decoder.zero_grad()
    value = decoder.log_prob(target, pose, torch.full((7, 6), 0.5), torch.sigmoid(decoder.templates))
    value.square().sum().backward()
    found.append([value.detach(), pose.grad, *(p.grad for p in decoder.parameters()
                                               if p.grad is not None)])
assert len(found[0]) > 3
assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
""",
    # The same code path that says why it is off, and the plain one gives the same training step.
    "switch": """
import os
fast = gradients(model)
os.environ["SCAE_KERNELS"] = "off"
assert "SCAE_KERNELS=off" in pixel_likelihood.describe(model)
torch.ops.scae.pixel_likelihood = None
close(gradients(model), fast, 400)
os.environ["SCAE_KERNELS"] = "on"
try:
    model(image)
except ValueError as error:
    assert "SCAE_KERNELS=on: expected auto or off" in str(error)
else:
    raise AssertionError("a wrong value of the switch was taken")
""",
    # Numba hidden: every module imports, the plain path runs, and says so.
    "without Numba": """
assert "Numba is not installed" in pixel_likelihood.describe(model)
from port.scae import pixel_backward, pixel_components, pixel_forward
assert pixel_components.numba is None
gradients(model)
assert "numba" not in sys.modules or sys.modules["numba"] is None
""",
    # One graph with the kernel inside, forward and backward.
    "one graph": """
compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
close(gradients(compiled), gradients(model), 400)
""",
}
HIDE_NUMBA = """
import importlib.util, sys
sys.modules["numba"] = None
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == "numba" else found(name, *a)
"""


@pytest.mark.parametrize("check_name", CHECKS)
def test_in_its_own_process(check_name: str, tier: str) -> None:
    """Threads, the switch, no Numba, torch.compile: processes without TensorFlow."""
    if tier == "smoke":
        pytest.skip("smoke tier: no further processes")
    hidden = check_name == "without Numba"
    if not hidden and importlib.util.find_spec("numba") is None:
        pytest.skip("the kernel needs Numba, which is not installed")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTEST_ADDOPTS", "SCAE_KERNELS")}
    code = (HIDE_NUMBA if hidden else "") + COMPARE + CHECKS[check_name]
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=600, text=True,
                          env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
