"""Every recording of the CapsNet programs on both sides: values, gradients, five Adam steps."""

from __future__ import annotations

import numpy as np
import pytest

from parity_tests import golden_capsnet, goldens_routing, recorder
from parity_tests import registry_capsnet as rows
from parity_tests.compare import ParityError
from parity_tests.goldens_routing import RoutingRecord, held
from parity_tests.sides import Arrays, Lib, Outcome, load_port, run

RECORDS = goldens_routing.records("capsnet")
FIRST = goldens_routing.first_of_each(RECORDS)
SIDES = ("reference", "port")
STEPS = 5


def named(record: RoutingRecord) -> str:
    """pytest's name of the test of one record."""
    return f"parity_tests/test_goldens_capsnet.py::test_record[{record.name}]"


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


def verify_record(record: RoutingRecord, side: str, dtype: str, largest: dict[str, float]
                  ) -> dict[str, float]:
    """All groups of a record on one side.

    Of a full-size gradient the recording keeps norm, sum and 64 samples. In float64 the samples are held
    to the rule by their own largest value, in float32 by that of the whole gradient, as the rule says:
    rounding is relative to it, and the samples may all be small (a seventh of it in the worst case here).
    The sum likewise: it cancels, and rounding is relative to the sum of the absolute values.

    Args:
        record: what is compared.
        side: `reference` or `port`.
        dtype: of our run.
        largest: scales of sampled and summed gradients, from the float64 run; {} for that run itself.

    Returns:
        These scales, by the key of what is recorded.

    Raises:
        ParityError: an array differs by more than its bound.
        AssertionError: a recorded array that nothing here compares.
    """
    found = {}
    groups = {name: golden_capsnet.run_of(record, name) for name in record.groups}
    for name, planned in groups.items():
        recorded, prefix = record.group(name), f"{name}/" if name else ""
        outcome = run(side, planned.recipe, planned.inputs, planned.attributes, dtype,
                      planned.cotangents, planned.variables)
        seen = set()
        for key, (ours, back) in planned.outputs.items():
            held(record, f"out/{prefix}{key}", f"{side} {dtype}", back(outcome.outputs[ours]),
                 recorded.outputs[key], named(record))
            seen.add(key)
        for key, expected in recorded.gradients.items():
            variable, _, kind = key.rpartition("/")
            if kind in ("norm", "sum", "sample"):
                gradient = outcome.gradients[f"vargrad/{variable}"]
                actual = golden_capsnet.fingerprint(gradient)[kind]
                size = np.abs(np.asarray(gradient, np.float64))
                if kind != "norm":
                    found[key] = float(size.max() if kind == "sample" else size.sum())
            else:
                ours, back = planned.gradients[key]
                actual = back(outcome.gradients[ours])
            held(record, f"grad/{prefix}{key}", f"{side} {dtype}", actual, expected, named(record),
                 largest.get(key))
        seen |= further(record, name, side, dtype, outcome)
        assert set(recorded.outputs) <= seen, f"not compared: {sorted(set(recorded.outputs) - seen)}"
    return found


def further(record: RoutingRecord, group: str, side: str, dtype: str, outcome: Outcome) -> set[str]:
    """Outputs that are not simply one of ours: routing's steps, and what a network's steps compare."""
    if "logits_after" not in record.group(group).outputs:
        return {"losses_over_steps", "n_parameters"}
    iteration = int(group[1:])
    before = f"t{iteration - 1}"
    if iteration > 1:  # ours are those of the last iteration, recorded those of the next one
        for recorded, ours in (("logits_after", "logits"), ("route_next", "coupling")):
            held(record, f"out/{before}/{recorded}", f"{side} {dtype}", outcome.outputs[ours],
                 record.group(before).outputs[recorded], named(record))
    for later in record.groups[iteration - 1:]:
        held(record, f"out/{later}/v_all", f"{side} {dtype}", outcome.outputs["capsules"],
             record.group(later).outputs["v_all"][iteration - 1], named(record))
    return {"logits_after", "route_next", "v_all"}


NETWORKS = [record for record in RECORDS if "losses_over_steps" in record.group().outputs]


@pytest.mark.golden
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("record", NETWORKS, ids=[record.name for record in NETWORKS])
def test_steps(record: RoutingRecord, side: str, tier: str) -> None:
    """Losses before and after five Adam steps on one batch, and the variables after the first and last."""
    if tier == "smoke" and record.name not in FIRST:
        pytest.skip("smoke tier: one record a function and dtype")
    train = train_reference if side == "reference" else train_port
    losses, variables = train(record)
    held(record, "out/losses_over_steps", f"{side} {record.dtype}", losses,
         record.group().outputs["losses_over_steps"], named(record))
    for step in (1, STEPS):
        for name, expected in record.after(step).items():
            held(record, f"out/after_step{step}/{name}", f"{side} {record.dtype}", variables[step][name],
                 expected, named(record))


