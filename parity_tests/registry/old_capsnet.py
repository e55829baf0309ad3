"""Rows of the CapsNet rooms: settings, routing, the network and its losses."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Lib, Recipe, place
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry import OpCase

TABLE = "capsnet.tf_names"
CHANNELS = {"image": 1, "features": 1, "reconstruction": 1, "out": 1}


def settings(lib: Lib, a: dict[str, Any]) -> Any:
    """This side's settings from the preset and the changes that an example names."""
    return lib.capsnet.settings.preset(a.get("preset", "paper"), **a["settings"])


def _convolution(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.Convolution", "conv1", **a)


def _primary(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.PrimaryCapsules", "conv_capsule1", a["in_channels"], settings(lib, a))


def _routing_capsules(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.RoutingCapsules", "capsule2", *a["sizes"], settings(lib, a))


def _decoder(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.CapsuleDecoder", "recons", a["in_features"], tuple(a["hidden"]),
                      a["pixels"], a["initial"])


def _network(lib: Lib, a: dict[str, Any]) -> Any:
    if lib.side == "reference":
        import tensorflow as tf
        return lib.capsnet.network.CapsNet(settings(lib, a), 0, getattr(tf, lib.dtype))
    network = lib.capsnet.network.CapsNet(settings(lib, a), 0)
    return (network.double() if lib.dtype == "float64" else network).to(place())


def _run_primary(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    grid = m(x["features"])
    return {"grid": grid, "flat": lib.capsnet.layers.flatten_grid(grid)}


def _run_capsules(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    if lib.side == "reference":
        return m(x["capsules"])
    kernel = lib.capsnet.kernel
    with mock.patch.object(kernel, "BLOCK_BYTES", a.get("block_bytes", kernel.BLOCK_BYTES)):
        return m(x["capsules"])


def _run_network(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    result = m(x["image"], x.get("label"), mask=a.get("mask", "label"))
    named = {name: getattr(result, name) for name in ("loss", "capsules", "lengths", "reconstruction")}
    zero = result.loss * 0.0  # of a term that these settings do not have
    if named["reconstruction"] is None:
        named["reconstruction"] = zero
    terms = ("margin_loss", "reconstruction_loss", "accuracy")
    return named | {name: result.scalars.get(name, zero) for name in terms}


LENGTHS = function("capsnet.routing.capsule_lengths")
SQUASH = function("capsnet.routing.squash")
VOTES = function("capsnet.routing.capsule_votes")
COUPLING = function("capsnet.routing.coupling_coefficients")
ROUTING = Recipe(lambda lib, x, a, _: lib.capsnet.routing.dynamic_routing(x["votes"], x.get("bias"), **a),
                 ("capsules", "logits", "coupling"))
TERMS = function("capsnet.losses.margin_terms", constants=("labels",))
MARGIN = function("capsnet.losses.margin_loss", constants=("labels",))
CONVOLUTION = Recipe(lambda lib, x, a, m: m(x["image"]), layouts=CHANNELS, build=_convolution,
                     scope="conv1", torch_scope="conv1.", table=TABLE)
PRIMARY = Recipe(_run_primary, ("grid", "flat"), layouts=CHANNELS, build=_primary,
                 scope="conv_capsule1", torch_scope="primary.", table=TABLE)
CAPSULES = Recipe(_run_capsules, ("capsules",), build=_routing_capsules,
                  scope="capsule2", torch_scope="classes.", table=TABLE)
DECODER = Recipe(lambda lib, x, a, m: m(x["masked"]), build=_decoder, scope="recons",
                 torch_scope="decoder.", table=TABLE)
NETWORK = Recipe(_run_network, ("loss", "capsules", "lengths", "reconstruction", "margin_loss",
                                "reconstruction_loss", "accuracy"), layouts=CHANNELS, build=_network,
                 table=TABLE)


def _vectors(m: Maker, *shape: int, axis: int = -1, scale: float | None = None) -> np.ndarray:
    """Normal vectors; sometimes a share of them is exactly 0."""
    values = m.normal(*shape, scale=scale)
    if m.flag(3):
        values = values * np.expand_dims(m.rng.random(np.delete(shape, axis)) > 0.3, axis)
    return values


def _lengths(m: Maker) -> Case:
    shape = m.shape(2, 4)
    axis = m.size(0, len(shape) - 1)
    return m.case({"axis": axis}, terms=shape[axis], capsules=_vectors(m, *shape, axis=axis))


def _squash(m: Maker) -> Case:
    shape = m.shape(2, 4)
    axis = m.size(0, len(shape) - 1)
    return m.case({"axis": axis, "epsilon": m.choice([0.0, 1e-8, 1e-2])}, terms=shape[axis],
                  s=_vectors(m, *shape, axis=axis))


def _votes(m: Maker) -> Case:
    batch, children, before, parents, after = m.sizes(5)
    return m.case({"n_parents": parents}, terms=before, capsules=_vectors(m, batch, children, before),
                  weights=m.normal(children, before, parents * after))


def _coupling(m: Maker) -> Case:
    shape = (*m.sizes(3), *(m.sizes(2) if m.flag() else ()))
    return m.case({"leaky": m.flag()}, terms=shape[2], logits=m.logits(*shape))


def _routing(m: Maker) -> Case:
    batch, children, parents, atoms = m.sizes(4)
    grid = m.sizes(2, 2, 4) if m.flag() else []
    inputs = {"votes": m.normal(batch, children, parents, atoms, *grid, scale=m.choice([0.1, 0.5, 1.0]))}
    if m.flag():
        inputs["bias"] = m.normal(parents, atoms, *([1] * len(grid)), scale=0.3)
    return m.case(_routing_options(m), terms=children * atoms, **inputs)


def _routing_options(m: Maker) -> dict[str, Any]:
    return {"iterations": m.size(1, 5), "leaky": m.flag(), "gradient": m.choice(["all", "last"]),
            "epsilon": m.choice([0.0, 1e-8])}


def _options(m: Maker) -> dict[str, Any]:
    return {"iterations": m.size(1, 5), "leaky": m.flag(), "routing_gradient": m.choice(["all", "last"]),
            "squash_epsilon": m.choice([0.0, 1e-8]), "routing_bias": m.flag(),
            "initial": m.choice(["official", "fan_in"])}


def _draw_convolution(m: Maker) -> Case:
    batch, channels, out = m.sizes(3, 2, 4)
    kernel, stride = m.choice([1, 2, 3]), m.choice([1, 2])
    height, width = (kernel + extra for extra in m.sizes(2, 2, 6))
    return m.case({"in_channels": channels, "out_channels": out, "kernel": kernel, "stride": stride,
                   "initial": m.choice(["official", "fan_in"])}, terms=channels * kernel**2,
                  image=m.normal(batch, height, width, channels))


def _draw_primary(m: Maker) -> Case:
    batch, channels, types, atoms = m.sizes(4, 2, 6)
    kernel, stride = m.choice([1, 2, 3]), m.choice([1, 2])
    height, width = (kernel + extra for extra in m.sizes(2, 2, 6))
    sizes = {"kernel": kernel, "primary_stride": stride, "primary_types": types, "primary_atoms": atoms,
             "primary_coupling": m.flag(), "leaky": m.flag(), "squash_epsilon": m.choice([0.0, 1e-8]),
             "initial": m.choice(["official", "fan_in"])}
    return m.case({"in_channels": channels, "settings": sizes}, terms=channels * kernel**2,
                  features=m.normal(batch, height, width, channels))


def _draw_capsules(m: Maker) -> Case:
    batch, *sizes = m.sizes(5)
    return m.case({"sizes": sizes, "settings": _options(m), "block_bytes": m.choice([1, 500, 1 << 20])},
                  terms=sizes[0] * sizes[3],
                  capsules=_vectors(m, batch, sizes[0], sizes[1], scale=m.choice([0.1, 1.0])))


def _draw_decoder(m: Maker) -> Case:
    batch, before, pixels, *hidden = m.sizes(m.size(4, 6))
    return m.case({"in_features": before, "hidden": hidden, "pixels": pixels,
                   "initial": m.choice(["official", "fan_in"])}, terms=max(before, *hidden),
                  masked=m.normal(batch, before, scale=1.0))


def _draw_network(m: Maker) -> Case:
    kernel, stride = m.choice([2, 3]), m.choice([1, 2])
    canvas = 2 * kernel + m.size(3, 5)
    batch, channels, width, types, atoms, classes, class_atoms = m.sizes(7, 2, 8)
    sizes = {"canvas": canvas, "channels": min(channels, 3), "conv1_channels": width, "kernel": kernel,
             "conv1_stride": stride, "primary_stride": m.choice([1, 2]), "primary_types": min(types, 4),
             "primary_atoms": atoms, "classes": classes, "class_atoms": class_atoms,
             "decoder": m.choice([(), (5,), (4, 6)]), "margin": m.choice(["sum", "mean"]),
             "primary_coupling": m.flag()}
    sizes |= _options(m)
    if sizes["decoder"]:
        sizes["reconstruction"] = m.choice(["joint", "joint", "frozen"])
    inputs = {"image": m.uniform(batch, canvas, canvas, sizes["channels"])}
    if not m.flag(4):
        inputs["label"] = m.rng.integers(0, classes, batch)
    return m.case({"settings": sizes, "mask": m.choice(["label", "length"])},
                  terms=canvas**2 * width, **inputs)


def _draw_margin(m: Maker) -> Case:
    batch, classes = m.sizes(2)
    labels = np.eye(classes)[m.rng.integers(0, classes, batch)]
    return m.case({"reduction": m.choice(["sum", "mean"])}, terms=batch * classes, labels=labels,
                  lengths=m.uniform(batch, classes, low=0.0, high=1.1))


def _draw_terms(m: Maker) -> Case:
    case = _draw_margin(m)
    return m.case({"upper": m.choice([0.9, 0.8]), "lower": m.choice([0.1, 0.2]),
                   "down_weight": m.choice([0.5, 1.0])}, **case.inputs)


def _draw_reconstruction(m: Maker) -> Case:
    shape = m.shape(2, 4)
    return m.case({"weight": m.choice([0.0005, 1.0])}, terms=float(np.prod(shape)),
                  image=m.uniform(*shape), reconstruction=m.uniform(*shape))


def _draw_mask(m: Maker) -> Case:
    batch, classes, atoms = m.sizes(3)
    return m.case(capsules=m.normal(batch, classes, atoms), keep=m.rng.integers(0, classes, batch))


def _draw_grid(m: Maker) -> Case:
    return m.case(grid=m.normal(*m.sizes(5)))


def _preset(m: Maker) -> Case:
    return m.case({"name": m.choice(["paper", "official", "xg"]), "classes": m.size(2, 12)})


def _run_preset(lib: Lib, x: dict[str, Any], a: dict[str, Any], _: Any) -> np.ndarray:
    """The numbers among the settings."""
    found = vars(lib.capsnet.settings.preset(a["name"], classes=a["classes"]))
    return np.asarray([float(v) for v in found.values() if isinstance(v, int | float | bool)])


_SAME = np.ones((1, 3, 2, 4))
_TINY = np.array([[0.0, 0.0, 0.0], [1e-10, 0.0, -1e-10], [1e-3, 1e-3, 0.0], [5.0, -9.0, 1.0]])
_SMALL = {"canvas": 9, "kernel": 3, "conv1_channels": 4, "primary_types": 2, "primary_atoms": 3,
          "classes": 3, "class_atoms": 4, "decoder": (5,)}
_HINGE = {"lengths": np.array([[0.0, 0.5, 1.0], [0.25, 0.75, 0.5]]), "labels": np.eye(3)[:2]}

ROWS = (
    OpCase("capsnet.settings.preset", Recipe(_run_preset), _preset, exact=True),
    OpCase("capsnet.routing.capsule_lengths", LENGTHS, _lengths,
           (("zero and tiny", Case({"capsules": _TINY})),), oracle=True),
    OpCase("capsnet.routing.squash", SQUASH, _squash,
           (("zero and tiny", Case({"s": _TINY})),
            ("zero and tiny, with epsilon", Case({"s": _TINY}, {"epsilon": 1e-8}))), oracle=True),
    OpCase("capsnet.routing.capsule_votes", VOTES, _votes, oracle=True),
    OpCase("capsnet.routing.coupling_coefficients", COUPLING, _coupling,
           (("ties", Case({"logits": np.zeros((1, 2, 3))})),
            ("ties with the leak", Case({"logits": np.zeros((1, 2, 3))}, {"leaky": True}))), oracle=True),
    OpCase("capsnet.routing.dynamic_routing", ROUTING, _routing,
           (("all votes the same", Case({"votes": _SAME})),
            ("no votes", Case({"votes": 0.0 * _SAME}, {"iterations": 5})),
            ("opposite votes", Case({"votes": _SAME * np.array([1.0, -1.0, 0.0])[:, None, None]}))),
           oracle=True),
    OpCase("capsnet.losses.margin_terms", TERMS, _draw_terms,
           (("on the hinge", Case(_HINGE, {"upper": 0.75, "lower": 0.25})),), oracle=True),
    OpCase("capsnet.losses.margin_loss", MARGIN, _draw_margin, oracle=True),
    OpCase("capsnet.losses.reconstruction_loss", function("capsnet.losses.reconstruction_loss"), _draw_reconstruction,
           oracle=True),
    OpCase("capsnet.layers.mask_capsules", function("capsnet.layers.mask_capsules"), _draw_mask, oracle=True),
    OpCase("capsnet.layers.flatten_grid", function("capsnet.layers.flatten_grid"), _draw_grid, oracle=True),
    OpCase("capsnet.layers.Convolution", CONVOLUTION, _draw_convolution, oracle=True),
    OpCase("capsnet.layers.PrimaryCapsules", PRIMARY, _draw_primary, oracle=True),
    OpCase("capsnet.layers.RoutingCapsules", CAPSULES, _draw_capsules,
           (("children that are zero", Case({"capsules": np.zeros((2, 3, 2))}, {
               "sizes": [3, 2, 4, 5], "settings": {}})),
            ("gradient of the last iteration alone", Case({"capsules": _TINY[None] + 1.0}, {
                "sizes": [4, 3, 2, 5], "settings": {"routing_gradient": "last"}, "block_bytes": 1}))),
           oracle=True, judges=("capsnet.kernel",)),
    OpCase("capsnet.layers.CapsuleDecoder", DECODER, _draw_decoder, oracle=True),
    OpCase("capsnet.network.CapsNet", NETWORK, _draw_network,
           (("a black image", Case({"image": np.zeros((2, 9, 9, 1)), "label": np.array([0, 2])}, {
               "settings": _SMALL})),
            ("a frozen encoder", Case({"image": np.full((2, 9, 9, 1), 0.5), "label": np.array([0, 2])}, {
                "settings": _SMALL | {"reconstruction": "frozen"}}))),
           oracle=True),
)
