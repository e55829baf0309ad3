"""Which record of the EM programs is which call here.

Inputs keep the recorded layout; a recipe's call brings them to ours and the results back, so that
gradients come out in the recorded layout too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from parity_tests.goldens.routing import RoutingRecord
from parity_tests.harness.sides import Arrays, Recipe, broadcast, permute, reshape

POSE = 16
X = dict[str, Any]


@dataclass(frozen=True)
class Adapted:
    """A record as something both sides can run.

    Attributes:
        recipe: how to run it.
        attributes: plain arguments; `iterations` is set for each group.
        scope: of the recorded variables, replaced by the recipe's own.
    """

    recipe: Recipe
    attributes: dict[str, Any]
    scope: str = ""

    def variables(self, recorded: Arrays) -> Arrays | None:
        """Recorded variables under the names of our module; None for a function."""
        if self.recipe.build is None:
            return None
        return {f"{self.recipe.scope}/{name.removeprefix(self.scope).removesuffix('_1')}": value
                for name, value in recorded.items()}


def _routing(lib: Any, a: dict[str, Any], more: int = 0) -> Any:
    keywords = dict(a["routing"])
    keywords["iterations"] = a["iterations"] + more
    return lib.em.settings.Routing(**keywords)


def _fields(settings: Any) -> dict[str, Any]:
    return dict(vars(settings))


def _shares(lib: Any, found: Any, votes_shape: tuple[int, ...]) -> Any:
    """The assignment used, for every example and child type."""
    return broadcast(lib, found.assignment, votes_shape[:-1])


# --------------------------------------------------------------------------------------- the equations

def _run_paper(lib: Any, x: X, a: dict[str, Any], _: Any) -> X:
    shape = tuple(x["votes"].shape)
    seen = lib.em.windows.windows(x["act"], shape[3:5], a["stride"])
    found = lib.em.routing.route(x["votes"], seen, x["beta_u"], x["beta_a"], a["stride"], _routing(lib, a))
    shares = _shares(lib, found, shape)
    summed = lib.em.windows.fold(shares, a["stride"], tuple(x["act"].shape[1:3]))
    return {"pose": found.pose, "act": found.activation, "R_used": shares, "R_sum": summed.sum(-1)
            if lib.side == "port" else np.asarray(summed).sum(-1)}


def _paper(record: RoutingRecord) -> Adapted:
    from port.em.settings import Routing
    return Adapted(Recipe(_run_paper, ("pose", "act", "R_used", "R_sum")),
                   {"stride": record.attributes["stride"], "routing": _fields(Routing())})


# ------------------------------------------------------------------------------------------------- IBM

def _ibm_window(lib: Any, x: Any, a: dict[str, Any], *last: int) -> Any:
    """[B·P·Q or B, P, Q, K·L·I, …] → [B, P, Q, K, L, I, …]."""
    side = (a["child_side"] - a["kernel"]) // a["stride"] + 1
    return reshape(lib, x, -1, side, side, a["kernel"], a["kernel"], a["child_types"], *last)


def _run_ibm(lib: Any, x: X, a: dict[str, Any], _: Any) -> X:
    votes = _ibm_window(lib, x["votes"], a, a["parent_types"], POSE)
    found = lib.em.routing.route(
        votes, _ibm_window(lib, x["act"], a), reshape(lib, x["n/beta_v"], -1),
        reshape(lib, x["n/beta_a"], -1), a["stride"], _routing(lib, a))
    shape = tuple(votes.shape)
    batch = shape[0] if a["iterations"] > 1 else 1
    shares = broadcast(lib, found.assignment, (batch, *shape[1:-1]))
    return {"pose": found.pose, "act": found.activation[..., None],
            "R_used": reshape(lib, shares, *shape[:3] if batch == shape[0] else (1, *shape[1:3]), -1,
                              a["parent_types"], 1)}


def _sizes(record: RoutingRecord) -> dict[str, Any]:
    from port.em.settings import IBM_ROUTING
    names = ("child_side", "kernel", "stride", "child_types", "parent_types")
    return {name: record.attributes[name] for name in names if name in record.attributes} | {
        "routing": _fields(IBM_ROUTING)}


def _ibm_routing(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_ibm, ("pose", "act", "R_used")), _sizes(record))


def _run_e_step(lib: Any, x: X, a: dict[str, Any], _: Any) -> Any:
    votes = _ibm_window(lib, x["votes"], a, a["parent_types"], POSE)
    log = __import__("torch").log if lib.side == "port" else __import__("tensorflow").math.log
    joint = lib.em.routing.e_step(votes, x["mean"][:, :, :, 0], x["var"][:, :, :, 0],
                                  log(x["act"][:, :, :, 0, :, 0] + 1e-9))
    shares = lib.em.routing.compete(joint, a["stride"], "filled")
    return reshape(lib, shares, *votes.shape[:3], -1, a["parent_types"], 1)


def _run_m_step(lib: Any, x: X, a: dict[str, Any], _: Any) -> X:
    votes, weights = x["votes"][:, :, :, None, None], (x["R"] * x["act"])[..., 0][:, :, :, None, None]
    routing = _routing(lib, a)
    found = lib.em.routing.m_step(
        votes, weights, reshape(lib, x["beta_v"], -1), reshape(lib, x["beta_a"], -1),
        lib.em.routing.inverse_temperature(0, routing), None, routing)
    sigmoid = __import__("torch").sigmoid if lib.side == "port" else __import__("tensorflow").sigmoid
    return {"act": sigmoid(found.logit)[:, :, :, None, :, None], "mean": found.mean[:, :, :, None],
            "var": found.variance[:, :, :, None]}


def _ibm_e_step(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_e_step, ("R",)), _sizes(record))


def _ibm_m_step(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_m_step, ("act", "mean", "var")), _sizes(record))


def _run_coordinates(lib: Any, x: X, a: dict[str, Any], _: Any) -> Any:
    votes = x["votes"][:, None, None]
    centres = lib.em.layers.grid_centres(*votes.shape[3:5])
    return lib.em.layers.coordinate_addition(votes, _constant(lib, centres, votes), "column")[:, 0, 0]


def _host(value: Any) -> np.ndarray:
    """A tensor of either side, wherever it lies."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _constant(lib: Any, value: np.ndarray, like: Any) -> Any:
    if lib.side == "port":
        import torch
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)
    import tensorflow as tf
    return tf.constant(value, like.dtype)


