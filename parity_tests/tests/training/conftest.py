"""Fixtures of the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from parity_tests.harness import mlab


@pytest.fixture(scope="package")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`parity_tests.harness.mlab.trained`: the same options are trained once for all files."""
    return mlab.trained(lambda: tmp_path_factory.mktemp("run"))
