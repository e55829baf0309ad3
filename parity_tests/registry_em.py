"""Rows of the matrix-capsule rooms: settings, EM routing, layers, losses, network."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.golden_em import table
from parity_tests.golden_ops import function
from parity_tests.registry import OpCase
from parity_tests.sides import Recipe
from parity_tests.strategies import Case, Maker

POSE = 16
# Variances near the floor 1e-9 magnify the rounding of the mean by 1e9 in the gradient; the recordings
# cover that floor, the drawn ones are larger.
FLOORS = [5e-4, 1e-2, 0.3]


def _routing(m: Maker, iterations: int | None = None, **fixed: Any) -> dict[str, Any]:
    """Arguments of `Routing`, every setting drawn."""
    drawn = {"iterations": m.size(1, 3) if iterations is None else iterations,
             "final_lambda": m.choice([0.01, 0.02, 0.1]),
             "schedule": m.choice(["geometric", "linear", "constant"]),
             "competition": m.choice(["parents", "parents", "filled", "stride_1_per_type"]),
             "initial": m.choice(["parents", "parents", "types"]),
             "initial_epsilon": m.choice([0.0, 1e-9, 0.1]), "mass_epsilon": m.choice([0.0, 1e-9, 0.02]),
             "mass_epsilon_in_cost": m.flag(), "variance_floor": m.choice(FLOORS),
             "momentum": m.choice([0.0, 0.1]), "log_epsilon": m.choice([0.0, 1e-9, 0.01]),
             "cost_scale": m.choice(["none", "children"]), "betas": m.choice(["paper", "official"])}
    return drawn | fixed


def _official_scale(routing: dict[str, Any]) -> float:
    """The official activation bias is worth 2,500 of the paper's."""
    return 2500.0 if routing["betas"] == "official" else 1.0


def _sizes(m: Maker) -> tuple[int, ...]:
    """B, P, Q, K, L, I, J: windows of at least two children, so that a variance is one."""
    batch, rows, columns = m.size(1, 2), m.size(1, 3), m.size(1, 3)
    high, wide = m.size(1, 3), m.size(1, 3)
    types_in = m.size(2 if high * wide == 1 else 1, 3)
    return batch, rows, columns, high, wide, types_in, m.size(1, 4)


def _votes(m: Maker, sizes: tuple[int, ...]) -> np.ndarray:
    """Votes that agree in part: a place for each parent, and noise."""
    batch, rows, columns, *_, parents = sizes
    centre = m.normal(batch, rows, columns, 1, 1, 1, parents, POSE, scale=1.0)
    return centre + m.normal(*sizes, POSE, scale=m.choice([0.5, 2.0]))


def _settings(lib: Any, routing: dict[str, Any]) -> Any:
    return lib.em_settings.Routing(**routing)


def _temperature(m: Maker) -> Case:
    return m.case({"iteration": m.size(0, 5), "routing": _routing(m)})


def _beta(m: Maker) -> Case:
    parents = m.size(1, 5)
    return m.case({"betas": m.choice(["paper", "official"])}, beta_u=m.normal(parents),
                  beta_a=m.normal(parents))


def _divide(m: Maker) -> Case:
    shape = m.shape(1, 3)
    y = m.sprinkle(m.uniform(*shape, low=0.1, high=3.0) * m.rng.choice([-1.0, 1.0], shape), [0.0], 0.2)
    return m.case(numerator=m.normal(*shape, 3), denominator=y[..., None])


def _grid(m: Maker) -> Case:
    kernel, stride = (m.size(1, 3), m.size(1, 3)), m.size(1, 3)
    height, width = kernel[0] + m.size(0, 4), kernel[1] + m.size(0, 4)
    return m.case({"kernel": kernel, "stride": stride},
                  children=m.normal(m.size(1, 2), height, width, *m.shape(1, 2)))


def _entries(m: Maker) -> Case:
    sizes = _sizes(m)
    stride = m.size(1, 3)
    used = [(n - 1) * stride + k for n, k in zip(sizes[1:3], sizes[3:5])]
    grid = None if m.flag() else (used[0] + m.size(0, 2), used[1] + m.size(0, 2))
    return m.case({"stride": stride, "grid": grid}, terms=sizes[1] * sizes[2],
                  entries=m.normal(*sizes[:m.size(5, 7)]))


def _counts(m: Maker) -> Case:
    return m.case({"parents": (m.size(1, 4), m.size(1, 4)), "kernel": (m.size(1, 4), m.size(1, 4)),
                   "stride": m.size(1, 3)})


