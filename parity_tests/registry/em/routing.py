"""Rows of `em/routing.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import function
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.em.drawing import (
    POSE,
    ROUTED,
    draw_counts,
    draw_routing,
    draw_sizes,
    make_settings,
)
from parity_tests.registry.row import OpCase


def _official_scale(routing: dict[str, Any]) -> float:
    """The official activation bias is worth 2,500 of the paper's."""
    return 2500.0 if routing["betas"] == "official" else 1.0


def _votes(m: Maker, sizes: tuple[int, ...]) -> np.ndarray:
    """Votes that agree in part: a place for each parent, and noise."""
    batch, rows, columns, *_, parents = sizes
    centre = m.normal(batch, rows, columns, 1, 1, 1, parents, POSE, scale=1.0)
    return centre + m.normal(*sizes, POSE, scale=m.choice([0.5, 2.0]))


def _temperature(m: Maker) -> Case:
    return m.case({"iteration": m.size(0, 5), "routing": draw_routing(m)})


def _beta(m: Maker) -> Case:
    parents = m.size(1, 5)
    return m.case({"betas": m.choice(["paper", "official"])}, beta_u=m.normal(parents),
                  beta_a=m.normal(parents))


def _divide(m: Maker) -> Case:
    shape = m.shape(1, 3)
    y = m.sprinkle(m.uniform(*shape, low=0.1, high=3.0) * m.rng.choice([-1.0, 1.0], shape), [0.0], 0.2)
    return m.case(numerator=m.normal(*shape, 3), denominator=y[..., None])


def _initial(m: Maker) -> Case:
    case = draw_counts(m)
    case.attributes |= {"parent_types": m.size(1, 4), "routing": draw_routing(m)}
    return case


def _m_step(m: Maker) -> Case:
    sizes, routing = draw_sizes(m), draw_routing(m, betas="paper")
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
    return m.case({"routing": draw_routing(m)}, logit=m.logits(*m.shape(1, 3)))


def _e_step(m: Maker) -> Case:
    sizes = draw_sizes(m)
    parents = (*sizes[:3], sizes[-1])
    return m.case(terms=POSE, votes=_votes(m, sizes), mean=m.normal(*parents, POSE, scale=1.0),
                  variance=m.uniform(*parents, POSE, low=0.05, high=3.0),
                  log_active=-m.uniform(*parents, low=0.01, high=40.0))


def _compete(m: Maker) -> Case:
    sizes = draw_sizes(m)
    return m.case({"stride": m.size(1, 3),
                   "competition": m.choice(["parents", "filled", "stride_1_per_type"])},
                  terms=int(np.prod(sizes[1:5])) * sizes[-1],
                  joint=m.normal(*sizes, scale=m.choice([1.0, 10.0, 60.0])) + m.choice([0.0, -300.0]))


def _route(m: Maker) -> Case:
    sizes, routing = draw_sizes(m), draw_routing(m)
    return m.case({"stride": m.size(1, 3), "routing": routing}, terms=int(np.prod(sizes[3:6])) * POSE,
                  votes=_votes(m, sizes), activation=m.uniform(*sizes[:-1], low=0.05, high=1.0),
                  beta_u=m.normal(sizes[-1], scale=1.0),
                  beta_a=m.normal(sizes[-1], scale=1.0 / _official_scale(routing)))


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
    return lib.em.routing.route(**x, stride=a["stride"], routing=make_settings(lib, a["routing"]))


def _with_routing(name: str) -> Any:
    def call(lib: Any, x: dict[str, Any], a: dict[str, Any], _: Any) -> Any:
        rest = {key: value for key, value in a.items() if key != "routing"}
        return lib.get(f"em.routing.{name}")(**x, **rest, routing=make_settings(lib, a["routing"]))
    return call


_ZEROS = Case({"numerator": np.array([0.0, 1.0, -1.0, 3.0]),
               "denominator": np.array([0.0, 0.0, -0.0, -2.0])})

ROWS = (
    OpCase("em.routing.inverse_temperature", Recipe(_with_routing("inverse_temperature")), _temperature,
           exact=True),
    OpCase("em.routing.paper_betas", function("em.routing.paper_betas", ("u", "a")), _beta),
    OpCase("em.routing.safe_divide", function("em.routing.safe_divide"), _divide,
           (("zero", _ZEROS),)),
    OpCase("em.routing.initial_assignment", Recipe(_with_routing("initial_assignment")), _initial,
           exact=True, oracle=True),
    OpCase("em.routing.m_step", Recipe(_with_routing("m_step"), ("mean", "variance", "logit")), _m_step,
           oracle=True),
    OpCase("em.routing.log_activation", Recipe(_with_routing("log_activation")), _log_activation),
    OpCase("em.routing.e_step", function("em.routing.e_step"), _e_step, oracle=True),
    OpCase("em.routing.compete", function("em.routing.compete"), _compete,
           (("the filler counts", _filled()),), oracle=True),
    OpCase("em.routing.route", Recipe(_run_route, ROUTED), _route, (
        ("one child a parent", _one_child()), ("identical votes", _same_votes()),
        ("no active child", _no_children())), oracle=True),
)
