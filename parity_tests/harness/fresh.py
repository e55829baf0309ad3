"""Python code in a process of its own, with nothing that the suite switches off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from parity_tests.goldens import REPOSITORY


def fresh(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a folder, with this tree's packages and the GPU that the suite hides.

    Args:
        code: of Python.
        folder: where it runs.
        environment: further variables.
    """
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, text=True, capture_output=True,
                          env=kept | {"PYTHONPATH": str(REPOSITORY)} | environment)
