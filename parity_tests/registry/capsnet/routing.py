"""Rows of `capsnet/routing.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.capsnet.drawing import TINY, draw_vectors
from parity_tests.registry.row import OpCase

LENGTHS = function("capsnet.routing.capsule_lengths")
SQUASH = function("capsnet.routing.squash")
VOTES = function("capsnet.routing.capsule_votes")
COUPLING = function("capsnet.routing.coupling_coefficients")
ROUTING = Recipe(lambda lib, x, a, _: lib.capsnet.routing.dynamic_routing(x["votes"], x.get("bias"), **a),
                 ("capsules", "logits", "coupling"))


def _lengths(m: Maker) -> Case:
    shape = m.shape(2, 4)
    axis = m.size(0, len(shape) - 1)
    return m.case({"axis": axis}, terms=shape[axis], capsules=draw_vectors(m, *shape, axis=axis))


def _squash(m: Maker) -> Case:
    shape = m.shape(2, 4)
    axis = m.size(0, len(shape) - 1)
    return m.case({"axis": axis, "epsilon": m.choice([0.0, 1e-8, 1e-2])}, terms=shape[axis],
                  s=draw_vectors(m, *shape, axis=axis))


def _votes(m: Maker) -> Case:
    batch, children, before, parents, after = m.sizes(5)
    return m.case({"n_parents": parents}, terms=before, capsules=draw_vectors(m, batch, children, before),
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


_SAME = np.ones((1, 3, 2, 4))

ROWS = (
    OpCase("capsnet.routing.capsule_lengths", LENGTHS, _lengths,
           (("zero and tiny", Case({"capsules": TINY})),), oracle=True),
    OpCase("capsnet.routing.squash", SQUASH, _squash,
           (("zero and tiny", Case({"s": TINY})),
            ("zero and tiny, with epsilon", Case({"s": TINY}, {"epsilon": 1e-8}))), oracle=True),
    OpCase("capsnet.routing.capsule_votes", VOTES, _votes, oracle=True),
    OpCase("capsnet.routing.coupling_coefficients", COUPLING, _coupling,
           (("ties", Case({"logits": np.zeros((1, 2, 3))})),
            ("ties with the leak", Case({"logits": np.zeros((1, 2, 3))}, {"leaky": True}))), oracle=True),
    OpCase("capsnet.routing.dynamic_routing", ROUTING, _routing,
           (("all votes the same", Case({"votes": _SAME})),
            ("no votes", Case({"votes": 0.0 * _SAME}, {"iterations": 5})),
            ("opposite votes", Case({"votes": _SAME * np.array([1.0, -1.0, 0.0])[:, None, None]}))),
           oracle=True),
)
