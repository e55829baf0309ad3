"""What this suite needs of Hypothesis and has no public form there. Tried with version 6.170.15.

`tests/suite/test_hypothesis_internals.py` says when another version breaks it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hypothesis import core
from hypothesis.control import current_build_context
from hypothesis.errors import StopTest, UnsatisfiedAssumption
from hypothesis.internal.conjecture.data import Status


@contextlib.contextmanager
def refusals(count: Callable[[], None]) -> Iterator[None]:
    """Call `count` for an example that is refused while it is drawn, in the block.

    What the engine itself breaks off (a prefix it does not want to complete) was no example.
    """
    try:
        yield
    except (StopTest, UnsatisfiedAssumption):
        data = current_build_context().data
        if not (data.frozen and data.status is Status.OVERRUN):
            count()
        raise


def force_seed(seed: int) -> None:
    """As `--hypothesis-seed`, once pytest has read its command line."""
    core.global_force_seed = seed
