"""Both sides against recordings of the EM programs: the equations, IBM's and the official program.

Values and gradients of every record by the rule in `goldens_routing.held`, whole networks with five
Adam steps. float64 records are compared in float64, float32 ones with a float32 run of ours.
"""

from __future__ import annotations

import pytest

from parity_tests import golden_em
from parity_tests import goldens_routing as routing
from parity_tests.verify_em import (
    HERE,
    verify_network,
    verify_parents_of_children,
    verify_position_grid,
    verify_record,
    verify_schedules,
    verify_spread_loss,
)

pytestmark = pytest.mark.golden
SIDES = ("reference", "port")
RECORDS = {record.name: record for record in routing.records("em")}
FIRST = routing.first_of_each(RECORDS.values())
ROUTED = [name for name in RECORDS if not name.startswith(golden_em.ELSEWHERE)]
NETWORKS = [name for name, record in RECORDS.items() if record.network]


def skip_in_smoke(request: pytest.FixtureRequest, name: str) -> None:
    """The smoke tier compares the first record of each function."""
    if request.config.getoption("--tier") == "smoke" and name not in FIRST:
        pytest.skip("smoke tier: first record of each function")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ROUTED)
def test_routing(name: str, side: str, request: pytest.FixtureRequest) -> None:
    """Routing functions and layers: poses, activations, assignments, gradients."""
    skip_in_smoke(request, name)
    verify_record(RECORDS[name], side, f"{HERE}::test_routing[{name}-{side}]")


# ---------------------------------------------------------------------------------------- whole networks

@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, side: str, request: pytest.FixtureRequest) -> None:
    """Forward, losses, gradients, and the variables after one and five Adam steps."""
    skip_in_smoke(request, name)
    verify_network(RECORDS[name], side, f"{HERE}::test_network[{name}-{side}]")


# ------------------------------------------------------------------------------------------ small pieces

@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [name for name in RECORDS if "spread_loss" in name])
def test_spread_loss(name: str, side: str) -> None:
    """Both reductions at several steps, with the margin of that step, and their gradients."""
    verify_spread_loss(RECORDS[name], side, f"{HERE}::test_spread_loss[{name}-{side}]")


@pytest.mark.parametrize("side", SIDES)
def test_schedules(side: str) -> None:
    """Inverse temperature and margin."""
    verify_schedules(RECORDS["schedules"], side, f"{HERE}::test_schedules[{side}]")


@pytest.mark.parametrize("side", SIDES)
def test_position_grid(side: str) -> None:
    """Centres carried through three layers from four image sizes."""
    verify_position_grid(RECORDS["gr_position_grid"], side, f"{HERE}::test_position_grid[{side}]")


@pytest.mark.parametrize("side", SIDES)
def test_parents_of_children(side: str) -> None:
    """Which parents see a child, and IBM's first assignment."""
    verify_parents_of_children(RECORDS["ibm_routing_map_init"], side,
                               f"{HERE}::test_parents_of_children[{side}]")


def test_every_record_is_compared() -> None:
    """A record nobody knows is an error, not silence."""
    for record in RECORDS.values():
        golden_em.adapt(record)
    reason = routing.missing("em")
    if reason is not None:
        pytest.skip(reason)
