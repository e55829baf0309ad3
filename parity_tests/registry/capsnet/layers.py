"""Rows of `capsnet/layers.py`."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Lib, Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.capsnet.drawing import (
    CHANNELS,
    TABLE,
    TINY,
    draw_options,
    draw_vectors,
    make_settings,
)
from parity_tests.registry.row import OpCase


def _convolution(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.Convolution", "conv1", **a)


def _primary(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.PrimaryCapsules", "conv_capsule1", a["in_channels"], make_settings(lib, a))


def _routing_capsules(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.RoutingCapsules", "capsule2", *a["sizes"], make_settings(lib, a))


def _decoder(lib: Lib, a: dict[str, Any]) -> Any:
    return lib.module("capsnet.layers.CapsuleDecoder", "recons", a["in_features"], tuple(a["hidden"]),
                      a["pixels"], a["initial"])


def _run_primary(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    grid = m(x["features"])
    return {"grid": grid, "flat": lib.capsnet.layers.flatten_grid(grid)}


def _run_capsules(lib: Lib, x: dict[str, Any], a: dict[str, Any], m: Any) -> Any:
    if lib.side == "reference":
        return m(x["capsules"])
    kernel = lib.capsnet.kernel
    with mock.patch.object(kernel, "BLOCK_BYTES", a.get("block_bytes", kernel.BLOCK_BYTES)):
        return m(x["capsules"])


CONVOLUTION = Recipe(lambda lib, x, a, m: m(x["image"]), layouts=CHANNELS, build=_convolution,
                     scope="conv1", torch_scope="conv1.", table=TABLE)
PRIMARY = Recipe(_run_primary, ("grid", "flat"), layouts=CHANNELS, build=_primary,
                 scope="conv_capsule1", torch_scope="primary.", table=TABLE)
CAPSULES = Recipe(_run_capsules, ("capsules",), build=_routing_capsules,
                  scope="capsule2", torch_scope="classes.", table=TABLE)
DECODER = Recipe(lambda lib, x, a, m: m(x["masked"]), build=_decoder, scope="recons",
                 torch_scope="decoder.", table=TABLE)


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
    return m.case({"sizes": sizes, "settings": draw_options(m), "block_bytes": m.choice([1, 500, 1 << 20])},
                  terms=sizes[0] * sizes[3],
                  capsules=draw_vectors(m, batch, sizes[0], sizes[1], scale=m.choice([0.1, 1.0])))


def _draw_decoder(m: Maker) -> Case:
    batch, before, pixels, *hidden = m.sizes(m.size(4, 6))
    return m.case({"in_features": before, "hidden": hidden, "pixels": pixels,
                   "initial": m.choice(["official", "fan_in"])}, terms=max(before, *hidden),
                  masked=m.normal(batch, before, scale=1.0))


def _draw_mask(m: Maker) -> Case:
    batch, classes, atoms = m.sizes(3)
    return m.case(capsules=m.normal(batch, classes, atoms), keep=m.rng.integers(0, classes, batch))


def _draw_grid(m: Maker) -> Case:
    return m.case(grid=m.normal(*m.sizes(5)))


ROWS = (
    OpCase("capsnet.layers.mask_capsules", function("capsnet.layers.mask_capsules"), _draw_mask, oracle=True),
    OpCase("capsnet.layers.flatten_grid", function("capsnet.layers.flatten_grid"), _draw_grid, oracle=True),
    OpCase("capsnet.layers.Convolution", CONVOLUTION, _draw_convolution, oracle=True),
    OpCase("capsnet.layers.PrimaryCapsules", PRIMARY, _draw_primary, oracle=True),
    OpCase("capsnet.layers.RoutingCapsules", CAPSULES, _draw_capsules,
           (("children that are zero", Case({"capsules": np.zeros((2, 3, 2))}, {
               "sizes": [3, 2, 4, 5], "settings": {}})),
            ("gradient of the last iteration alone", Case({"capsules": TINY[None] + 1.0}, {
                "sizes": [4, 3, 2, 5], "settings": {"routing_gradient": "last"}, "block_bytes": 1}))),
           oracle=True, judges=("capsnet.kernel",)),
    OpCase("capsnet.layers.CapsuleDecoder", DECODER, _draw_decoder, oracle=True),
)
