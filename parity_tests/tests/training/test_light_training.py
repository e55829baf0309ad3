"""What a run on a CPU does without: fresh pages in every step, and the compiler where nothing is compiled."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from parity_tests.goldens import REPOSITORY
from port.core import allocator

LARGE = 16 * 2**20  # bytes
PAGE = resource.getpagesize()


def fresh_pages(times: int = 20) -> int:
    """Pages that the system hands out while a large tensor is made, filled and freed some times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        torch.ones(LARGE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


@pytest.fixture(autouse=True)
def nobody_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the allocator in the environment."""
    for name in allocator.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    if not allocator.can_keep():
        pytest.skip("another C library than glibc")


def test_freed_memory_is_used_again() -> None:
    """The first few may still find a place of their own; 20 take less than one takes anew."""
    with allocator.kept("cpu") as held:
        fresh_pages()
        with allocator.kept("cpu"):
            pass
        inside = fresh_pages()
    assert held
    assert inside < LARGE // PAGE // 2, "also once a block within the block has ended"


def test_at_the_end_it_goes_back_to_the_system() -> None:
    with allocator.kept("cpu"):
        many = [torch.ones(LARGE, dtype=torch.uint8) for _ in range(8)]
        del many
        before = resident()
    assert before - resident() > 4 * LARGE


@pytest.mark.parametrize("name", allocator.ENVIRONMENT)
def test_who_has_set_the_allocator_keeps_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    with allocator.kept("cpu") as held:
        assert not held


def test_a_gpu_needs_none() -> None:
    with allocator.kept("cuda") as held:
        assert not held


def test_an_eager_run_loads_no_compiler() -> None:
    """It would be a second and 150 MB: by the optimizer, by the switch of determinism and by the kernels."""
    code = textwrap.dedent("""
        import sys
        from parity_tests.harness import runs
        runs.run()
        print(sorted(name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules))
    """)
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
