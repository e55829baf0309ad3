"""Rows of `core/adam.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _decay(m: Maker) -> Case:
    return m.case({"step": m.choice([0, 1, 5, 1999, 2000, 123_456, 700_000]), "lr": m.choice([1e-3, 3e-3]),
                   "decay_steps": m.choice([2000, 20_000]), "floor": m.choice([0.0, 1e-6])})


def _update(m: Maker) -> Case:
    shape = m.shape(1, 3)
    constants = {"step": m.size(0, 50), "lr": m.choice([1e-3, 3e-3]), "beta1": m.choice([0.9, 0.5]),
                 "beta2": m.choice([0.999, 0.9]), "epsilon": m.choice([1e-8, 1e-2])}
    return m.case(constants, var=m.normal(*shape), grad=m.sprinkle(m.normal(*shape), [0.0], 0.2),
                  m=m.normal(*shape, scale=0.1), v=m.uniform(*shape, low=0.01, high=2.0))


def _optimizer(m: Maker) -> Case:
    shape, steps = m.shape(1, 3), m.size(1, 5)
    # Gradients are 0 or of ordinary size: m / (sqrt(v) + ε) of a tiny one is rounding.
    return m.case({"rates": [m.choice([1e-3, 3e-3, 1e-2]) for _ in range(steps)]}, var=m.normal(*shape),
                  still=m.normal(2), grads=m.sprinkle(m.normal(steps, *shape, scale=1.0), [0.0], 0.2))


def _run_optimizer(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    """Some steps, each with its own learning rate; `still` never gets a gradient and stays."""
    if lib.side == "reference":
        import tensorflow as tf
        variables = {"var": tf.Variable(x["var"]), "still": tf.Variable(x["still"])}
        optimizer = lib.core.adam.Adam(variables, a["rates"][0])
        for rate, grad in zip(a["rates"], x["grads"]):
            optimizer.lr = rate
            optimizer.step({"var": grad, "still": None})
        slots = {name: (optimizer.m[name], optimizer.v[name]) for name in variables}
    else:
        import torch
        variables = {name: torch.nn.Parameter(x[name].detach().clone()) for name in ("var", "still")}
        optimizer = lib.core.adam.Adam(list(variables.items()), lr=a["rates"][0])
        for rate, grad in zip(a["rates"], x["grads"]):
            optimizer.param_groups[0]["lr"] = rate
            variables["var"].grad = grad.detach().clone()
            optimizer.step()
        slots = {name: (optimizer.state[p]["m"], optimizer.state[p]["v"])
                 for name, p in variables.items()}
    return {"var": variables["var"], "still": variables["still"], "m": slots["var"][0],
            "v": slots["var"][1], "still_m": slots["still"][0], "still_v": slots["still"][1]}


_ZERO = {"var": np.array([1.0, -2.0]), "grad": np.zeros(2), "m": np.zeros(2), "v": np.zeros(2)}

ROWS = (
    OpCase("core.adam.exponential_decay", function("core.adam.exponential_decay"), _decay,
           (("between two factors", Case({}, {"step": 500})),), exact=True, oracle=True),
    OpCase("core.adam.adam_update", Recipe(
        lambda lib, x, a, _: lib.core.adam.adam_update(**x, **a), ("var", "m", "v"),
        # At v = 0 the root has no gradient; nothing differentiates an update.
        constants=("var", "grad", "m", "v")), _update,
        (("zero gradient, fresh slots", Case(_ZERO, {"step": 0, "lr": 1e-3})),), oracle=True),
    OpCase("core.adam.Adam", Recipe(
        _run_optimizer, ("var", "still", "m", "v", "still_m", "still_v"),
        constants=("var", "still", "grads")), _optimizer, oracle=True),
)