def _ibm_coordinates(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_coordinates, ("votes",)), {})


def table(a: dict[str, Any]) -> str:
    """The port's conversion table for a layer's or a network's settings, as plain arguments."""
    routing = a.get("routing") or a.get("settings", {}).get("routing", {})
    official = routing.get("betas") == "official" or a.get("primary") == "joint"
    return "em.tf_names:OFFICIAL" if official else "em.tf_names"


def _build_conv(scope: str) -> Callable[..., Any]:
    def build(lib: Any, a: dict[str, Any]) -> Any:
        return lib.module("em.layers.ConvCapsules", scope, a["types_in"], a["types_out"], a["kernel"],
                          a["stride"], a.get("padding", "VALID"), _routing(lib, a), 0.5, False, (0.0, 0.0))
    return build


def _build_class(scope: str) -> Callable[..., Any]:
    def build(lib: Any, a: dict[str, Any]) -> Any:
        return lib.module("em.layers.ClassCapsules", scope, a["types_in"], a["classes"], _routing(lib, a),
                          a["coordinates"], 0.5, False, (0.0, 0.0))
    return build


def _votes(lib: Any, m: Any, pose: Any, activation: Any) -> Any:
    """What a layer's children vote, `[B, P, Q, K, L, I, J, 16]`; its kernel would not hold them."""
    made, product = [], lib.em.layers.pose_product

    def kept(*arguments: Any) -> Any:
        made.append(product(*arguments))
        return made[-1]
    with mock.patch.object(lib.em.layers, "pose_product", kept), \
            mock.patch.dict(os.environ, SCAE_KERNELS="off"):
        m(pose, activation)
    return made[0]


def _run_ibm_conv(lib: Any, x: X, a: dict[str, Any], m: Any) -> X:
    found, votes = m(x["pose"], x["act"][..., 0]), _votes(lib, m, x["pose"], x["act"][..., 0])
    parents, children = math.prod(votes.shape[:3]), math.prod(votes.shape[3:6])
    return {"pose": found.pose, "act": found.activation[..., None],
            "votes": reshape(lib, votes, parents, children, votes.shape[6], POSE)}


