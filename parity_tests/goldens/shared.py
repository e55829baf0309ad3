"""Marks as `shared` each test of a recording that is not in the repository.

`pytest -m shared` is then what a checkout beside the whole recordings adds to one that stands alone; a
test of many recordings at once, or of their names, says so itself with `needs_shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from parity_tests import goldens
from parity_tests.goldens.routing import RoutingRecord


def is_committed(value: object) -> bool:
    """Whether a recording, or every one of several, is in the repository; True for what is none."""
    if isinstance(value, goldens.Record):
        value = value.golden
    if isinstance(value, goldens.Golden | RoutingRecord):
        return value.folder.is_relative_to(goldens.HERE)
    return all(map(is_committed, value)) if isinstance(value, list | tuple) else True


def pytest_itemcollected(item: pytest.Item) -> None:
    """The mark, by the values a test is called with."""
    call = getattr(item, "callspec", None)
    if call is not None and not is_committed(list(call.params.values())):
        item.add_marker("shared")


def needs_shared(names: Iterable[Any], recordings: Callable[[Any], object]) -> list:
    """Values for `parametrize`, marked where one of their recordings is not in the repository.

    Args:
        names: values a test is called with.
        recordings: a value → its recording, several of them, or None where it is not here.
    """
    def marks(name: Any) -> list:
        found = recordings(name)
        return [] if found is not None and is_committed(found) else [pytest.mark.shared]
    return [pytest.param(name, marks=marks(name)) for name in names]
