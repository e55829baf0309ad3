"""Rows of `scae/model.py`."""

from __future__ import annotations

from parity_tests.registry.row import OpCase

ROWS = (
    OpCase("scae.model.ImageAutoencoder", tested_by="test_model.py",
           note="every tap, gradient and optimizer step under drawn configurations"),
)
