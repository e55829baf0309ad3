"""Both sides against recordings of the EM programs: the equations, IBM's and the official program.

Values and gradients of every record by the rule in `goldens_routing.held`, whole networks with five
Adam steps. float64 records are compared in float64, float32 ones with a float32 run of ours.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from parity_tests import golden_em, recorder, verify_em
from parity_tests import goldens_routing as routing
from parity_tests.compare import ParityError
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


# ----------------------------------------------------------------------------------- named differences

# Setting → (recording, the other value): docs/routing_ancestors.md. Those of `Routing` first.
OTHERWISE = [
    ("competition", "paper_routing_k3s2_s301_f64", "stride_1_per_type"),
    ("competition", "ibm_routing_big_poses_x400_s273_f64", "parents"),
    ("competition", "gr_conv_routing_a_s101_f64", "parents"),
    ("competition", "gr_conv_layer_k3s2_s121_f64", "parents"),
    ("initial", "paper_routing_k3s2_s301_f64", "types"),
    ("initial", "gr_conv_routing_a_s101_f64", "parents"),
    ("initial_epsilon", "ibm_routing_k3s2_s211_f64", 0.0),
    ("momentum", "gr_class_routing_s111_f64", 0.0),
    ("variance_floor", "gr_class_routing_s111_f64", 1e-9),
    ("variance_floor", "paper_one_child_parent_s309_f64", 5e-4),
    ("mass_epsilon", "gr_class_routing_s111_f64", 0.0),
    ("mass_epsilon", "ibm_routing_k3s1_s212_f64", 0.0),
    ("mass_epsilon_in_cost", "gr_class_routing_s111_f64", False),
    ("log_epsilon", "ibm_routing_class_s213_f64", 0.0),
    ("cost_scale", "ibm_routing_k3s2_s211_f64", "none"),
    ("betas", "gr_class_routing_s111_f64", "paper"),
    ("final_lambda", "paper_routing_class_s304_f64", 0.02),
    ("schedule", "paper_routing_class_s304_f64", "linear"),
    ("schedule", "paper_routing_class_s304_f64", "constant"),
    ("coordinates", "ibm_class_layer_s231_f64", "row"),
    ("coordinates", "gr_class_layer_s131_f64", "column"),
    ("coordinates", "gr_net_tiny_s161_f64", "column"),
    ("conv_padding", "ibm_net_tiny_s261_f64", "VALID"),
    ("normalize", "ibm_net_tiny_s261_f64", False),
    ("reduction", "gr_net_tiny_s161_f64", "sum"),
    ("decay", "gr_net_tiny_s161_f64", 0.0),
    ("lr_decay", "gr_net_tiny_s161_f64", 1.0),
]


@pytest.mark.parametrize(("setting", "name", "value"), OTHERWISE,
                         ids=[f"{setting}-{name}" for setting, name, _ in OTHERWISE])
def test_the_other_value_fails(setting: str, name: str, value: object, monkeypatch: pytest.MonkeyPatch
                               ) -> None:
    """Each named difference between the programs shows in a recording."""
    adapt, network_settings = golden_em.adapt, verify_em.network_settings

    def otherwise(found: routing.RoutingRecord) -> golden_em.Adapted:
        adapted = adapt(found)
        changed = dict(adapted.attributes)
        if setting in changed:
            changed[setting] = value
        else:
            assert setting in changed["routing"]
            changed["routing"] = changed["routing"] | {setting: value}
        return replace(adapted, attributes=changed)

    monkeypatch.setattr(golden_em, "adapt", otherwise)
    monkeypatch.setattr(verify_em, "network_settings",
                        lambda *found: replace(network_settings(*found), **{setting: value}))
    with recorder.aside(), pytest.raises(ParityError):
        verify_em.verify(RECORDS[name], "port")


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
