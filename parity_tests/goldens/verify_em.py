"""Every recording of the EM programs, one at a time, on one side: values, gradients, five Adam steps.

Used by test_goldens_em.py on the recordings that are known, and by `scae verify --golden` on any folder of
such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from parity_tests.goldens import em
from parity_tests.goldens.routing import RoutingRecord, held
from parity_tests.harness.sides import Arrays, Lib, Recipe, place, run

HERE = "parity_tests/tests/goldens/test_goldens_em.py"


def verify(record: RoutingRecord, side: str) -> None:
    """All of a record on one side.

    Raises:
        ParityError: an array differs by more than its bound.
        KeyError: no recipe for this record.
    """
    for beginning, (compare, test) in _ALONE.items():
        if beginning in record.name:
            compare(record, side, f"{HERE}::{test}")
            return
    verify_record(record, side, f"{HERE}::test_routing[{record.name}-{side}]")


def verify_record(record: RoutingRecord, side: str, test: str) -> None:
    """Every group of a record: outputs, and gradients for its cotangents.

    Raises:
        ParityError: an array differs by more than its bound.
        AssertionError: a recorded array that nothing here compares.
    """
    adapted = em.adapt(record)
    dtype, label = record.dtype, f"{side} {record.dtype}"
    for name in record.groups:
        group = record.group(name)
        attributes = adapted.attributes | {"iterations": int(name[1:]) if name else 1}
        found = run(side, adapted.recipe, _inputs(record, adapted), attributes, dtype, group.cotangents,
                    adapted.variables(record.variables))
        recorded = record.common | group.outputs  # votes are the same in every group
        assert set(recorded) <= set(found.outputs), (
            f"{record.key}: not compared: {sorted(set(recorded) - set(found.outputs))}")
        prefix = f"{name}/" if name else ""
        for output, expected in recorded.items():
            actual = np.broadcast_to(found.outputs[output], expected.shape) if output.startswith(
                "R_") else found.outputs[output]
            place = f"out/{output}" if output in record.common else f"out/{prefix}{output}"
            held(record, place, label, actual, expected, test)
        for place, expected in group.gradients.items():
            held(record, f"grad/{prefix}{place}", label, _gradient(found.gradients, adapted, place),
                 expected, test)


def _inputs(record: RoutingRecord, adapted: em.Adapted) -> Arrays:
    """Inputs, and the variables where the recipe is a function."""
    return record.inputs if adapted.recipe.build else record.inputs | record.variables


def _gradient(found: Arrays, adapted: em.Adapted, place: str) -> np.ndarray:
    kind, _, name = place.partition("/")
    if kind != "var" or not name:
        return found[f"grad/{place}"]
    if adapted.recipe.build is None:
        return found[f"grad/{name}"]
    (ours,) = adapted.variables({name: np.empty(0)})
    return found[f"vargrad/{ours}"]


def network_settings(record: RoutingRecord, lib: Lib) -> Any:
    """Settings of a recorded network."""
    a, variables = record.attributes, record.variables
    if record.name.startswith("gr_"):
        types = (a["B"], *(int(n) for n in str(a["caps_dims"]).split(",")))
        channels = record.inputs["images"].shape[1]
    else:
        types, channels = (a["B"], a["C"], a["D"]), record.inputs["images"].shape[-1]
    first = next(value for name, value in variables.items() if name.endswith("conv1/weights"))
    return lib.em.settings.preset("official" if record.name.startswith("gr_") else "ibm",
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
        self.network = lib.module("em.network.MatrixCapsules", "", s)
        if side == "reference":
            self.network.load_variables(record.variables)
            self.optimizer = lib.core.adam.Adam(self.network.variables_by_name, s.lr)
        else:
            self.table = lib.em.tf_names.table_of(s)
            self.network.check_range = False  # the recorded images lie in [-1, 1]
            lib.checkpoints.convert.load_module(self.network, {
                name: value.astype(record.dtype) for name, value in record.variables.items()},
                table=self.table)
            self.optimizer = lib.core.adam.Adam(self.network.parameters(), lr=s.lr)

    def evaluate(self, step: int) -> tuple[Arrays, Arrays]:
        """Outputs and gradients of the total loss."""
        if self.lib.side == "port":
            import torch
            image = torch.from_numpy(np.ascontiguousarray(self.images.transpose(0, 3, 1, 2))).to(place())
            label = torch.from_numpy(self.label.astype(np.int64)).to(place())
            found = self.network(image)
            total, spread = self.network.loss(found.activation, label, step)
            self.network.zero_grad()
            total.backward()
            self.gradients = self.lib.checkpoints.convert.module_gradients(self.network, table=self.table)

            def as_array(x: torch.Tensor) -> np.ndarray:
                return x.detach().cpu().numpy()
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
        rate = self.lib.core.adam.exponential_decay(step, s.lr, s.lr_decay, s.lr_decay_steps)
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
        convert = self.lib.checkpoints.convert
        return {name: convert.to_original(parameter.detach().cpu().numpy(), how) for name, (parameter, how)
                in convert.module_arrays(self.network, table=self.table).items()}


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


def verify_spread_loss(record: RoutingRecord, side: str, test: str) -> None:
    """Both reductions at several steps, with the margin of that step, and their gradients."""
    label = record.inputs.get("label")
    label = record.inputs["labels"].argmax(1) if label is None else label
    recipe = Recipe(lambda lib, x, a, _: lib.em.losses.spread_loss(
        x["act"], x["label"], lib.em.losses.spread_margin(a["step"]), a["reduction"]), ("loss",))
    for group_name in record.groups:
        group = record.group(group_name)
        (kind, expected), = group.outputs.items()
        step = int(group_name.removeprefix("step").removesuffix("sum"))
        found = run(side, recipe, {"act": record.inputs["act"], "label": label.astype(np.int64)},
                    {"step": step, "reduction": "mean" if kind == "official_mean" else "sum"},
                    record.dtype, {"loss": np.ones(())})
        held(record, f"out/{group_name}/{kind}", side, found.outputs["loss"], expected, test)
        held(record, f"grad/{group_name}/act", side, found.gradients["grad/act"],
             group.gradients["act"], test)


def verify_schedules(record: RoutingRecord, side: str, test: str) -> None:
    """Inverse temperature and margin."""
    lib = Lib(side, "float64")
    settings = lib.em.settings.Routing(iterations=6)
    found = {"lam": [lib.em.routing.inverse_temperature(int(t), settings) for t in record.inputs["t"]],
             "margin": [lib.em.losses.spread_margin(int(step)) for step in record.inputs["step"]]}
    for name, expected in record.below("out").items():
        held(record, f"out/{name}", side, np.asarray(found[name]), expected,
             test)


def verify_position_grid(record: RoutingRecord, side: str, test: str) -> None:
    """Centres carried through three layers from four image sizes."""
    lib = Lib(side, "float64")
    layers = record.attributes["layers"]
    for key, expected in record.below("out").items():
        size, after = key.split("/")
        size, after = int(size[1:]), int(after.removeprefix("after"))
        found = lib.em.layers.carried_centres(size, size, [tuple(layer) for layer in layers[:after]])
        held(record, f"out/{key}", side, found.transpose(2, 0, 1)[None], expected,
             test)


def verify_parents_of_children(record: RoutingRecord, side: str, test: str) -> None:
    """Which parents see a child, and IBM's first assignment."""
    lib = Lib(side, "float64")
    for key, expected in record.below("out").items():
        sizes, what = key.split("/")
        side_, kernel, stride, types_in, types_out = (
            int(n) for n in sizes.replace("c", "").translate(str.maketrans("ksIJ", "    ")).split())
        n = (side_ - kernel) // stride + 1
        if what == "map":
            counts = lib.em.windows.parent_counts((n, n), (kernel, kernel), stride)
            covered = len(counts)
            seen = expected.sum(1).reshape(side_, side_)
            assert not seen[covered:].any() and not seen[:, covered:].any()
            held(record, f"out/{key}", side, counts, seen[:covered, :covered], test)
            continue
        found = lib.em.routing.initial_assignment((n, n), (kernel, kernel), types_out, stride,
                                                  lib.em.settings.IBM_ROUTING)
        found = np.broadcast_to(found, (1, n, n, kernel, kernel, types_in, types_out))
        held(record, f"out/{key}", side, found.reshape(expected.shape), expected, test)


# Part of a record's name → what compares it, and the test that does.
_ALONE: dict[str, tuple[Callable[[RoutingRecord, str, str], None], str]] = {
    "net_tiny": (verify_network, "test_network"), "spread_loss": (verify_spread_loss, "test_spread_loss"),
    "schedules": (verify_schedules, "test_schedules"),
    "position_grid": (verify_position_grid, "test_position_grid"),
    "routing_map": (verify_parents_of_children, "test_parents_of_children")}
