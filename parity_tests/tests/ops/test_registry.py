"""The registry is complete: every public name of a room that both sides have stands in one row."""

from __future__ import annotations

import pytest

from parity_tests import goldens, registry
from parity_tests.goldens import REPOSITORY
from parity_tests.goldens.ops import ELSEWHERE, GOLDEN_RECIPES
from parity_tests.harness import tiers

ROWS = registry.rows()
# Settings, and what draws with NumPy: no framework, so each side has the same text and imports nothing of the other.
TWINS = {"core/initializers.py", "constellation/data.py", "capsnet/settings.py", "em/settings.py"}


@pytest.mark.parametrize("room", registry.ROOMS)
def test_same_public_names(room: str) -> None:
    """A name on one side only is a hole in the suite."""
    port, reference = (registry.public_names(side, room) for side in ("port", "reference"))
    assert port == reference, (f"{room}: only in port {sorted(port - reference)}, only in reference "
                               f"{sorted(reference - port)}")


@pytest.mark.parametrize("room", registry.ROOMS)
def test_every_name_has_a_row(room: str) -> None:
    """Each public name is tested, and each row names something that exists."""
    public = {f"{room}.{name}" for name in registry.public_names("port", room)}
    rows = {op for op in ROWS if op.startswith(f"{room}.")}
    assert public == rows, (f"{room}: no row for {sorted(public - rows)}; rows for nothing "
                            f"{sorted(rows - public)}")


def test_every_room_is_known() -> None:
    """A module that appears on both sides must be a room of the registry."""
    files = {side: {".".join(path.relative_to(REPOSITORY / side).with_suffix("").parts)
                    for path in (REPOSITORY / side).rglob("*.py") if path.stem != "__init__"}
             for side in ("port", "reference")}
    shared = files["port"] & files["reference"]
    assert shared == set(registry.ROOMS), f"rooms without rows: {sorted(shared ^ set(registry.ROOMS))}"


def test_twins_are_one_text() -> None:
    """Four files are byte for byte the same on both sides, and no other file is without being named here."""
    same = {path.relative_to(REPOSITORY / "port").as_posix() for path in (REPOSITORY / "port").rglob("*.py")
            if path.stem != "__init__" and (twin := REPOSITORY / "reference" / path.relative_to(REPOSITORY / "port"))
            .is_file() and twin.read_bytes() == path.read_bytes()}
    assert same == TWINS


@pytest.mark.parametrize("op", [row.op for row in ROWS.values() if row.tested_by != "test_ops.py"])
def test_rows_tested_elsewhere(op: str) -> None:
    """A row that test_ops.py leaves to another file names a file that is there."""
    assert tiers.test_file(ROWS[op].tested_by).is_file()


@pytest.mark.shared
def test_every_recorded_function_has_a_recipe() -> None:
    """No function of the committed recordings is passed over in silence."""
    recorded = {record.function for record in goldens.records() if record.ok}
    unknown = recorded - set(GOLDEN_RECIPES) - set(ELSEWHERE)
    assert not unknown, f"no recipe for {sorted(unknown)}"


def test_files_of_the_smoke_tier() -> None:
    """Each is there, and what judges ops, models and recordings is among them."""
    there = [path.stem for path in tiers.TESTS.rglob("test_*.py")]
    assert len(there) == len(set(there)), "two test files of one name"
    assert set(tiers.SMOKE) <= set(there)
    judges = {name for name in there if name.startswith(("test_goldens_", "test_oracles", "test_ops"))}
    assert judges <= set(tiers.SMOKE)