def _initial(m: Maker) -> Case:
    case = _counts(m)
    case.attributes |= {"parent_types": m.size(1, 4), "routing": _routing(m)}
    return case


def _m_step(m: Maker) -> Case:
    sizes, routing = _sizes(m), _routing(m, betas="paper")
    inputs = {"votes": _votes(m, sizes), "weights": m.uniform(*sizes, low=0.02, high=1.0),
              "beta_u": m.normal(sizes[-1], scale=1.0), "beta_a": m.normal(sizes[-1], scale=1.0)}
    if m.flag():
        inputs["previous_mean"] = m.normal(*sizes[:3], sizes[-1], POSE, scale=1.0)
    if m.flag(3):
        inputs["weights"][:, 0, 0] = 0.0  # a parent without mass
        routing["mass_epsilon"] = 0.0
    return m.case({"temperature": m.choice([0.01, 0.3, 2.0]), "routing": routing},
                  terms=int(np.prod(sizes[3:6])) * POSE, **inputs)


def _log_activation(m: Maker) -> Case:
    return m.case({"routing": _routing(m)}, logit=m.logits(*m.shape(1, 3)))


def _e_step(m: Maker) -> Case:
    sizes = _sizes(m)
    parents = (*sizes[:3], sizes[-1])
    return m.case(terms=POSE, votes=_votes(m, sizes), mean=m.normal(*parents, POSE, scale=1.0),
                  variance=m.uniform(*parents, POSE, low=0.05, high=3.0),
                  log_active=-m.uniform(*parents, low=0.01, high=40.0))


def _compete(m: Maker) -> Case:
    sizes = _sizes(m)
    return m.case({"stride": m.size(1, 3),
                   "competition": m.choice(["parents", "filled", "stride_1_per_type"])},
                  terms=int(np.prod(sizes[1:5])) * sizes[-1],
                  joint=m.normal(*sizes, scale=m.choice([1.0, 10.0, 60.0])) + m.choice([0.0, -300.0]))


def _route(m: Maker) -> Case:
    sizes, routing = _sizes(m), _routing(m)
    return m.case({"stride": m.size(1, 3), "routing": routing}, terms=int(np.prod(sizes[3:6])) * POSE,
                  votes=_votes(m, sizes), activation=m.uniform(*sizes[:-1], low=0.05, high=1.0),
                  beta_u=m.normal(sizes[-1], scale=1.0),
                  beta_a=m.normal(sizes[-1], scale=1.0 / _official_scale(routing)))


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


def _one_child() -> Case:
    """Each parent has one child, whose vote is its mean: the variance is the floor alone."""
    rng = np.random.default_rng(7)
    return Case({"votes": rng.standard_normal((1, 2, 3, 1, 1, 1, 2, POSE)),
                 "activation": rng.uniform(0.1, 1.0, (1, 2, 3, 1, 1, 1)), "beta_u": np.ones(2),
                 "beta_a": np.array([0.5, -0.5])},
                {"stride": 1, "routing": {"variance_floor": 1e-2}})


def _same_votes() -> Case:
    """Every child of a parent casts the same vote."""
    case = _one_child()
    votes = np.repeat(np.repeat(case.inputs["votes"], 2, 3), 3, 5)
    shape = votes.shape[:-2]
    return Case(case.inputs | {"votes": votes, "activation": np.full(shape, 0.5)}, case.attributes)


def _no_children() -> Case:
    """No child is active: every mass is 0."""
    case = _same_votes()
    return Case(case.inputs | {"activation": np.zeros_like(case.inputs["activation"])}, case.attributes)


def _filled() -> Case:
    """Log joints below -100 and close together: IBM's filler takes part of every child's share."""
    joint = np.random.default_rng(9).standard_normal((2, 2, 3, 2, 2, 2, 3)) - 300.0
    return Case({"joint": joint}, {"stride": 1, "competition": "filled"})


