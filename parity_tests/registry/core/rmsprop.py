"""Rows of `core/rmsprop.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.row import OpCase


def _epsilon(m: Maker) -> Case:
    return m.case({"batch_size": m.size(1, 512)})


def _update(m: Maker) -> Case:
    shape = m.shape(1, 3)
    constants = {"lr": m.choice([1e-4, 3e-5, 1e-2]), "decay": m.choice([0.9, 0.5]),
                 "momentum": m.choice([0.9, 0.0]), "epsilon": m.choice([6.1e-7, 1e-2])}
    return m.case(constants, var=m.normal(*shape), grad=m.sprinkle(m.normal(*shape), [0.0], 0.2),
                  ms=m.uniform(*shape, low=0.01, high=2.0), mom=m.normal(*shape, scale=0.1))


def _clip(m: Maker) -> Case:
    return m.case({"value_clip": m.choice([0.0, 0.5]), "norm_clip": m.choice([0.0, 0.1, 50.0]),
                   "none": m.flag()}, terms=60, first=m.normal(*m.shape(1, 2)),
                  second=m.normal(*m.shape(2, 3)))


def _run_clip(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> tuple[Any, Any]:
    grads = [x["first"], None, x["second"]] if a["none"] else [x["first"], x["second"]]
    clipped = lib.core.rmsprop.clip_gradients(grads, a["value_clip"], a["norm_clip"])
    if a["none"]:
        assert clipped[1] is None
    return clipped[0], clipped[-1]


def _optimizer(m: Maker) -> Case:
    shape, steps = m.shape(1, 3), m.size(1, 5)
    return m.case({"lr": m.choice([1e-3, 3e-5]), "epsilon": m.choice([6.1e-7, 1e-3]), "steps": steps,
                   "skip": m.flag(), "still_first": m.flag()}, var=m.normal(*shape), still=m.normal(2),
                  grads=m.sprinkle(m.normal(steps, *shape), [0.0], 0.2))


def _run_optimizer(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> dict[str, Any]:
    """Some steps; `still` never gets a gradient and must keep its value and slots."""
    if lib.side == "reference":
        import tensorflow as tf
        variables = {"var": tf.Variable(x["var"]), "still": tf.Variable(x["still"])}
        optimizer = lib.core.rmsprop.RMSProp(variables, a["lr"], a["epsilon"])
        for grad in x["grads"]:
            optimizer.step({"var": grad, "still": None})
        slots = {name: (optimizer.ms[name], optimizer.mom[name]) for name in variables}
    else:
        import torch
        variables = {name: torch.nn.Parameter(x[name].detach().clone()) for name in ("var", "still")}
        # The slots lie one behind the other: what has no gradient comes before or behind what has one.
        order = sorted(variables.items(), reverse=not a["still_first"])
        optimizer = lib.core.rmsprop.RMSProp(order, lr=a["lr"], epsilon=a["epsilon"])
        for grad in x["grads"]:
            variables["var"].grad = grad.detach().clone()
            optimizer.step()
            optimizer.zero_grad()
        slots = {name: (optimizer.state[p]["ms"], optimizer.state[p]["mom"])
                 for name, p in variables.items()}
    return {"var": variables["var"], "still": variables["still"], "ms": slots["var"][0],
            "mom": slots["var"][1], "still_ms": slots["still"][0], "still_mom": slots["still"][1]}


ROWS = (
    OpCase("core.rmsprop.rmsprop_epsilon", function("core.rmsprop.rmsprop_epsilon"), _epsilon, exact=True,
           oracle=True),
    OpCase("core.rmsprop.rmsprop_update", function("core.rmsprop.rmsprop_update", ("var", "ms", "mom")), _update, (
        ("zero gradient", Case({name: np.full(2, value) for name, value in (
            ("var", 1.0), ("grad", 0.0), ("ms", 1.0), ("mom", 0.5))}, {"lr": 1e-3})),), oracle=True),
    OpCase("core.rmsprop.clip_gradients", Recipe(_run_clip, ("first", "second")), _clip, oracle=True),
    OpCase("core.rmsprop.RMSProp", Recipe(
        _run_optimizer, ("var", "still", "ms", "mom", "still_ms", "still_mom"),
        constants=("var", "still", "grads")), _optimizer, oracle=True),
)
