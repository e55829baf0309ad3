"""Which oracle call answers for which row of the matrix-capsule rooms (`test_oracles.ORACLES`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.em import table
from parity_tests.harness.sides import Arrays
from parity_tests.oracles.em import layers, losses, routing, windows

OFFICIAL = "OFFICIAL"


def _by_name(module: Any, name: str) -> Any:
    return lambda x, a, v: getattr(module, name)(**x, **a)


def _variable(v: Arrays, *ends: str) -> np.ndarray:
    (found,) = [value for name, value in v.items() if name.endswith(ends)]
    return np.asarray(found, np.float64)


def _betas(v: Arrays) -> dict[str, np.ndarray]:
    return {"beta_u": _variable(v, "sigma_biases", "beta_v").ravel(),
            "beta_a": _variable(v, "activation_biases", "beta_a").ravel()}


def _convolutional(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    weight, kernel = _variable(v, "weights", "votes/w"), a["kernel"]
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    sizes = (*kernel, a["types_in"], a["types_out"], 4, 4)
    drawn = np.zeros(sizes)
    for u, w, i, j, m, n in np.ndindex(sizes):
        if table(a).endswith(OFFICIAL):
            drawn[u, w, i, j, m, n] = weight[i, u, w, m, n * sizes[3] + j]
        else:
            drawn[u, w, i, j, m, n] = weight[0, (u * sizes[1] + w) * sizes[2] + i, j, m, n]
    return layers.convolutional(x["pose"], x["activation"], drawn, **_betas(v), stride=a["stride"],
                            padding=a["padding"], routing=a["routing"])


def _classes(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    weight = _variable(v, "weights", "v/w")
    drawn = np.zeros((a["types_in"], a["classes"], 4, 4))
    for i, j, m, n in np.ndindex(drawn.shape):
        official = table(a).endswith(OFFICIAL)
        drawn[i, j, m, n] = weight[i, m, n * a["classes"] + j] if official else weight[0, i, j, m, n]
    return layers.classes(x["pose"], x["activation"], drawn, **_betas(v), coordinates=a["coordinates"],
                      routing=a["routing"], centres=a.get("centres"))


def _primary(x: Arrays, a: dict[str, Any], v: Arrays) -> dict[str, np.ndarray]:
    if a["primary"] == "joint":
        kernel = next(value for name, value in v.items() if name == "conv_capsule1/weights")
        return layers.primary_capsules(x["features"], kernel[0, 0], _variable(v, "act/weights")[0, 0],
                                   joint=True)
    return layers.primary_capsules(
        x["features"], _variable(v, "pose/weights")[0, 0], _variable(v, "activation/weights")[0, 0],
        _variable(v, "pose/biases"), _variable(v, "activation/biases"))


ORACLES = {
    **{f"em.routing.{name}": _by_name(routing, name) for name in (
        "initial_assignment", "m_step", "e_step", "compete", "route")},
    **{f"em.windows.{name}": _by_name(windows, name) for name in ("fold", "parent_counts")},
    **{f"em.layers.{name}": _by_name(layers, name) for name in ("pose_product", "coordinate_addition")},
    "em.layers.PrimaryCapsules": _primary,
    "em.layers.ConvCapsules": _convolutional,
    "em.layers.ClassCapsules": _classes,
    "em.losses.spread_loss": _by_name(losses, "spread_loss"),
}
