"""Examples are shared out among as many threads as torch uses, and no more."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from port.core import backends


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """How many torch uses within the test."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_all_examples_and_no_more_threads(threads: int) -> None:
    seen, running, most = [], [], []

    def work(first: int, last: int) -> None:
        running.append(threading.get_ident())
        most.append(len(set(running)))
        time.sleep(0.02)
        seen.extend(range(first, last))
        running.remove(threading.get_ident())
    backends.share(11, work)
    assert sorted(seen) == list(range(11)) and max(most) <= threads


@pytest.mark.parametrize("failing", [0, 5, 10])
def test_a_failure_is_told_when_nobody_writes_any_more(failing: int, threads: int) -> None:
    """Not even an IndexError is lost, and what the caller has given is left alone afterwards."""
    running = []

    def work(first: int, last: int) -> None:
        running.append(first)
        time.sleep(0.02)
        running.remove(first)
        if first <= failing < last:
            raise IndexError("of the work itself")
    with pytest.raises(IndexError, match="of the work itself"):
        backends.share(11, work)
    assert not running
