"""What a result was measured with: versions, device, threads, TF32, revision."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

from pipelines.support.values import BadInput

PACKAGES = ("torch", "tensorflow", "numpy", "scipy", "scikit-learn", "safetensors", "torchvision",
            "dvc", "dvclive", "matplotlib", "numba")


def describe(device: torch.device | str = "cpu", **more) -> dict:
    """Versions, device and revision as plain values; `more` (the seed, say) is added."""
    device = torch.device(device)
    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": versions(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "threads": torch.get_num_threads(),
        "tf32": {"matmul": torch.backends.cuda.matmul.allow_tf32,
                 "convolution": torch.backends.cudnn.allow_tf32},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "revision": revision(),
    }
    if device.type == "cuda":
        facts["cuda"] = torch.version.cuda
    return facts | more


def versions() -> dict[str, str]:
    """Versions of the packages that are installed, without importing them."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> str:
    """Short git revision, with `+` where tracked files other than results and lock files differ from it.

    What the variable SCAE_REVISION says comes first: a copy of the tree does not know its own, and may be laid over a
    checkout of another. `unknown` without either, also for an installed copy within somebody else's repository.
    """
    if told := os.environ.get("SCAE_REVISION"):
        return told

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results", ":!dvc.lock",
                      ":!pipelines/dvc.lock")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def is_here(revision: str) -> bool | None:
    """Whether a revision, with or without `+`, is a commit of this repository; None where that cannot be known."""
    try:
        if git("rev-parse", "--is-shallow-repository") != "false":
            return None
        found = git("rev-parse", "--verify", "--quiet", "--end-of-options", revision.rstrip("+") + "^{commit}",
                    check=False)
        return bool(found)
    except (OSError, subprocess.SubprocessError):
        return None


def git(*arguments: str, check: bool = True) -> str:
    """What git says in the repository of this file.

    Raises:
        OSError: there is no git.
        SubprocessError: it fails, or this file is none of its repository's.
    """
    return _git(_root(Path(__file__).resolve()), *arguments, check=check)


@functools.cache
def _root(here: Path) -> Path:
    """The top of the repository that tracks this file; no other one is asked."""
    root = here.parents[len(__name__.split(".")) - 1]
    _git(root, "ls-files", "--error-unmatch", here.relative_to(root).as_posix())
    return root


def _git(root: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(("git", *arguments), check=check, capture_output=True, text=True, cwd=root, timeout=20)
    return done.stdout.strip()


def processor() -> str:
    """Model name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one.

    Of several GPUs it is torch's current one, to which streams, captured steps and processes of their own go too.

    Raises:
        BadInput: an unknown name, or a GPU that is not there or not the current one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise BadInput(f"unknown device {name!r}; use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise BadInput(f"device {name!r} is not supported; use auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {name!r} asked for, but this torch sees no GPU; use cpu")
    # Asked only of a number: the answer starts the GPU in this process, which may only be about to start others.
    if device.index is not None and device.type == "cuda" and device.index != torch.cuda.current_device():
        raise BadInput(f"device {name!r} is not the current GPU; use cuda, and choose one of several by "
                       f"CUDA_VISIBLE_DEVICES={device.index}")
    return device
