"""The port with its kernel for a GPU, interpreted on the CPU in one process beside the tests.

Triton and TensorFlow both bring LLVM and do not share a process, so the tests' own process asks another
one: it sends what `sides.run` takes and gets the outcome back. Everything else (rows, examples, reference,
bounds) is the tests' own. The process is a child of the tests; what goes through its pipes is pickled by
the two alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from parity_tests.goldens import REPOSITORY

# Larger tiles than a GPU's, since the interpreter's time goes by the number of operations: still two for
# the rows' canvases of 9 pixels, with pixels beyond the canvas in both; one for whole models.
TILE, WHOLE = (8, 16), (32, 32)


class TritonSide:
    """The process, from `with` to its end."""

    def __enter__(self) -> TritonSide:
        self.known: dict[bytes, Any] = {}
        environment = {k: v for k, v in os.environ.items() if k != "SCAE_KERNELS"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "parity_tests.harness.triton_side"], cwd=REPOSITORY, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, env=environment | {
                "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)})
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()

    def ask(self, request: str, *arguments: Any) -> Any:
        """What the process's function of that name returns.

        Raises:
            Exception: what it raises.
        """
        pickle.dump((request, arguments), self.process.stdin)
        self.process.stdin.flush()
        error, result = pickle.load(self.process.stdout)
        if error is not None:
            raise error from RuntimeError(result)
        return result

    @contextlib.contextmanager
    def as_port(self) -> Iterator[None]:
        """Within the block `verify` runs the port there; the reference's outcomes are kept for mutants."""
        from parity_tests.harness import sides, verify

        def run(side: str, recipe: Any, inputs: Any, attributes: Any, dtype: str, cotangents: Any,
                variables: Any) -> Any:
            arguments = (side, recipe, inputs, attributes, dtype, cotangents, variables)
            if side == "port":
                return self.ask("run", *arguments)
            key = pickle.dumps((recipe.outputs, inputs, attributes, dtype, variables))
            if key not in self.known:
                self.known[key] = sides.run(*arguments)
            return self.known[key]

        with mock.patch.object(verify, "run", run):
            yield

    @contextlib.contextmanager
    def planted(self, source: str) -> Iterator[None]:
        """Within the block the kernels are those of another source text."""
        self.ask("plant", source)
        try:
            yield
        finally:
            self.ask("plant", "")


# ------------------------------------------------------------------------------------- in the process

def run(*arguments: Any) -> Any:
    """`sides.run`."""
    from parity_tests.harness import sides
    return sides.run(*arguments)


_planted: list[tempfile.TemporaryDirectory] = []


def plant(source: str) -> None:
    """Let the launches take kernels from this text; from the package again where it is empty."""
    from port.scae import pixel_kernel_triton, pixel_launch
    pixel_launch.programs = pixel_kernel_triton
    if source:
        # Triton reads the text of a kernel from its file when it is first called.
        _planted.append(tempfile.TemporaryDirectory())
        path = Path(_planted[-1].name, "planted.py")
        path.write_text(source)
        spec = importlib.util.spec_from_file_location("port.planted", path)
        pixel_launch.programs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(pixel_launch.programs)


def recording(variables: dict, *arguments: Any) -> None:
    """`test_fast_paths.test_recording` of a model with these variables."""
    from parity_tests.goldens import verify_models
    from parity_tests.tests.ops import test_fast_paths
    from port.scae import pixel_launch
    with (mock.patch.object(verify_models, "variables_of", lambda golden: variables),
          mock.patch.object(pixel_launch, "TILE", WHOLE)):
        test_fast_paths.test_recording(*arguments)


def checks(name: str) -> None:
    """One of `CHECKS`, with the model of `test_fast_paths.COMPARE`."""
    from parity_tests.tests.ops import test_fast_paths
    from port.scae import pixel_launch
    with mock.patch.object(pixel_launch, "TILE", WHOLE):
        exec(compile(test_fast_paths.COMPARE + CHECKS[name], name, "exec"), {"__name__": name})


CHECKS = {
    # What is printed, and that the plain path gives the same training step.
    "described": """
import os
assert pixel_likelihood.describe(model) == "fused GPU kernel (Triton), by its interpreter"
fast = gradients(model)
os.environ["SCAE_KERNELS"] = "off"
try:
    close(fast, gradients(model), 400)
finally:
    del os.environ["SCAE_KERNELS"]
""",
    # The likelihood as one graph, forward and backward; what a trial says is a constant to the compiler.
    "one graph": """
decoder = model.part_decoder
pose = (torch.eye(3)[:2].flatten().repeat(3, 6, 1) + 0.1).requires_grad_()
def gradients(log_prob):
    value = log_prob(image[:3], pose, torch.full((3, 6), 0.5), torch.sigmoid(decoder.templates))
    return torch.cat([g.flatten() for g in torch.autograd.grad(value.square().sum(), (
        pose, decoder.templates, decoder.templates_alpha, decoder.bg_value, decoder.bg_mixing_logit))])
compiled = torch.compile(decoder.log_prob, fullgraph=True, backend="aot_eager")
close(gradients(compiled), gradients(decoder.log_prob), 40)
""",
}


def main() -> None:
    """Answer until the other end is closed."""
    sys.modules["tensorflow"] = None  # the compiler looks for it, and would load it
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    from port.scae import pixel_launch
    pixel_launch.TILE = TILE
    while True:
        try:
            request, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (None, {"run": run, "plant": plant, "recording": recording,
                             "checks": checks}[request](*arguments))
        except Exception as error:
            kind = error if type(error).__module__.startswith(("builtins", "parity_tests")) else \
                RuntimeError(f"{type(error).__name__}: {error}")
            answer = (kind, traceback.format_exc())
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
