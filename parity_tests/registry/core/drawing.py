"""What the rows of `core/` share."""

from __future__ import annotations

from typing import Any

from parity_tests.goldens.ops import module
from parity_tests.harness.sides import Recipe


def call_module(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    return m(**x)


def plain(op: str, **keywords: Any) -> Recipe:
    """A module called with its inputs by name and built with the attributes by name."""
    return module(op, keywords.pop("outputs", ("out",)), lambda a: a, call_module, **keywords)
