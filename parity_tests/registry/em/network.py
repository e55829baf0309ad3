"""Rows of `em/network.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.em.drawing import POSE
from parity_tests.registry.row import OpCase


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


ROWS = (
    OpCase("em.network.MatrixCapsules", Recipe(
        _run_network, ("total", "spread", "activation", "logit", "pose", "first_pose",
                       "first_activation"), {"image": 1}, ("label",),
        build=lambda lib, a: lib.module("em.network.MatrixCapsules", "", _network_settings(lib, a)),
        table=lambda a: "em.tf_names:OFFICIAL" if a["preset"] == "official" else "em.tf_names"), _network),
)
