"""The reader of routing recordings: groups, names, precedence, and a comparison that can fail."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from parity_tests.goldens import routing
from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError

ALL = [record for family in routing.FAMILIES for record in routing.records(family)]


@pytest.fixture(autouse=True)
def unrecorded() -> Iterator[None]:
    """Comparisons made here judge the reader: they do not count in the report."""
    with recorder.aside():
        yield


def one(name: str) -> routing.RoutingRecord:
    """A committed record by name."""
    return next(record for record in ALL if record.name == name)


@pytest.mark.shared
@pytest.mark.parametrize("family", routing.FAMILIES)
def test_folder_is_there(family: str) -> None:
    """The committed records always are; where the others are not, the reason is said."""
    assert routing.committed(family)
    reason = routing.missing(family)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("record", ALL, ids=[record.key for record in ALL])
def test_every_array_is_read(record: routing.RoutingRecord) -> None:
    """Inputs, variables, groups and steps hold each array of the file once, in the listed shape."""
    arrays = record.arrays()
    assert set(arrays) == set(record.entry["keys"])
    for key, described in record.entry["keys"].items():
        assert list(arrays[key].shape) == described["shape"], key
    groups = [record.group(name) for name in record.groups]
    parts = [record.inputs, record.variables, record.common, record.after(1),
             record.after(5)]
    parts += [part for group in groups for part in (group.outputs, group.cotangents, group.gradients)]
    assert sum(len(part) for part in parts) == len(arrays)
    for group in groups:
        assert set(group.cotangents) <= set(group.outputs)


def test_groups() -> None:
    """Iterations, named forms and plain records."""
    assert one("routing_fc_plain_s21_f64").groups == ("t1", "t2", "t3")
    assert one("margin_loss_s41_f64").groups == ("mean", "sum", "el")
    network = one("net_tiny_s51_f64")
    assert network.groups == ("",) and network.network
    assert set(network.group().gradients) == {f"var/{name}" for name in network.variables}
    assert set(network.after(5)) == set(network.variables)


@pytest.mark.parametrize(("change", "passes"), [(0.0, True), (0.5e-10, True), (2e-10, False),
                                                (np.nan, False)])
def test_held(change: float, passes: bool) -> None:
    """Half the bound passes, twice the bound and not-a-number do not."""
    record = one("squash_s12_f64")
    expected = record.group().outputs["v"]
    actual = expected.copy()
    actual.flat[0] += change * np.abs(expected).max()
    if passes:
        routing.held(record, "out/v", "port float64", actual, expected, "test_held")
        return
    with pytest.raises(ParityError, match="routing/capsnet/squash_s12_f64  tap out/v"):
        routing.held(record, "out/v", "port float64", actual, expected, "test_held")


def test_held_where_the_recording_is_not_finite() -> None:
    """The official squash is not-a-number at zero; ours has to be finite, of any value."""
    record = one("squash_tiny_and_zero_f64")
    expected = record.group().outputs["v"]
    assert not np.isfinite(expected).all()
    routing.held(record, "out/v", "port", np.nan_to_num(expected), expected, "test")
    with pytest.raises(ParityError):
        routing.held(record, "out/v", "port", expected, expected, "test")


def test_held_shape() -> None:
    """A shape that would broadcast is no match."""
    record = one("squash_s12_f64")
    expected = record.group().outputs["v"]
    with pytest.raises(ParityError, match="shape"):
        routing.held(record, "out/v", "port", expected[:1], expected, "test")


def test_missing_file(tmp_path: Path) -> None:
    """A file that the manifest names and that is not there is said with its place."""
    record = routing.RoutingRecord("em", tmp_path, one("squash_s12_f64").entry)
    with pytest.raises(FileNotFoundError, match="the manifest names squash_s12_f64.npz"):
        record.arrays()
