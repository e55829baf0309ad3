"""Shared parameters have the same defaults on both sides, for every row of the registry."""

from __future__ import annotations

import pytest

from parity_tests import registry
from parity_tests.harness.signatures import check_signature


@pytest.mark.parametrize("op", list(registry.rows()))
def test_defaults(op: str) -> None:
    check_signature(op)