def _run_route(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
    return lib.em_routing.route(**x, stride=a["stride"], routing=_settings(lib, a["routing"]))


def _with_routing(name: str) -> Any:
    def call(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
        rest = {key: value for key, value in a.items() if key != "routing"}
        return lib.get(f"em_routing.{name}")(**x, **rest, routing=_settings(lib, a["routing"]))
    return call


def _same(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    return np.asarray(lib.em_layers.same_padding(**a))


def _covered(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    return np.asarray(lib.em_routing.covered(**a))


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
    from dataclasses import replace
    settings = lib.em_settings.preset(a["preset"], **a["changes"])
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
    return lib.em_layers.coordinate_addition(x["votes"], x["centres"], a["coordinates"])


ROUTED = ("pose", "activation", "logit", "assignment")
_ZEROS = Case({"numerator": np.array([0.0, 1.0, -1.0, 3.0]),
               "denominator": np.array([0.0, 0.0, -0.0, -2.0])})
ROWS = (
    OpCase("em_settings.check_choices", tested_by="test_em.py"),
    OpCase("em_settings.preset", tested_by="test_em.py"),
    OpCase("em_routing.inverse_temperature", Recipe(_with_routing("inverse_temperature")), _temperature,
           exact=True),
    OpCase("em_routing.paper_betas", function("em_routing.paper_betas", ("u", "a")), _beta),
    OpCase("em_routing.safe_divide", function("em_routing.safe_divide"), _divide,
           (("zero", _ZEROS),)),
    OpCase("em_routing.windows", function("em_routing.windows"), _grid),
    OpCase("em_routing.fold", function("em_routing.fold"), _entries, oracle=True),
    OpCase("em_routing.covered", Recipe(_covered), _counts, exact=True),
    OpCase("em_routing.parent_counts", function("em_routing.parent_counts"), _counts, exact=True,
           oracle=True),
    OpCase("em_routing.initial_assignment", Recipe(_with_routing("initial_assignment")), _initial,
           exact=True, oracle=True),
    OpCase("em_routing.m_step", Recipe(_with_routing("m_step"), ("mean", "variance", "logit")), _m_step,
           oracle=True),
    OpCase("em_routing.log_activation", Recipe(_with_routing("log_activation")), _log_activation),
    OpCase("em_routing.e_step", function("em_routing.e_step"), _e_step, oracle=True),
    OpCase("em_routing.compete", function("em_routing.compete"), _compete,
           (("the filler counts", _filled()),), oracle=True),
    OpCase("em_routing.route", Recipe(_run_route, ROUTED), _route, (
        ("one child a parent", _one_child()), ("identical votes", _same_votes()),
        ("no active child", _no_children())), oracle=True),
    OpCase("em_layers.same_padding", Recipe(_same), _padding, exact=True),
    OpCase("em_layers.pad_children", function("em_layers.pad_children"), _padded),
    OpCase("em_layers.batch_normalize", function("em_layers.batch_normalize",
                                                 layouts={"image": 1, "out": 1}), _image),
    OpCase("em_layers.pose_product", function("em_layers.pose_product"), _product, oracle=True),
    OpCase("em_layers.grid_centres", function("em_layers.grid_centres"), _centres, exact=True),
    OpCase("em_layers.carried_centres", function("em_layers.carried_centres"), _carried, exact=True),
    OpCase("em_layers.coordinate_addition", Recipe(_coordinate_call), _coordinates, oracle=True),
    OpCase("em_layers.Convolution", Recipe(
        lambda lib, x, a, m: m(x["image"]), layouts={"image": 1, "out": 1},
        build=_build("em_layers.Convolution", "relu_conv1", "conv1"), torch_scope="conv.", table=table),
        _convolution),
    OpCase("em_layers.PrimaryCapsules", Recipe(
        lambda lib, x, a, m: m(x["features"]), ("pose", "activation"), {"features": 1},
        build=_build("em_layers.PrimaryCapsules", "primary_caps", "conv_capsule1"),
        torch_scope="primary.", table=table), _primary, oracle=True),
    OpCase("em_layers.ConvCapsules", Recipe(
        lambda lib, x, a, m: m(**x), ROUTED, build=_build(
            "em_layers.ConvCapsules", "lyr.conv_caps1", "convCaps0"), torch_scope="capsules.0.",
        table=table), _conv_capsules, oracle=True, judges=("em_fused", "em_kernel")),
    OpCase("em_layers.ClassCapsules", Recipe(
        _run_class, ROUTED, build=_build("em_layers.ClassCapsules", "class_caps", "capsule2"),
        torch_scope="class_capsules.", table=table), _class_capsules, oracle=True),
    OpCase("em_losses.spread_margin", function("em_losses.spread_margin"), _margin, exact=True),
    OpCase("em_losses.spread_loss", function("em_losses.spread_loss", constants=("label",)), _loss,
           oracle=True),
    OpCase("em_network.MatrixCapsules", Recipe(
        _run_network, ("total", "spread", "activation", "logit", "pose", "first_pose",
                       "first_activation"), {"image": 1}, ("label",),
        build=lambda lib, a: lib.module("em_network.MatrixCapsules", "", _network_settings(lib, a)),
        table=lambda a: "convert_em:OFFICIAL" if a["preset"] == "official" else "convert_em"), _network),
)
