"""Which tests need more than the repository holds is read off what they are called with."""

from __future__ import annotations

from pathlib import Path

import pytest

from parity_tests import goldens
from parity_tests.goldens.routing import RoutingRecord
from parity_tests.goldens.shared import is_committed, needs_shared, pytest_itemcollected

HERE, AWAY = (goldens.Golden("options/x", folder / "options" / "x")
              for folder in (goldens.HERE / "fixtures" / "goldens", Path("/elsewhere/goldens")))


@pytest.mark.parametrize(("value", "there"), [
    (HERE, True), (AWAY, False), (goldens.Record(AWAY, {}), False), ("a name", True), (3, True),
    ((HERE, "noise", "float64"), True), ((AWAY, "noise", "float64"), False), ([HERE, AWAY], False),
    (RoutingRecord("em", HERE.folder, {}), True), (RoutingRecord("em", AWAY.folder, {}), False)])
def test_what_is_in_the_repository(value: object, there: bool) -> None:
    assert is_committed(value) == there


@pytest.mark.parametrize(("found", "marked"), [(HERE, False), (AWAY, True), (None, True), ((), False)])
def test_values_are_marked_by_their_recording(found: object, marked: bool) -> None:
    """A recording that is not here at all is needed as much as one that lies elsewhere."""
    (value,) = needs_shared(["x"], lambda _: found)
    assert [mark.name for mark in value.marks] == ["shared"] * marked


class Item:
    """What the hook reads and does of a collected test."""

    def __init__(self, *values: object) -> None:
        self.callspec = type("Call", (), {"params": dict(enumerate(values))})
        self.marks: list[str] = []
        self.add_marker = self.marks.append


@pytest.mark.parametrize(("values", "marks"), [(("port", HERE), []), (("port", AWAY), ["shared"])])
def test_a_collected_test_is_marked(values: tuple, marks: list[str]) -> None:
    item = Item(*values)
    pytest_itemcollected(item)
    assert item.marks == marks
