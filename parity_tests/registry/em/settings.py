"""Rows of `em/settings.py`."""

from __future__ import annotations

from parity_tests.registry.row import OpCase

ROWS = (
    OpCase("em.settings.check_choices", tested_by="test_em.py"),
    OpCase("em.settings.check_numbers", tested_by="test_em.py"),
    OpCase("em.settings.preset", tested_by="test_em.py"),
)
