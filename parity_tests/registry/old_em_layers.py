"""Rows of `em_layers`, `em_losses` and `em_network`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from parity_tests.goldens.em import table
from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry import OpCase
from parity_tests.registry.old_em import POSE, ROUTED, _grid, _routing, _settings, _sizes


def _padding(m: Maker) -> Case:
    return m.case({"size": m.size(1, 12), "kernel": m.size(1, 5), "stride": m.size(1, 3)})


def _padded(m: Maker) -> Case:
    case = _grid(m)
    case.attributes["padding"] = m.choice(["SAME", "SAME", "VALID"])
    return case


def _image(m: Maker) -> Case:
    return m.case(terms=60, image=m.normal(*m.sizes(4, 2, 6), scale=m.choice([1.0, 0.1])))


def _product(m: Maker) -> Case:
    batch, rows, columns, high, wide, types_in, parents = _sizes(m)
    return m.case(terms=4, pose=m.normal(batch, rows, columns, high, wide, types_in, POSE),
                  weight=m.normal(high, wide, types_in, parents, 4, 4))


def _centres(m: Maker) -> Case:
    return m.case({"height": m.size(1, 9), "width": m.size(1, 9)})


def _carried(m: Maker) -> Case:
    layers = [(m.size(1, 3), m.size(1, 2)) for _ in range(m.size(0, 3))]
    return m.case({"height": m.size(16, 24), "width": m.size(16, 24), "layers": layers})


def _coordinates(m: Maker) -> Case:
    high, wide = m.size(1, 3), m.size(1, 4)
    return m.case({"coordinates": m.choice(["column", "row"])},
                  votes=m.normal(m.size(1, 2), 1, 1, high, wide, m.size(1, 3), m.size(1, 3), POSE),
                  centres=m.normal(high, wide, 2))


def _convolution(m: Maker) -> Case:
    kernel, channels = m.size(1, 3), m.size(1, 3)
    a = {"in_channels": channels, "out_channels": m.size(1, 4), "kernel": kernel, "stride": m.size(1, 3),
         "padding": m.choice(["VALID", "SAME"])}
    return m.case(a, terms=kernel ** 2 * channels, image=m.normal(
        m.size(1, 2), kernel + m.size(0, 4), kernel + m.size(0, 5), channels))


def _primary(m: Maker) -> Case:
    channels = m.size(1, 5)
    a = {"channels": channels, "types": m.size(1, 4), "primary": m.choice(["separate", "joint"]),
         "stddev": (0.5, 1.0)}
    return m.case(a, terms=channels, features=m.normal(m.size(1, 2), m.size(1, 4), m.size(1, 3), channels,
                                                       scale=1.0))


def _children(m: Maker, height: int, width: int, types: int) -> dict[str, np.ndarray]:
    batch = m.size(1, 2)
    return {"pose": m.normal(batch, height, width, types, POSE, scale=1.0),
            "activation": m.uniform(batch, height, width, types, low=0.05, high=1.0)}


def _conv_capsules(m: Maker) -> Case:
    kernel = m.choice([2, 3, (1, 3), (3, 2)])
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    a = {"types_in": m.size(1, 3), "types_out": m.size(1, 3), "kernel": kernel, "stride": m.size(1, 2),
         "padding": m.choice(["VALID", "SAME"]), "routing": _routing(m), "stddev": 0.5,
         "identity": m.flag(), "betas": (0.5, 0.25)}
    return m.case(a, terms=high * wide * a["types_in"] * POSE,
                  **_children(m, high + m.size(0, 3), wide + m.size(0, 2), a["types_in"]))


def _class_capsules(m: Maker) -> Case:
    high, wide = m.size(1, 3), m.size(2, 3)
    a = {"types_in": m.size(1, 3), "classes": m.size(1, 4),
         "routing": _routing(m, competition=m.choice(["parents", "filled"])),
         "coordinates": m.choice(["column", "row"]), "stddev": 0.5, "identity": m.flag(),
         "betas": (0.5, 0.25)}
    case = m.case(a, terms=high * wide * a["types_in"] * POSE, **_children(m, high, wide, a["types_in"]))
    if a["coordinates"] == "row":
        case.attributes["centres"] = m.normal(high, wide, 2, scale=1.0)
    return case


def _inactive_example() -> Case:
    """No child of the second example is active: its parents have no mass."""
    rng = np.random.default_rng(11)
    activation = rng.uniform(0.1, 1.0, (2, 3, 4, 2))
    activation[1] = 0.0
    return Case({"pose": rng.standard_normal((2, 3, 4, 2, POSE)), "activation": activation},
                {"types_in": 2, "types_out": 2, "kernel": 2, "stride": 1, "padding": "VALID",
                 "routing": {"variance_floor": 1e-2}, "stddev": 0.5, "identity": False,
                 "betas": (0.5, 0.25)})


def _same(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    return np.asarray(lib.em.layers.same_padding(**a))


def _scope(a: dict[str, Any], ibm: str, official: str) -> str:
    return official if table(a).endswith("OFFICIAL") else ibm


def _build(op: str, ibm: str, official: str) -> Any:
    def build(lib: Any, a: dict[str, Any]) -> Any:
        arguments = {name: value for name, value in a.items() if name != "centres"}
        if "routing" in a:
            arguments["routing"] = _settings(lib, a["routing"])
        return lib.module(op, _scope(a, ibm, official), **arguments)
    return build


def _run_class(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    return m(**x, centres=a.get("centres"))


def _network(m: Maker) -> Case:
    """A whole network on an image just large enough for its layers."""
    name = m.choice(["paper", "ibm", "official"])
    padding = "SAME" if name != "official" and m.flag() else "VALID"
    strides = (m.size(1, 2), 1)
    convolved = (2 - 1) * 1 + 3  # children of the first capsule layer for a 2 × 2 grid above it
    size = {2: 2 * (convolved + 1) + 5, 1: 2 * convolved + 5}[strides[0]]
    a = {"preset": name, "changes": {
        "image_channels": m.size(1, 2), "channels": m.size(2, 3),
        "types": (m.size(1, 2), m.size(1, 2), m.size(1, 3)), "strides": strides, "padding": padding,
        "kernels": (3, 2), "classes": m.size(2, 3),
        "beta_a": (0.0, 0.0), "primary_stddev": (0.5, 0.5), "decay": 1e-2}}
    return m.case(a | {"step": m.choice([0, 200_000])}, terms=9 * 2 * POSE,
                  image=m.uniform(2, size, size, a["changes"]["image_channels"]),
                  label=m.rng.integers(0, a["changes"]["classes"], 2))


def _network_settings(lib: Any, a: dict[str, Any]) -> Any:
    settings = lib.em.settings.preset(a["preset"], **a["changes"])
    # The floor of the recordings is too ill-conditioned for the general bounds, see `FLOORS`.
    return replace(settings, routing=replace(settings.routing, variance_floor=1e-2),
                   class_routing=replace(settings.class_routing, variance_floor=1e-2))


def _run_network(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    found = m(x["image"])
    total, spread = m.loss(found.activation, x["label"], a["step"])
    return {"total": total, "spread": spread, "activation": found.activation, "logit": found.logit,
            "pose": found.pose,
            "first_pose": found.layers[0].pose, "first_activation": found.layers[0].activation}


def _loss(m: Maker) -> Case:
    batch, classes = m.size(1, 5), m.size(2, 5)
    return m.case({"margin": m.choice([0.2, 0.9]), "reduction": m.choice(["sum", "mean"])},
                  terms=batch * classes, activation=m.uniform(batch, classes),
                  label=m.rng.integers(0, classes, batch))


def _margin(m: Maker) -> Case:
    return m.case({"step": m.size(0, 1_000_000), "schedule": m.choice(["sigmoid", "linear", "constant"]),
                   "ramp": m.choice([10_000, 500_000])})


def _coordinate_call(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.em.layers.coordinate_addition(x["votes"], x["centres"], a["coordinates"])


ROWS = (
    OpCase("em.layers.same_padding", Recipe(_same), _padding, exact=True),
    OpCase("em.layers.pad_children", function("em.layers.pad_children"), _padded),
    OpCase("em.layers.batch_normalize", function("em.layers.batch_normalize",
                                                 layouts={"image": 1, "out": 1}), _image),
    OpCase("em.layers.pose_product", function("em.layers.pose_product"), _product, oracle=True),
    OpCase("em.layers.grid_centres", function("em.layers.grid_centres"), _centres, exact=True),
    OpCase("em.layers.carried_centres", function("em.layers.carried_centres"), _carried, exact=True),
    OpCase("em.layers.coordinate_addition", Recipe(_coordinate_call), _coordinates, oracle=True),
    OpCase("em.layers.Convolution", Recipe(
        lambda lib, x, a, m: m(x["image"]), layouts={"image": 1, "out": 1},
        build=_build("em.layers.Convolution", "relu_conv1", "conv1"), torch_scope="conv.", table=table),
        _convolution),
    OpCase("em.layers.PrimaryCapsules", Recipe(
        lambda lib, x, a, m: m(x["features"]), ("pose", "activation"), {"features": 1},
        build=_build("em.layers.PrimaryCapsules", "primary_caps", "conv_capsule1"),
        torch_scope="primary.", table=table), _primary, oracle=True),
    OpCase("em.layers.ConvCapsules", Recipe(
        lambda lib, x, a, m: m(**x), ROUTED, build=_build(
            "em.layers.ConvCapsules", "lyr.conv_caps1", "convCaps0"), torch_scope="capsules.0.",
        table=table), _conv_capsules, (("no active child", _inactive_example()),), oracle=True,
        judges=("em.fused", "em.kernel")),
    OpCase("em.layers.ClassCapsules", Recipe(
        _run_class, ROUTED, build=_build("em.layers.ClassCapsules", "class_caps", "capsule2"),
        torch_scope="class_capsules.", table=table), _class_capsules, oracle=True),
    OpCase("em.losses.spread_margin", function("em.losses.spread_margin"), _margin, exact=True),
    OpCase("em.losses.spread_loss", function("em.losses.spread_loss", constants=("label",)), _loss,
           oracle=True),
    OpCase("em.network.MatrixCapsules", Recipe(
        _run_network, ("total", "spread", "activation", "logit", "pose", "first_pose",
                       "first_activation"), {"image": 1}, ("label",),
        build=lambda lib, a: lib.module("em.network.MatrixCapsules", "", _network_settings(lib, a)),
        table=lambda a: "em.tf_names:OFFICIAL" if a["preset"] == "official" else "em.tf_names"), _network),
)
