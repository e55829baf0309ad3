"""Rows of `em/layers.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.em import table
from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.em.drawing import (
    POSE,
    ROUTED,
    draw_grid,
    draw_routing,
    draw_sizes,
    make_settings,
)
from parity_tests.registry.row import OpCase


def _padding(m: Maker) -> Case:
    return m.case({"size": m.size(1, 12), "kernel": m.size(1, 5), "stride": m.size(1, 3)})


def _padded(m: Maker) -> Case:
    case = draw_grid(m)
    case.attributes["padding"] = m.choice(["SAME", "SAME", "VALID"])
    return case


def _image(m: Maker) -> Case:
    return m.case(terms=60, image=m.normal(*m.sizes(4, 2, 6), scale=m.choice([1.0, 0.1])))


def _product(m: Maker) -> Case:
    batch, rows, columns, high, wide, types_in, parents = draw_sizes(m)
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
         "padding": m.choice(["VALID", "SAME"]), "routing": draw_routing(m), "stddev": 0.5,
         "identity": m.flag(), "betas": (0.5, 0.25)}
    return m.case(a, terms=high * wide * a["types_in"] * POSE,
                  **_children(m, high + m.size(0, 3), wide + m.size(0, 2), a["types_in"]))


def _class_capsules(m: Maker) -> Case:
    high, wide = m.size(1, 3), m.size(2, 3)
    a = {"types_in": m.size(1, 3), "classes": m.size(1, 4),
         "routing": draw_routing(m, competition=m.choice(["parents", "filled"])),
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
            arguments["routing"] = make_settings(lib, a["routing"])
        return lib.module(op, _scope(a, ibm, official), **arguments)
    return build


def _run_class(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    return m(**x, centres=a.get("centres"))


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
)