def train_port(record: RoutingRecord) -> tuple[np.ndarray, dict[int, Arrays]]:
    """Losses, and variables by number of steps, of the port."""
    import torch
    lib, planned = Lib("port", record.dtype), golden_capsnet.run_of(record, "")
    model = planned.recipe.build(lib, planned.attributes)
    load_port(lib, model, planned.recipe, planned.variables, planned.attributes)
    images = torch.tensor(record.inputs["images"].astype(record.dtype))
    label = torch.tensor(record.inputs["label"])
    optimizer = lib.optim_adam.Adam(model.parameters(), lr=0.0)
    losses, variables = [], {}
    for step in range(STEPS + 1):
        found = lib.convert.module_arrays(model, table=planned.recipe.mapping(
            planned.attributes))
        variables[step] = {name: lib.convert.to_original(p.detach().numpy().copy(), transform)
                           for name, (p, transform) in found.items()}
        optimizer.param_groups[0]["lr"] = lib.optim_adam.exponential_decay(step)
        optimizer.zero_grad()
        loss = model(images, label).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    return np.asarray(losses), variables


def train_reference(record: RoutingRecord) -> tuple[np.ndarray, dict[int, Arrays]]:
    """Losses, and variables by number of steps, of the reference."""
    import tensorflow as tf
    lib, planned = Lib("reference", record.dtype), golden_capsnet.run_of(record, "")
    model = planned.recipe.build(lib, planned.attributes)
    model.load_variables(planned.variables)
    trained = model.variables_by_name
    optimizer = lib.optim_adam.Adam(trained, lr=0.0)
    losses, variables = [], {}
    for step in range(STEPS + 1):
        variables[step] = {name: variable.numpy() for name, variable in trained.items()}
        optimizer.lr = lib.optim_adam.exponential_decay(step)
        with tf.GradientTape() as tape:
            loss = model(tf.constant(planned.inputs["image"].astype(record.dtype)),
                         tf.constant(planned.inputs["label"])).loss
        losses.append(float(loss))
        optimizer.step(dict(zip(trained, tape.gradient(loss, list(trained.values())))))
    return np.asarray(losses), variables


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


@pytest.mark.parametrize(("preset", "parameters"), [("official", 8_215_728), ("paper", 8_215_568),
                                                    ("xg", 8_215_568)])
def test_number_of_parameters(preset: str, parameters: int) -> None:
    """As counted in the recording (official) and published (paper)."""
    model = rows.NETWORK.build(Lib("port", "float32"), {"preset": preset, "settings": {}})
    assert sum(p.numel() for p in model.parameters()) == parameters
    full = [record for record in RECORDS if "n_parameters" in record.group().outputs]
    if preset == "official":
        assert [int(record.group().outputs["n_parameters"]) for record in full] == [parameters]


def test_table_maps_every_recorded_variable_once() -> None:
    """The conversion table takes each recorded variable to one parameter, and back to the same name."""
    lib = Lib("port", "float32")
    table = rows.NETWORK.mapping({})
    for record in RECORDS:
        if not record.network:
            continue
        model = rows.NETWORK.build(lib, {"preset": "official",
                                         "settings": golden_capsnet.network_settings(record)})
        names = {name: lib.convert.port_name(name, table)[0]
                 for name in golden_capsnet.network_variables(record)}
        assert sorted(names.values()) == sorted(name for name, _ in model.named_parameters())
        assert all(lib.convert.original_name(ours, table=table)[0] == name
                   for name, ours in names.items())


def test_an_unknown_record_is_an_error() -> None:
    """A recording of something new is not passed over in silence."""
    record = goldens_routing.RoutingRecord("capsnet", RECORDS[0].folder, {
        "name": "something_new", "function": "of which nobody knows", "keys": {}, "attributes": {}})
    with pytest.raises(KeyError, match="no recipe for something_new: of which nobody knows"):
        golden_capsnet.run_of(record, "")


def test_missing_recordings_are_said() -> None:
    """Skips with the place where the further recordings belong."""
    reason = goldens_routing.missing("capsnet")
    if reason is not None:
        recorder.golden("routing/capsnet", "folder", None, "skipped", reason)
        pytest.skip(reason)
