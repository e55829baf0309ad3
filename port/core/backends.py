"""Which kernels may run, and on which threads.

One switch: the environment variable SCAE_KERNELS, `auto` by default (a kernel wherever one can run) or
`off` (plain PyTorch everywhere).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import torch

SWITCH = "SCAE_KERNELS"
CHOICES = ("auto", "off")
DTYPES = (torch.float32, torch.float64)  # of the kernels for a CPU; NumPy knows no bfloat16
INSTALLED = importlib.util.find_spec("numba") is not None
TRITON_INSTALLED = importlib.util.find_spec("triton") is not None


def choice() -> str:
    """What the switch says.

    Raises:
        ValueError: it has another value than those of `CHOICES`.
    """
    found = os.environ.get(SWITCH, "auto")
    if found not in CHOICES:
        raise ValueError(f"{SWITCH}={found}: expected {' or '.join(CHOICES)}")
    return found


def exporting() -> bool:
    """Whether a graph for other programs is made (torch.export), as Python sees it also while a compiler traces.

    Up to 2.11 the compiler takes `torch.compiler.is_exporting()` for true within every graph, and so would
    leave our kernels out of compiled training.
    """
    return torch.compiler.is_exporting()


# A compiler that traces the function calls it in place: all that torch.compiler.assume_constant_result does,
# which would import the compiler.
exporting._dynamo_marked_constant = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def switched(value: str) -> Iterator[None]:
    """The switch at another value within the block."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


def by_triton(device: torch.device) -> bool:
    """Whether a tensor there goes to the Triton kernel: on a GPU, or where its interpreter is asked for."""
    return device.type == "cuda" or (device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1")


_pools: dict[int, ThreadPoolExecutor] = {}
_pools_lock = threading.Lock()


def share(n_examples: int, work: Callable[[int, int], None]) -> None:
    """Run `work(first, last)` over all examples on as many threads as torch uses.

    Python threads and not Numba's: the kernel holds no lock, `torch.set_num_threads` rules both,
    and no second OpenMP runtime comes into the process.
    """
    n_threads = min(torch.get_num_threads(), n_examples)
    if n_threads <= 1:
        return work(0, n_examples)
    key = os.getpid()  # threads do not survive a fork
    with _pools_lock:
        if key not in _pools:
            _pools.clear()
            _pools[key] = ThreadPoolExecutor(os.cpu_count(), "scae-kernel")
    # Two parts a thread, so that one that is held up by another process delays less.
    n_parts = min(2 * n_threads, n_examples)
    cuts = [i * n_examples // n_parts for i in range(n_parts + 1)]
    left = deque(zip(cuts[:-1], cuts[1:], strict=True))

    def take() -> None:
        while True:
            try:
                first, last = left.popleft()
            except IndexError:
                return
            try:
                work(first, last)
            except BaseException:
                left.clear()
                raise

    others = [_pools[key].submit(take) for _ in range(n_threads - 1)]
    try:
        take()
    finally:
        # The caller's arrays are written until the last one has ended, whatever happened here.
        wait(others)
    for other in others:
        other.result()
