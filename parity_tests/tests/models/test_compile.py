"""The port under torch.compile without graph breaks, in a process without TensorFlow.

TensorFlow and a compiling torch do not share a process (both bring LLVM), so each check runs in a
subprocess of its own, which also shows that neither package imports the other's framework.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

from parity_tests.goldens import REPOSITORY

IMPORTS = {"port": ("tensorflow", "keras"), "reference": ("torch",)}
# What a module may import when it is loaded (DESIGN.md, Layout); the rest only inside functions.
CORE = {"port": {"torch", "numpy", "scipy", "sklearn", "safetensors", "jaxtyping", "port"},
        "reference": {"tensorflow", "numpy", "scipy", "sklearn", "safetensors", "jaxtyping",
                      "reference"}}

COMPARE = """
import json, sys
import numpy as np, torch
import port
torch.set_num_threads(1)
def compare(arguments, backend, batch=3):
    config = port.config.from_arguments(arguments)
    dtype, side = torch.float64, config.canvas
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(batch, config.channels, side, side, generator=generator, dtype=dtype)
    label = torch.randint(0, config.autoencoder.n_classes, (batch,), generator=generator)
    noise = port.Noise.draw(generator, config, batch, dtype=dtype)
    found = []
    for compiled in (False, True):
        model = port.ImageAutoencoder(config, seed=3).double()
        run = torch.compile(model, fullgraph=True, backend=backend) if compiled else model
        result = run(image, label, noise)
        result.loss.backward()
        found.append((result.loss.detach(), {k: v.detach() for k, v in result.scalars.items()},
                      {k: p.grad for k, p in model.named_parameters()}))
    (loss, scalars, grads), (loss_c, scalars_c, grads_c) = found
    assert torch.isfinite(loss)
    assert abs(loss - loss_c) <= 1e-12 * abs(loss), (loss, loss_c)
    assert scalars.keys() == scalars_c.keys()
    for name, value in scalars.items():
        assert abs(value - scalars_c[name]) <= 1e-12 * max(1.0, abs(value)), name
    largest = max(g.abs().max() for g in grads.values() if g is not None)
    for name, grad in grads.items():
        if grad is None or grads_c[name] is None:
            # A compiled graph may return zeros where eager has no path at all.
            other = grads_c[name] if grad is None else grad
            assert other is None or not other.any(), name
            continue
        bound = 1e-11 * grad.abs().max() + 1e-14 * largest
        assert (grad - grads_c[name]).abs().max() <= bound, name
    assert not any(name.startswith("tensorflow") for name in sys.modules)
for arguments in json.loads(sys.argv[1]):
    torch._dynamo.reset()
    compare(arguments, sys.argv[2])
    print("equal")
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run Python code in a fresh process from the repository."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=REPOSITORY, timeout=900,
                          env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)


@pytest.mark.parametrize("package", IMPORTS)
def test_imports(package: str, tier: str) -> None:
    """Importing one package, every module of it, does not load the other's framework."""
    if tier == "smoke":
        pytest.skip("smoke tier: the imports are read, not run (test_core_imports)")
    code = (f"import importlib, pkgutil, sys, {package} as package\n"
            "for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):\n"
            "    importlib.import_module(module.name)\n"
            f"bad = [name for name in {IMPORTS[package]!r} if name in sys.modules]\n"
            "sys.exit(f'loaded {bad}' if bad else 0)")
    done = run(code)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("package", CORE)
def test_core_imports(package: str) -> None:
    """A module imports only the core dependencies when it is loaded."""
    for path in sorted((REPOSITORY / package).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            foreign = {name.split(".")[0] for name in names} - CORE[package] - sys.stdlib_module_names
            assert not foreign, f"{path} imports {sorted(foreign)}"


def compiled_cases(indices: list[int], backend: str) -> None:
    """Compare compiled with eager on some covering configurations, in one fresh process."""
    from parity_tests.drawn.models import SPECIAL
    done = run(COMPARE, json.dumps([SPECIAL[i].arguments for i in indices]), backend)
    assert done.returncode == 0, f"covering models {indices}, {backend}:\n{done.stderr[-3000:]}"
    assert done.stdout.count("equal") == len(indices)


def test_no_graph_breaks(tier: str) -> None:
    """Forward and backward traced as one graph (no compiler needed)."""
    if tier == "smoke":
        pytest.skip("smoke tier: eager only")
    compiled_cases([0, 5] if tier == "default" else list(range(16)), "aot_eager")


@pytest.mark.slow
def test_compiled_equals_eager(tier: str) -> None:
    """The real compiler, where there is a C++ compiler for it."""
    if tier == "smoke":
        pytest.skip("smoke tier: eager only")
    if not (shutil.which("g++") or shutil.which("clang++") or os.environ.get("CXX")):
        pytest.skip("torch.compile needs a C++ compiler on the CPU, there is none")
    compiled_cases([0] if tier == "default" else [0, 3, 7], "inductor")


COMPARE_EM = """
import sys, torch, port
from port.em import fused
assert not any(name.startswith("tensorflow") for name in sys.modules)
for program in ("paper", "official", "ibm"):
    torch._dynamo.reset()
    model = port.build(port.config.from_flat({"model": "em", "program": program, "canvas": 18, "channels": 4,
                                              "types": [2, 2, 3], "classes": 4}))
    image = torch.rand(2, 1, 18, 18, generator=torch.Generator().manual_seed(1))
    label, first, found = torch.tensor([0, 3]), [], []
    assert fused.reason_against(image.device) == sys.argv[1]
    def backend(graph, _):
        first.extend(node for node in graph.graph.nodes if "_initial_assignment" in node.args)
        return graph
    for run in (model, torch.compile(model, fullgraph=True, backend=backend)):
        model.zero_grad()
        result = run(image, label)
        result.loss.backward()
        found.append([result.loss.detach(), *(p.grad for p in model.parameters())])
    assert all(map(torch.equal, *found)), program
    # An operator for each of the three routings: what NumPy computes is never traced.
    assert len(first) == 3, (program, first)
"""


@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_matrix_capsules_are_one_graph(kernels: str, tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel and without it, bit for bit as without a compiler."""
    if tier == "smoke":
        pytest.skip("smoke tier: eager only")
    if kernels == "auto" and importlib.util.find_spec("numba") is None:
        pytest.skip("the kernel needs Numba, which is not installed")
    monkeypatch.setenv("SCAE_KERNELS", kernels)
    done = run(COMPARE_EM, "SCAE_KERNELS=off" if kernels == "off" else "")
    assert done.returncode == 0, done.stderr[-3000:]


def test_public_modules_by_their_names() -> None:
    """`import port.optim` and what pairs written for version 0.1 import."""
    code = ("import port.optim, port.convert, port.quirks, port.run_folder, port.checkpoint\n"
            "from port.optim import RMSProp\nfrom port.mapping import Row\n"
            "import port.mapping\nassert port.mapping.Row is Row\n"
            "from parity_tests.strategies import Case, Maker\nfrom parity_tests.sides import Recipe\n"
            "assert port.optim.RMSProp is RMSProp\n")
    done = run(code)
    assert done.returncode == 0, done.stderr[-2000:]
