"""A wheel built from the tree, and an environment that holds what the wheel asks for and nothing else."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable
from pathlib import Path

from parity_tests.goldens import REPOSITORY

SOURCES = ("pyproject.toml", "setup.py", "scae_parity.py", "params.yaml", "README.md", "LICENSE", "NOTICE", "port",
           "pipelines", "parity_tests", "reference")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "fixtures", "*.egg-info")


def build_wheel(at: Path) -> Path:
    """The wheel of a copy of the tree, below the folder `at`; what is installed here builds it, without a network."""
    (at / "tree").mkdir()
    for name in SOURCES:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, at / "tree" / name, ignore=LEFT_OUT)
        else:
            shutil.copy(REPOSITORY / name, at / "tree" / name)
    build = f"import setuptools.build_meta as build; build.build_wheel({str(at / 'dist')!r})"
    done = subprocess.run([sys.executable, "-c", build], cwd=at / "tree", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = (at / "dist").glob("*.whl")
    return wheel


def environment_of(wheel: Path, extras: Iterable[str], at: Path) -> Path:
    """A virtual environment with pip and, as links, the packages that the wheel declares; the wheel is not in it.

    An import that nothing declares fails there, as it would for somebody who installs the wheel.

    Raises:
        ImportError: this Python cannot make an environment with pip in it.
    """
    venv.create(at, with_pip=True, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(at), "platbase": str(at)}))
    for name in sorted(closure(wheel, extras)):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            first = file.parts[0]
            if first != ".." and not (site / first).exists():
                (site / first).symlink_to(distribution.locate_file(first))
    return at


def closure(wheel: Path, extras: Iterable[str]) -> set[str]:
    """Names of the packages that a wheel with these extras needs, directly or not, on this machine.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed here.
    """
    from packaging.requirements import Requirement

    [root] = importlib.metadata.distributions(path=[str(wheel)])
    found: set[str] = set()
    waiting = [(root, frozenset(extras))]
    seen = set()
    while waiting:
        distribution, wanted = waiting.pop()
        for line in distribution.requires or ():
            needed = Requirement(line)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in wanted | {""}):
                key = needed.name, frozenset(needed.extras)
                if key not in seen:
                    seen.add(key)
                    found.add(needed.name)
                    waiting.append((importlib.metadata.distribution(needed.name), key[1]))
    return found