def _ibm_conv(record: RoutingRecord) -> Adapted:
    from port.em.settings import IBM_ROUTING
    a = record.attributes
    shape = record.variables["n/conv_caps/votes/w"].shape
    return Adapted(
        Recipe(_run_ibm_conv, ("pose", "act", "votes"), build=_build_conv("lyr.conv_caps1"),
               scope="lyr.conv_caps1", torch_scope="capsules.0.", table=table),
        {"types_in": shape[1] // a["kernel"] ** 2, "types_out": shape[2], "kernel": a["kernel"],
         "stride": a["stride"], "routing": _fields(IBM_ROUTING)}, "n/conv_caps/")


def _run_class(lib: Any, x: X, a: dict[str, Any], m: Any) -> X:
    found = m(x["pose"], x["act"][..., 0])
    return {"pose": found.pose[:, 0, 0], "act": found.activation[:, 0, 0]}


def _ibm_class(record: RoutingRecord) -> Adapted:
    from port.em.settings import IBM_ROUTING
    shape = record.variables["n/class_caps/v/w"].shape
    return Adapted(
        Recipe(_run_class, ("pose", "act"), build=_build_class("class_caps"), scope="class_caps",
               torch_scope="class_capsules.", table=table),
        {"types_in": shape[1], "classes": shape[2], "coordinates": "column",
         "routing": _fields(IBM_ROUTING)}, "n/class_caps/")


# -------------------------------------------------------------------------------------------- official

def _official_routing(attributes: dict[str, Any], layer: str) -> dict[str, Any]:
    from port.em.settings import OFFICIAL_CLASS_ROUTING, OFFICIAL_ROUTING
    fields = _fields(OFFICIAL_CLASS_ROUTING if layer == "class" else OFFICIAL_ROUTING)
    given = attributes["final_beta"]
    given = 0.01 / 4 if given == "0.01/4" else given
    return fields | {"final_lambda": 2.0 * given}


def _run_official_conv(lib: Any, x: X, a: dict[str, Any], _: Any) -> X:
    votes = permute(lib, x["votes"], 0, 4, 5, 6, 7, 1, 2, 3)
    seen = permute(lib, x["act"][:, :, 0, 0], 0, 2, 3, 4, 5, 1)
    betas = [reshape(lib, x[name], -1) for name in ("sigma_bias", "act_bias")]
    found = lib.em.routing.route(votes, seen, *betas, 1, _routing(lib, a))
    after = lib.em.routing.route(votes, seen, *betas, 1, _routing(lib, a, 1))
    return {"logit": permute(lib, found.logit, 0, 3, 1, 2)[:, None, :, None, :, :, None, None],
            "pose": permute(lib, found.pose, 0, 3, 4, 1, 2)[:, None, ..., None, None],
            "R_next": permute(lib, after.assignment, 0, 5, 6, 1, 2, 3, 4)[:, :, :, None]}


def _official_conv_routing(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_official_conv, ("logit", "pose", "R_next")),
                   {"routing": _official_routing(record.attributes, "conv")})


def _run_official_class(lib: Any, x: X, a: dict[str, Any], _: Any) -> X:
    votes = x["votes"][..., 0, 0][:, None, None, None, None]
    seen = x["act"][..., 0, 0, 0, 0][:, None, None, None, None]
    found = lib.em.routing.route(votes, seen, reshape(lib, x["sigma_bias"], -1),
                                 reshape(lib, x["act_bias"], -1), 1, _routing(lib, a))
    shape = tuple(votes.shape)
    shares = broadcast(lib, found.assignment, (shape[0] if a["iterations"] > 1 else 1, *shape[1:-1]))
    return {"logit": found.logit[:, 0][..., None, None, None],
            "pose": found.pose[:, 0][..., None, None],
            "R_used": shares[:, 0, 0, 0, 0][..., None, None, None]}


def _official_class_routing(record: RoutingRecord) -> Adapted:
    return Adapted(Recipe(_run_official_class, ("logit", "pose", "R_used")),
                   {"routing": _official_routing(record.attributes, "class")})


