"""Both sides against recordings of the EM programs: the equations, IBM's and the official program.

Values and gradients of every record by the rule in `goldens_routing.held`, whole networks with five
Adam steps. float64 records are compared in float64, float32 ones with a float32 run of ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import fields, replace

import numpy as np
import pytest

from parity_tests.goldens import em as golden_em
from parity_tests.goldens import routing, verify_em
from parity_tests.goldens.routing import RoutingRecord
from parity_tests.goldens.verify_em import (
    HERE,
    verify_network,
    verify_parents_of_children,
    verify_position_grid,
    verify_record,
    verify_schedules,
    verify_spread_loss,
)
from parity_tests.harness import recorder, sides
from parity_tests.harness.compare import ParityError
from port.em import settings as em_settings

pytestmark = pytest.mark.golden
SIDES = ("reference", "port")
RECORDS = {record.name: record for record in routing.records("em")}
FIRST = routing.first_of_each(RECORDS.values())


def each(found: Iterable[RoutingRecord]) -> pytest.MarkDecorator:
    """A test for each of these records, under the record's name."""
    found = list(found)
    return pytest.mark.parametrize("record", found, ids=[record.name for record in found])


def skip_in_smoke(request: pytest.FixtureRequest, record: RoutingRecord) -> None:
    """The smoke tier compares the first record of each function."""
    if request.config.getoption("--tier") == "smoke" and record.name not in FIRST:
        pytest.skip("smoke tier: first record of each function")


@pytest.mark.parametrize("side", SIDES)
@each(record for record in RECORDS.values() if not record.name.startswith(golden_em.ELSEWHERE))
def test_routing(record: RoutingRecord, side: str, request: pytest.FixtureRequest) -> None:
    """Routing functions and layers: poses, activations, assignments, gradients."""
    skip_in_smoke(request, record)
    verify_record(record, side, f"{HERE}::test_routing[{record.name}-{side}]")


# ---------------------------------------------------------------------------------------- whole networks

@pytest.mark.parametrize("side", SIDES)
@each(record for record in RECORDS.values() if record.network)
def test_network(record: RoutingRecord, side: str, request: pytest.FixtureRequest) -> None:
    """Forward, losses, gradients, and the variables after one and five Adam steps."""
    skip_in_smoke(request, record)
    verify_network(record, side, f"{HERE}::test_network[{record.name}-{side}]")


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


# Where the programs start is not recorded; the two forms of the primary layer have other variables, so
# the recording of the official form cannot even be read with the other.
INITIAL = {"primary_stddev", "vote_stddev", "class_stddev", "vote_identity", "beta_u", "beta_a"}
BY_ITS_VARIABLES = {"primary": "gr_primary_caps_s141_f64"}


def settings_that_differ() -> set[str]:
    """Settings of which the paper, the official program and IBM's do not all have one value."""
    networks = list(em_settings.PRESETS.values())
    routings = [routing for network in networks for routing in (network.routing, network.class_routing)]
    return {field.name for sort, kind in ((networks, em_settings.Network),
                                          (routings, em_settings.Routing)) for field in fields(kind)
            if len({getattr(settings, field.name) for settings in sort}) > 1
            } - {"routing", "class_routing"}


def test_each_difference_rests_on_a_committed_recording() -> None:
    """Every setting in which the programs differ is shown by a recording that is in the repository."""
    rests_on = {setting: name for setting, name, _ in OTHERWISE} | BY_ITS_VARIABLES
    assert settings_that_differ() - INITIAL <= set(rests_on)
    committed = {record.name for record in routing.committed("em")}
    assert {name for _, name, _ in OTHERWISE} | set(BY_ITS_VARIABLES.values()) <= committed


# ------------------------------------------------------------------------------------------ small pieces

@pytest.mark.parametrize("side", SIDES)
@each(record for record in RECORDS.values() if "spread_loss" in record.name)
def test_spread_loss(record: RoutingRecord, side: str) -> None:
    """Both reductions at several steps, with the margin of that step, and their gradients."""
    verify_spread_loss(record, side, f"{HERE}::test_spread_loss[{record.name}-{side}]")


@pytest.mark.parametrize("device,off,passes", [("cpu", 5.3e-10, False), ("cuda", 5.3e-10, True),
                                               ("cuda", 2e-6, False)])
def test_another_order_of_sums(device: str, off: float, passes: bool) -> None:
    """Identical votes: what a GPU's rounding of the mean does to their gradient is let through there alone."""
    record = RECORDS["paper_identical_votes_s308_f64"]
    expected = record.group("t2").gradients["votes"]
    actual = expected + off * np.abs(expected).max()
    with sides.placed(device), contextlib.nullcontext() if passes else pytest.raises(ParityError):
        routing.held(record, "grad/t2/votes", "port float64", actual, expected, HERE)


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


@pytest.mark.shared
def test_every_record_is_compared() -> None:
    """A record nobody knows is an error, not silence."""
    for record in RECORDS.values():
        golden_em.adapt(record)
    reason = routing.missing("em")
    if reason is not None:
        pytest.skip(reason)
