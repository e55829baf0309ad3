"""Rows of `capsnet/network.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.harness.sides import Lib, Recipe, place
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.capsnet.drawing import CHANNELS, TABLE, draw_options, make_settings
from parity_tests.registry.row import OpCase


def _network(lib: Lib, a: dict[str, Any]) -> Any:
    if lib.side == "reference":
        import tensorflow as tf
        return lib.capsnet.network.CapsNet(make_settings(lib, a), 0, getattr(tf, lib.dtype))
    network = lib.capsnet.network.CapsNet(make_settings(lib, a), 0)
    return (network.double() if lib.dtype == "float64" else network).to(place())


def _run_network(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    result = m(x["image"], x.get("label"), mask=a.get("mask", "label"))
    named = {name: getattr(result, name) for name in ("loss", "capsules", "lengths", "reconstruction")}
    zero = result.loss * 0.0  # of a term that these settings do not have
    if named["reconstruction"] is None:
        named["reconstruction"] = zero
    terms = ("margin_loss", "reconstruction_loss", "accuracy")
    return named | {name: result.scalars.get(name, zero) for name in terms}


NETWORK = Recipe(_run_network, ("loss", "capsules", "lengths", "reconstruction", "margin_loss",
                                "reconstruction_loss", "accuracy"), layouts=CHANNELS, build=_network,
                 table=TABLE)


def _draw_network(m: Maker) -> Case:
    kernel, stride = m.choice([2, 3]), m.choice([1, 2])
    canvas = 2 * kernel + m.size(3, 5)
    batch, channels, width, types, atoms, classes, class_atoms = m.sizes(7, 2, 8)
    sizes = {"canvas": canvas, "channels": min(channels, 3), "conv1_channels": width, "kernel": kernel,
             "conv1_stride": stride, "primary_stride": m.choice([1, 2]), "primary_types": min(types, 4),
             "primary_atoms": atoms, "classes": classes, "class_atoms": class_atoms,
             "decoder": m.choice([(), (5,), (4, 6)]), "margin": m.choice(["sum", "mean"]),
             "primary_coupling": m.flag()}
    sizes |= draw_options(m)
    if sizes["decoder"]:
        sizes["reconstruction"] = m.choice(["joint", "joint", "frozen"])
    inputs = {"image": m.uniform(batch, canvas, canvas, sizes["channels"])}
    if not m.flag(4):
        inputs["label"] = m.rng.integers(0, classes, batch)
    return m.case({"settings": sizes, "mask": m.choice(["label", "length"])},
                  terms=canvas**2 * width, **inputs)


_SMALL = {"canvas": 9, "kernel": 3, "conv1_channels": 4, "primary_types": 2, "primary_atoms": 3,
          "classes": 3, "class_atoms": 4, "decoder": (5,)}

ROWS = (
    OpCase("capsnet.network.CapsNet", NETWORK, _draw_network,
           (("a black image", Case({"image": np.zeros((2, 9, 9, 1)), "label": np.array([0, 2])}, {
               "settings": _SMALL})),
            ("a frozen encoder", Case({"image": np.full((2, 9, 9, 1), 0.5), "label": np.array([0, 2])}, {
                "settings": _SMALL | {"reconstruction": "frozen"}}))),
           oracle=True),
)