def _run_official_layer(lib: Any, x: X, a: dict[str, Any], m: Any) -> X:
    pose, act = permute(lib, x["pose"], 0, 3, 4, 1, 2), permute(lib, x["act"][:, :, 0], 0, 2, 3, 1)
    found = m(pose, act)
    m.routing = _routing(lib, a, 1)  # the next assignment is the one that one more iteration uses
    after = m(pose, act)
    return {"pose": permute(lib, found.pose, 0, 3, 4, 1, 2),
            "act": permute(lib, found.activation, 0, 3, 1, 2),
            "R_next": permute(lib, after.assignment, 0, 5, 6, 1, 2, 3, 4)[:, :, :, None],
            "votes": permute(lib, _votes(lib, m, pose, act), 0, 5, 6, 7, 1, 2, 3, 4)}


def _official_conv(record: RoutingRecord) -> Adapted:
    shape = record.variables["n/conv/weights_1"].shape
    return Adapted(
        Recipe(_run_official_layer, ("pose", "act", "R_next", "votes"), build=_build_conv("convCaps0"),
               scope="convCaps0", torch_scope="capsules.0.", table=table),
        {"types_in": shape[0], "types_out": shape[-1] // 4, "kernel": record.attributes["kernel"],
         "stride": record.attributes["stride"],
         "routing": _official_routing(record.attributes, "conv")}, "n/conv/")


def _run_official_class_layer(lib: Any, x: X, a: dict[str, Any], m: Any) -> X:
    batch, types, _, height, width = x["pose"].shape
    act = permute(lib, reshape(lib, x["act"], batch, types, height, width), 0, 2, 3, 1)
    found = m(permute(lib, x["pose"], 0, 3, 4, 1, 2), act, _host(x["grid"]))
    return {"pose": found.pose[:, 0, 0], "act": found.activation[:, 0, 0]}


def _official_class(record: RoutingRecord) -> Adapted:
    shape = record.variables["n/cls/weights_1"].shape
    return Adapted(
        Recipe(_run_official_class_layer, ("pose", "act"), constants=("grid",),
               build=_build_class("capsule2"), scope="capsule2", torch_scope="class_capsules.",
               table=table),
        {"types_in": shape[0], "classes": shape[-1] // 4, "coordinates": "row",
         "routing": _official_routing(record.attributes, "class")}, "n/cls/")


def _run_primary(lib: Any, x: X, a: dict[str, Any], m: Any) -> X:
    features = x["x"] if lib.side == "port" else permute(lib, x["x"], 0, 2, 3, 1)
    pose, act = m(features)
    return {"pose": permute(lib, pose, 0, 3, 4, 1, 2), "act": permute(lib, act, 0, 3, 1, 2)[:, :, None]}


def _official_primary(record: RoutingRecord) -> Adapted:
    shape = record.variables["conv_capsule1/conv_capsule1_act/weights_1"].shape
    return Adapted(
        Recipe(_run_primary, ("pose", "act"), scope="conv_capsule1", torch_scope="primary.", table=table,
               build=lambda lib, a: lib.module("em.layers.PrimaryCapsules", "conv_capsule1",
                                               *shape[2:], "joint", (0.5, 3.0))),
        {"primary": "joint"}, "conv_capsule1/")


# By the beginning of a record's name.
RECIPES: dict[str, Callable[[RoutingRecord], Adapted]] = {
    "paper_": _paper, "ibm_routing_": _ibm_routing, "ibm_e_step": _ibm_e_step,
    "ibm_m_step": _ibm_m_step, "ibm_coord": _ibm_coordinates, "ibm_conv_layer": _ibm_conv,
    "ibm_class_layer": _ibm_class, "gr_conv_routing": _official_conv_routing,
    "gr_class_routing": _official_class_routing, "gr_conv_layer": _official_conv,
    "gr_class_layer": _official_class, "gr_primary": _official_primary}
# Records that test_goldens_em.py reads in functions of their own.
ELSEWHERE = ("ibm_routing_map", "gr_position_grid", "schedules", "gr_spread_loss", "ibm_spread_loss",
             "gr_net", "ibm_net")


def adapt(record: RoutingRecord) -> Adapted | None:
    """The record's recipe; None where `ELSEWHERE` names it.

    Raises:
        KeyError: nobody compares this record.
    """
    if record.name.startswith(ELSEWHERE):
        return None
    for beginning, make in RECIPES.items():
        if record.name.startswith(beginning):
            return make(record)
    raise KeyError(f"no recipe for the recording {record.key}")
