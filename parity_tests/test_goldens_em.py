"""Both sides against recordings of the EM programs: the equations, IBM's and the official program.

Values and gradients of every record by the rule in `goldens_routing.held`, whole networks with five
Adam steps. float64 records are compared in float64, float32 ones with a float32 run of ours.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from parity_tests import golden_em
from parity_tests import goldens_routing as routing
from parity_tests.goldens_routing import RoutingRecord, held
from parity_tests.sides import Arrays, Lib, run

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


def verify_record(record: RoutingRecord, side: str, test: str) -> None:
    """Every group of a record: outputs, and gradients for its cotangents."""
    adapted = golden_em.adapt(record)
    dtype, label = record.dtype, f"{side} {record.dtype}"
    for name in record.groups:
        group = record.group(name)
        attributes = adapted.attributes | {"iterations": int(name[1:]) if name else 1}
        found = run(side, adapted.recipe, _inputs(record, adapted), attributes, dtype, group.cotangents,
                    adapted.variables(record.variables))
        for output, expected in group.outputs.items():
            if output in found.outputs:
                actual = np.broadcast_to(found.outputs[output], expected.shape) if output.startswith(
                    "R_") else found.outputs[output]
                held(record, f"out/{name}/{output}", label, actual, expected, test)
        assert set(group.outputs) - set(found.outputs) <= {"R_next"}, sorted(group.outputs)
        for place, expected in group.gradients.items():
            held(record, f"grad/{name}/{place}", label, _gradient(found.gradients, adapted, place),
                 expected, test)


def _inputs(record: RoutingRecord, adapted: golden_em.Adapted) -> Arrays:
    """Inputs, and the variables where the recipe is a function."""
    return record.inputs if adapted.recipe.build else record.inputs | record.variables


def _gradient(found: Arrays, adapted: golden_em.Adapted, place: str) -> np.ndarray:
    kind, _, name = place.partition("/")
    if kind != "var" or not name:
        return found[f"grad/{place}"]
    if adapted.recipe.build is None:
        return found[f"grad/{name}"]
    (ours,) = adapted.variables({name: np.empty(0)})
    return found[f"vargrad/{ours}"]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", ROUTED)
def test_routing(name: str, side: str, request: pytest.FixtureRequest) -> None:
    """Routing functions and layers: poses, activations, assignments, gradients."""
    skip_in_smoke(request, name)
    verify_record(RECORDS[name], side, f"parity_tests/test_goldens_em.py::test_routing[{name}-{side}]")


# ---------------------------------------------------------------------------------------- whole networks

def network_settings(record: RoutingRecord, lib: Lib) -> Any:
    """Settings of a recorded network."""
    a, variables = record.attributes, record.variables
    if record.name.startswith("gr_"):
        types = (a["B"], *(int(n) for n in str(a["caps_dims"]).split(",")))
        channels = record.inputs["images"].shape[1]
    else:
        types, channels = (a["B"], a["C"], a["D"]), record.inputs["images"].shape[-1]
    first = next(value for name, value in variables.items() if name.endswith("conv1/weights"))
    return lib.em_settings.preset("official" if record.name.startswith("gr_") else "ibm",
                                  image_channels=channels, channels=first.shape[-1], types=types,
                                  classes=a["classes"])


class Trained:
    """A recorded network on one side: forward, gradients by variable name, one step at a time."""

    def __init__(self, record: RoutingRecord, side: str) -> None:
        self.lib = lib = Lib(side, record.dtype)
        self.settings = s = network_settings(record, lib)
        self.images, self.label = record.inputs["images"].astype(record.dtype), record.inputs["label"]
        if record.name.startswith("gr_"):
            self.images = self.images.transpose(0, 2, 3, 1)  # recorded channels first
        self.network = lib.module("em_network.MatrixCapsules", "", s)
        if side == "reference":
            self.network.load_variables(record.variables)
            self.optimizer = lib.optim_adam.Adam(self.network.variables_by_name, s.lr)
        else:
            self.table = lib.convert_em.table_of(s)
            lib.convert.load_module(self.network, {
                name: value.astype(record.dtype) for name, value in record.variables.items()},
                table=self.table)
            self.optimizer = lib.optim_adam.Adam(self.network.parameters(), lr=s.lr)

    def evaluate(self, step: int) -> tuple[Arrays, Arrays]:
        """Outputs and gradients of the total loss."""
        if self.lib.side == "port":
            import torch
            image = torch.from_numpy(np.ascontiguousarray(self.images.transpose(0, 3, 1, 2)))
            label = torch.from_numpy(self.label.astype(np.int64))
            found = self.network(image)
            total, spread = self.network.loss(found.activation, label, step)
            self.network.zero_grad()
            total.backward()
            self.gradients = self.lib.convert.module_gradients(self.network, table=self.table)

            def as_array(x: torch.Tensor) -> np.ndarray:
                return x.detach().numpy()
        else:
            import tensorflow as tf
            with tf.GradientTape() as tape:
                found = self.network(tf.constant(self.images))
                total, spread = self.network.loss(found.activation, self.label, step)
            variables = self.network.variables_by_name
            self.tensors = dict(zip(variables, tape.gradient(total, list(variables.values()))))
            self.gradients = {name: np.asarray(value) for name, value in self.tensors.items()}
            as_array = np.asarray
        activation = as_array(found.activation)
        outputs = {"act": activation, "pose": as_array(found.pose), "loss": as_array(total),
                   "loss_total": as_array(total), "loss_spread": as_array(spread),
                   "mid_act": as_array(found.layers[-2].activation).transpose(0, 3, 1, 2),
                   "correct": np.asarray((activation.argmax(1) == self.label).sum(), activation.dtype)}
        return outputs, self.gradients

    def step(self, step: int) -> None:
        """One Adam step with the gradients of `evaluate`."""
        s = self.settings
        rate = self.lib.optim_adam.exponential_decay(step, s.lr, s.lr_decay, s.lr_decay_steps)
        if self.lib.side == "port":
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.step()
        else:
            self.optimizer.lr = rate
            self.optimizer.step(self.tensors)

    def variables(self) -> Arrays:
        """Every variable under its original name and layout."""
        if self.lib.side == "reference":
            return {name: value.numpy() for name, value in self.network.variables_by_name.items()}
        convert = self.lib.convert
        return {name: convert.to_original(parameter.detach().numpy(), how) for name, (parameter, how)
                in convert.module_arrays(self.network, table=self.table).items()}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str, side: str, request: pytest.FixtureRequest) -> None:
    """Forward, losses, gradients, and the variables after one and five Adam steps."""
    skip_in_smoke(request, name)
    verify_network(RECORDS[name], side, f"parity_tests/test_goldens_em.py::test_network[{name}-{side}]")


def verify_network(record: RoutingRecord, side: str, test: str) -> None:
    """A whole recorded network on one side."""
    label, group, trained = f"{side} {record.dtype}", record.group(), Trained(record, side)
    losses = []
    for step in range(6):
        outputs, gradients = trained.evaluate(step)
        losses.append(outputs["loss"])
        if step == 0:
            for output, expected in group.outputs.items():
                if output != "losses_over_steps":
                    held(record, f"out/{output}", label, outputs[output], expected, test)
            for place, expected in group.gradients.items():
                held(record, f"grad/{place}", label, gradients[place.removeprefix("var/")], expected, test)
        if step == 5:
            break
        trained.step(step)
        for variable, expected in record.after(step + 1).items():
            held(record, f"after_step{step + 1}/{variable}", label, trained.variables()[variable],
                 expected, test)
    held(record, "out/losses_over_steps", label, np.asarray(losses), group.outputs["losses_over_steps"],
         test)


# ------------------------------------------------------------------------------------------ small pieces

@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", [name for name in RECORDS if "spread_loss" in name])
def test_spread_loss(name: str, side: str) -> None:
    """Both reductions at several steps, with the margin of that step, and their gradients."""
    from parity_tests.sides import Recipe

    record = RECORDS[name]
    label = record.inputs.get("label")
    label = record.inputs["labels"].argmax(1) if label is None else label
    recipe = Recipe(lambda lib, x, a, _: lib.em_losses.spread_loss(
        x["act"], x["label"], lib.em_losses.spread_margin(a["step"]), a["reduction"]), ("loss",))
    for group_name in record.groups:
        group = record.group(group_name)
        (kind, expected), = group.outputs.items()
        step = int(group_name.removeprefix("step").removesuffix("sum"))
        found = run(side, recipe, {"act": record.inputs["act"], "label": label.astype(np.int64)},
                    {"step": step, "reduction": "mean" if kind == "official_mean" else "sum"},
                    record.dtype, {"loss": np.ones(())})
        test = f"parity_tests/test_goldens_em.py::test_spread_loss[{name}-{side}]"
        held(record, f"out/{group_name}/{kind}", side, found.outputs["loss"], expected, test)
        held(record, f"grad/{group_name}/act", side, found.gradients["grad/act"],
             group.gradients["act"], test)


@pytest.mark.parametrize("side", SIDES)
def test_schedules(side: str) -> None:
    """Inverse temperature and margin."""
    record, lib = RECORDS["schedules"], Lib(side, "float64")
    settings = lib.em_settings.Routing(iterations=6)
    found = {"lam": [lib.em_routing.inverse_temperature(int(t), settings) for t in record.inputs["t"]],
             "margin": [lib.em_losses.spread_margin(int(step)) for step in record.inputs["step"]]}
    for name, expected in record.below("out").items():
        held(record, f"out/{name}", side, np.asarray(found[name]), expected,
             f"parity_tests/test_goldens_em.py::test_schedules[{side}]")


@pytest.mark.parametrize("side", SIDES)
def test_position_grid(side: str) -> None:
    """Centres carried through three layers from four image sizes."""
    record, lib = RECORDS["gr_position_grid"], Lib(side, "float64")
    layers = record.attributes["layers"]
    for key, expected in record.below("out").items():
        size, after = key.split("/")
        size, after = int(size[1:]), int(after.removeprefix("after"))
        found = lib.em_layers.carried_centres(size, size, [tuple(layer) for layer in layers[:after]])
        held(record, f"out/{key}", side, found.transpose(2, 0, 1)[None], expected,
             f"parity_tests/test_goldens_em.py::test_position_grid[{side}]")


@pytest.mark.parametrize("side", SIDES)
def test_parents_of_children(side: str) -> None:
    """Which parents see a child, and IBM's first assignment."""
    record, lib = RECORDS["ibm_routing_map_init"], Lib(side, "float64")
    for key, expected in record.below("out").items():
        sizes, what = key.split("/")
        side_, kernel, stride, types_in, types_out = (
            int(n) for n in sizes.replace("c", "").translate(str.maketrans("ksIJ", "    ")).split())
        n = (side_ - kernel) // stride + 1
        test = f"parity_tests/test_goldens_em.py::test_parents_of_children[{side}]"
        if what == "map":
            counts = lib.em_routing.parent_counts((n, n), (kernel, kernel), stride)
            covered = len(counts)
            seen = expected.sum(1).reshape(side_, side_)
            assert not seen[covered:].any() and not seen[:, covered:].any()
            held(record, f"out/{key}", side, counts, seen[:covered, :covered], test)
            continue
        found = lib.em_routing.initial_assignment((n, n), (kernel, kernel), types_out, stride,
                                                  lib.em_settings.IBM_ROUTING)
        found = np.broadcast_to(found, (1, n, n, kernel, kernel, types_in, types_out))
        held(record, f"out/{key}", side, found.reshape(expected.shape), expected, test)


def test_every_record_is_compared() -> None:
    """A record nobody knows is an error, not silence."""
    for record in RECORDS.values():
        golden_em.adapt(record)
    reason = routing.missing("em")
    if reason is not None:
        pytest.skip(reason)
