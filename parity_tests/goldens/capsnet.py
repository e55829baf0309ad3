"""Which recorded function of a CapsNet program is which recipe here.

A record is a function with one or more groups; each group becomes one run of a recipe of the registry,
with recorded names and layouts mapped to ours. Images and feature maps are recorded channels first
with an axis of one child (`[batch, 1, channel, row, col]`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from parity_tests.goldens.routing import RoutingRecord
from parity_tests.harness.sides import Arrays, Lib, Recipe
from parity_tests.registry.capsnet.layers import CAPSULES, DECODER, PRIMARY
from parity_tests.registry.capsnet.losses import MARGIN, TERMS
from parity_tests.registry.capsnet.network import NETWORK
from parity_tests.registry.capsnet.routing import ROUTING, SQUASH

# `(k·7919 + 13) mod size` samples a full-size network's gradients.
SAMPLES = 64


@dataclass(frozen=True)
class Run:
    """One group of a record as something both sides can run.

    Attributes:
        recipe: how to run it.
        inputs: arrays in our layout.
        attributes: plain arguments.
        variables: by our name; None for functions.
        outputs: recorded output → (our output, ours → recorded layout).
        gradients: recorded gradient → (ours, ours → recorded layout).
        cotangents: by our output.
    """

    recipe: Recipe
    inputs: Arrays
    attributes: dict[str, Any]
    outputs: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
    cotangents: Arrays
    gradients: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = field(default_factory=dict)
    variables: Arrays | None = None


def same(value: np.ndarray) -> np.ndarray:
    """Recorded and ours have one layout."""
    return value


def one(value: Any = 1.0) -> np.ndarray:
    """The cotangent of a scalar output whose own gradient is recorded."""
    return np.asarray(value)


def _squash(record: RoutingRecord, group: str) -> Run:
    official = "axis" in record.attributes
    attributes = {"axis": record.attributes["axis"]} if official else {"epsilon": 1e-8}
    return Run(SQUASH, record.inputs, attributes, {"v": ("out", same)},
               {"out": record.group(group).cotangents["v"]}, {"s": ("grad/s", same)})


def _routing(record: RoutingRecord, group: str) -> Run:
    attributes = {"iterations": int(group[1:]), "leaky": record.attributes["leaky"]}
    return Run(ROUTING, record.inputs, attributes, {"v": ("capsules", same)},
               {"capsules": record.group(group).cotangents["v"]},
               {name: (f"grad/{name}", same) for name in ("votes", "bias")})


def _capsule_layer(record: RoutingRecord, group: str) -> Run:
    recorded, iterations = record.variables, int(group[1:])
    official = "net/caps/weights_1" in recorded
    weights = recorded["net/caps/weights_1" if official else "weight"]
    if official:
        parents, after = recorded["net/caps/biases_1"].shape
        variables = {"capsule2/weights": weights, "capsule2/biases": recorded["net/caps/biases_1"]}
        names = {"var/net/caps/weights_1": ("vargrad/capsule2/weights", same),
                 "var/net/caps/biases_1": ("vargrad/capsule2/biases", same)}
    else:  # XifengGuo's [parent, child, out, in]
        parents, children, after, before = weights.shape
        variables = {"capsule2/weights": weights.transpose(1, 3, 0, 2).reshape(children, before, -1)}
        names = {"var/weight": ("vargrad/capsule2/weights", lambda w: w.reshape(
            children, before, parents, after).transpose(2, 0, 3, 1))}
    _, children, before = record.inputs["u"].shape
    attributes = {"preset": "official" if official else "xg", "sizes": [children, before, parents, after],
                  "settings": {"iterations": iterations,
                               "leaky": bool(record.attributes.get("leaky", False))}}
    return Run(CAPSULES, {"capsules": record.inputs["u"]}, attributes, {"v": ("capsules", same)},
               {"capsules": record.group(group).cotangents["v"]},
               {"u": ("grad/capsules", same)} | names, variables)


def _primary(record: RoutingRecord, group: str) -> Run:
    a = record.attributes
    features = record.inputs["x"][:, 0].transpose(0, 2, 3, 1)
    attributes = {"preset": "official", "in_channels": features.shape[-1], "settings": {
        "kernel": a["kernel"], "primary_stride": a["stride"], "primary_types": a["types"],
        "primary_atoms": a["atoms"], "leaky": a["leaky"]}}
    names = {"x": ("grad/features", lambda g: g.transpose(0, 3, 1, 2)[:, None])} | {
        f"var/prim/{name}_1": (f"vargrad/conv_capsule1/{name}", same) for name in ("weights", "biases")}
    return Run(PRIMARY, {"features": features}, attributes,
               {"grid": ("grid", same), "flat": ("flat", same)}, record.group(group).cotangents, names,
               {f"conv_capsule1/{name}": record.variables[f"prim/{name}_1"]
                for name in ("weights", "biases")})


def _margin(record: RoutingRecord, group: str) -> Run:
    if group == "el":  # the official elements carry its factor 1/2
        return Run(TERMS, record.inputs, {}, {"elementwise": ("out", lambda v: 0.5 * v)}, {})
    name = {"mean": "official", "sum": "paper"}[group]
    return Run(MARGIN, record.inputs, {"reduction": group}, {name: ("out", same)}, {"out": one()},
               {"lengths": ("grad/lengths", same)})


def _run_reconstruction(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    picture = m(lib.capsnet.layers.mask_capsules(x["v"], x["keep"]))
    loss = lib.capsnet.losses.reconstruction_loss(x["image"], picture, a["weight"])
    margin = lib.capsnet.losses.margin_loss(lib.capsnet.routing.capsule_lengths(x["v"]), x["mask"], "mean")
    return {"image": picture, "recon_loss": loss, "total": margin + loss}


def _reconstruction(record: RoutingRecord, group: str) -> Run:
    recorded, inputs = record.variables, record.inputs
    inputs["keep"] = inputs["mask"].argmax(1)
    _, classes, atoms = inputs["v"].shape
    attributes = {"in_features": classes * atoms, "hidden": record.attributes["layers"],
                  "pixels": inputs["image"].shape[1], "initial": "official",
                  "weight": record.attributes["balance"]}
    output = {"recon": "image", "rl": "recon_loss", "tot": "total"}[group]
    recipe = replace(DECODER, call=_run_reconstruction, outputs=("image", "recon_loss", "total"),
                     constants=("image", "mask"))
    return Run(recipe, inputs, attributes, {output: (output, same)},
               {} if group == "recon" else {output: one()},
               {"v": ("grad/v", same)} | {f"var/{n}": (f"vargrad/{n}", same) for n in recorded}, recorded)


def _run_total(lib: Lib, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return (lib.capsnet.losses.margin_loss(x["lengths"], x["labels"], "sum")
            + lib.capsnet.losses.reconstruction_loss(x["image"], x["recon"], a["weight"]))


def _total(record: RoutingRecord, group: str) -> Run:
    recipe = Recipe(_run_total, constants=("labels", "image"))
    return Run(recipe, record.inputs, {"weight": 0.0005}, {"loss": ("out", same)}, {"out": one()},
               {name: (f"grad/{name}", same) for name in ("lengths", "recon")})


def network_settings(record: RoutingRecord) -> dict[str, Any]:
    """Settings of a recorded network, from its attributes; the full-size one is the preset itself."""
    a = record.attributes
    if "conv1_channels" not in a:
        return {"iterations": a["routing"]}
    return {"canvas": record.inputs["images"].shape[-1], "conv1_channels": a["conv1_channels"],
            "kernel": a["kernel"], "conv1_stride": a["conv1_stride"],
            "primary_stride": a["primary_stride"], "primary_types": a["primary_types"],
            "primary_atoms": a["primary_atoms"], "classes": a["classes"],
            "class_atoms": a["class_atoms"], "decoder": tuple(a["decoder"]),
            "iterations": a["routing"], "leaky": a["leaky"]}


def network_variables(record: RoutingRecord) -> Arrays:
    """Variables as recorded, or drawn as the attributes of the full-size network say."""
    if record.variables:
        return record.variables
    rng = np.random.RandomState(161)
    return {name: (rng.standard_normal(shape) * scale).astype(np.float32)
            for name, shape, scale in record.attributes["order"]}


def fingerprint(gradient: np.ndarray) -> Arrays:
    """Norm, sum and samples of a gradient, as recorded for the full-size network."""
    flat = np.asarray(gradient, np.float64).ravel()
    return {"norm": np.linalg.norm(flat), "sum": flat.sum(),
            "sample": flat[(np.arange(SAMPLES) * 7919 + 13) % flat.size]}


def _network(record: RoutingRecord, group: str) -> Run:
    outputs = {"lengths": ("lengths", same),
               "recon": ("reconstruction", lambda r: r.transpose(0, 3, 1, 2).reshape(len(r), -1)),
               "loss_total": ("loss", same), "loss_margin": ("margin_loss", same),
               "loss_recon": ("reconstruction_loss", same)}
    if "correct" in record.group(group).outputs:
        outputs["correct"] = ("accuracy", lambda share: share * len(record.inputs["label"]))
    variables = network_variables(record)
    return Run(NETWORK, {"image": record.inputs["images"].transpose(0, 2, 3, 1),
                              "label": record.inputs["label"]},
               {"preset": "official", "settings": network_settings(record)}, outputs, {"loss": one()},
               {f"var/{name}": (f"vargrad/{name}", same) for name in variables}, variables)


RUNS: dict[str, Callable[[RoutingRecord, str], Run]] = {
    "squash": _squash, "xg_squash": _squash, "routing_fc": _routing, "routing_conv": _routing,
    "capsule_layer": _capsule_layer, "xg_capsule_layer": _capsule_layer, "primary_caps": _primary,
    "margin_loss": _margin, "reconstruction": _reconstruction, "xg_loss": _total, "net": _network}


def run_of(record: RoutingRecord, group: str) -> Run:
    """The run of a record's group.

    Raises:
        KeyError: no recipe for this function: a recording of something new.
    """
    kind = max((name for name in RUNS if record.name.startswith(name)), key=len, default=None)
    if kind is None:
        raise KeyError(f"no recipe for {record.name}: {record.entry['function']}")
    return RUNS[kind](record, group)
