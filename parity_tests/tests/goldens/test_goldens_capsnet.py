"""Every recording of the CapsNet programs on both sides: values, gradients, five Adam steps."""

from __future__ import annotations

from dataclasses import fields

import pytest

from parity_tests.goldens import capsnet as golden_capsnet
from parity_tests.goldens import routing as goldens_routing
from parity_tests.goldens.routing import RoutingRecord
from parity_tests.goldens.verify_capsnet import verify_record, verify_steps
from parity_tests.harness import recorder
from parity_tests.harness.compare import ParityError
from parity_tests.harness.sides import Lib
from parity_tests.registry.capsnet.network import NETWORK
from port.capsnet import settings as capsnet_settings

RECORDS = goldens_routing.records("capsnet")
FIRST = goldens_routing.first_of_each(RECORDS)
SIDES = ("reference", "port")


@pytest.mark.golden
@pytest.mark.parametrize("record", RECORDS, ids=[record.name for record in RECORDS])
def test_record(record: RoutingRecord, tier: str) -> None:
    """One record, all groups; float32 recordings are compared with ours in either dtype."""
    if tier == "smoke" and record.name not in FIRST:
        pytest.skip("smoke tier: one record a function and dtype")
    for side in SIDES:
        largest = verify_record(record, side, "float64", {})
        if record.dtype == "float32":
            verify_record(record, side, "float32", largest)


NETWORKS = [record for record in RECORDS if "losses_over_steps" in record.group().outputs]


@pytest.mark.golden
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("record", NETWORKS, ids=[record.name for record in NETWORKS])
def test_steps(record: RoutingRecord, side: str, tier: str) -> None:
    """Losses before and after five Adam steps on one batch, and the variables after the first and last."""
    if tier == "smoke" and record.name not in FIRST:
        pytest.skip("smoke tier: one record a function and dtype")
    verify_steps(record, side)


# Setting → (recording, place among the run's attributes, the other value): docs/routing_ancestors.md.
OTHERWISE = [
    ("routing_bias", "capsule_layer_plain_s31_f64", "settings", False),
    ("primary_coupling", "primary_caps_plain_s33_f64", "settings", False),
    ("leaky", "primary_caps_leaky_s33_f64", "settings", False),
    ("leaky", "net_tiny_s52_f64", "settings", False),
    ("leaky", "routing_fc_leaky_s21_f64", "", False),
    ("margin", "net_tiny_s51_f64", "settings", "sum"),
    ("reduction", "margin_loss_s41_f64", "", "swapped"),
    ("gradient", "routing_fc_plain_s21_f64", "", "last"),
    ("routing_gradient", "xg_capsule_layer_stopgrad_s71_f64", "settings", "all"),
    ("epsilon", "xg_squash_s71_f64", "", 0.0),
    ("epsilon", "squash_s12_f64", "", 1e-8),
    ("iterations", "net_tiny_s51_f64", "settings", 2),
]


@pytest.mark.golden
@pytest.mark.parametrize(("name", "record", "place", "value"), OTHERWISE,
                         ids=[f"{name}-{record}" for name, record, _, _ in OTHERWISE])
def test_the_other_value_fails(name: str, record: str, place: str, value: object,
                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Each named difference between programs shows in a recording."""
    run_of = golden_capsnet.run_of

    def other(found: RoutingRecord, group: str) -> golden_capsnet.Run:
        planned = run_of(found, group)
        part = planned.attributes[place] if place else planned.attributes
        swap = {"mean": "sum", "sum": "mean"}
        part[name] = swap.get(part.get(name)) if value == "swapped" else value
        return planned

    found = next(entry for entry in RECORDS if entry.name == record)
    monkeypatch.setattr(golden_capsnet, "run_of", other)
    with recorder.aside(), pytest.raises(ParityError):
        verify_record(found, "reference", "float64", {})


# A setting of the network → the name it has in the recorded function, and what is not recorded at all.
IN_A_RECORD = {"squash_epsilon": "epsilon"}
INITIAL = {"initial"}


def test_each_difference_rests_on_a_committed_recording() -> None:
    """Every setting in which the programs differ is shown by a recording that is in the repository."""
    programs = [capsnet_settings.preset(name) for name in capsnet_settings.PRESETS]
    differ = {field.name for field in fields(programs[0])
              if len({getattr(program, field.name) for program in programs}) > 1}
    rests_on = {name: record for name, record, _, _ in OTHERWISE}
    assert {IN_A_RECORD.get(name, name) for name in differ - INITIAL} <= set(rests_on)
    committed = {record.name for record in goldens_routing.committed("capsnet")}
    assert {record for _, record, _, _ in OTHERWISE} <= committed


@pytest.mark.parametrize(("preset", "parameters"), [("official", 8_215_728), ("paper", 8_215_568),
                                                    ("xg", 8_215_568)])
def test_number_of_parameters(preset: str, parameters: int) -> None:
    """As counted in the recording (official) and published (paper)."""
    model = NETWORK.build(Lib("port", "float32"), {"preset": preset, "settings": {}})
    assert sum(p.numel() for p in model.parameters()) == parameters
    full = [record for record in RECORDS if "n_parameters" in record.group().outputs]
    if preset == "official":
        assert [int(record.group().outputs["n_parameters"]) for record in full] == [parameters]


@pytest.mark.shared
def test_table_maps_every_recorded_variable_once() -> None:
    """The conversion table takes each recorded variable to one parameter, and back to the same name."""
    lib = Lib("port", "float32")
    table = NETWORK.mapping({})
    for record in RECORDS:
        if not record.network:
            continue
        model = NETWORK.build(lib, {"preset": "official",
                                         "settings": golden_capsnet.network_settings(record)})
        names = {name: lib.checkpoints.convert.port_name(name, table)[0]
                 for name in golden_capsnet.network_variables(record)}
        assert sorted(names.values()) == sorted(name for name, _ in model.named_parameters())
        assert all(lib.checkpoints.convert.original_name(ours, table=table)[0] == name
                   for name, ours in names.items())


def test_an_unknown_record_is_an_error() -> None:
    """A recording of something new is not passed over in silence."""
    record = goldens_routing.RoutingRecord("capsnet", RECORDS[0].folder, {
        "name": "something_new", "function": "of which nobody knows", "keys": {}, "attributes": {}})
    with pytest.raises(KeyError, match="no recipe for something_new: of which nobody knows"):
        golden_capsnet.run_of(record, "")


@pytest.mark.shared
def test_missing_recordings_are_said() -> None:
    """Skips with the place where the further recordings belong."""
    reason = goldens_routing.missing("capsnet")
    if reason is not None:
        recorder.golden("routing/capsnet", "folder", None, "skipped", reason)
        pytest.skip(reason)
