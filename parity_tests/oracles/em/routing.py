"""Oracles of `em/routing.py`: every child, every parent, one Python loop an index.

A child is (row, column, type), a parent (row, column, type). `seen` lists, for each child, the parents
whose window holds it; everything else is a loop over that list. Settings come as a plain mapping with
the fields of `em.settings.Routing`.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np

from parity_tests.oracles import scalars
from parity_tests.oracles.em.windows import seen_by
from parity_tests.oracles.scalars import as64

POSE = 16
Settings = Mapping[str, object]
DEFAULTS = {"iterations": 3, "final_lambda": 0.01, "schedule": "geometric", "competition": "parents",
            "initial": "parents", "initial_epsilon": 0.0, "mass_epsilon": 0.0,
            "mass_epsilon_in_cost": False, "variance_floor": 1e-9, "momentum": 0.0, "log_epsilon": 0.0,
            "cost_scale": "none", "betas": "paper"}


def initial_assignment(parents, kernel, parent_types, stride, routing: Settings) -> np.ndarray:
    """1 / (spatial parents of the child times parent types), or 1 / types."""
    routing = DEFAULTS | dict(routing)
    out = np.zeros((1, *parents, *kernel, 1, parent_types))
    for found in seen_by((*parents, *kernel), stride).values():
        spatial = 1 if routing["initial"] == "types" else len(found)
        for p, q, u, v in found:
            out[0, p, q, u, v] = 1.0 / (spatial * parent_types + routing["initial_epsilon"])
    return out


def _window(votes: np.ndarray, b: int, p: int, q: int, j: int
            ) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
    """Each child of one parent: its index (u, v, i) and its vote."""
    for u in range(votes.shape[3]):
        for v in range(votes.shape[4]):
            for i in range(votes.shape[5]):
                yield (u, v, i), votes[b, p, q, u, v, i, j]


def m_step(votes, weights, beta_u, beta_a, temperature, previous_mean=None, routing: Settings = DEFAULTS
           ) -> dict[str, np.ndarray]:
    """Mass, weighted mean and variance, cost and logit of each parent."""
    routing, votes, weights = DEFAULTS | dict(routing), as64(votes), as64(weights)
    batch, rows, columns, high, wide, types_in, types = votes.shape[:7]
    mean, variance = (np.zeros((batch, rows, columns, types, POSE)) for _ in range(2))
    logit = np.zeros((batch, rows, columns, types))
    kept = 1.0 - routing["momentum"]
    scale = 100.0 * types / (high * wide * types_in) if routing["cost_scale"] == "children" else 1.0
    for b, p, q, j in np.ndindex(batch, rows, columns, types):
        mass = 0.0
        for (u, v, i), _ in _window(votes, b, p, q, j):
            mass += weights[b, p, q, u, v, i, j]
        divisor = mass + routing["mass_epsilon"]
        cost = 0.0
        for h in range(POSE):
            total = 0.0
            for (u, v, i), vote in _window(votes, b, p, q, j):
                total += weights[b, p, q, u, v, i, j] * vote[h]
            mu = kept * (total / divisor if divisor else 0.0)
            if previous_mean is not None:
                mu += routing["momentum"] * previous_mean[b, p, q, j, h]
            spread = 0.0
            for (u, v, i), vote in _window(votes, b, p, q, j):
                spread += weights[b, p, q, u, v, i, j] * (vote[h] - mu) ** 2
            mean[b, p, q, j, h] = mu
            variance[b, p, q, j, h] = (spread / divisor if divisor else 0.0) + routing["variance_floor"]
            charged = divisor if routing["mass_epsilon_in_cost"] else mass
            cost += (beta_u[j] + 0.5 * math.log(variance[b, p, q, j, h])) * charged * scale
        logit[b, p, q, j] = temperature * (beta_a[j] - cost)
    return {"mean": mean, "variance": variance, "logit": logit}


def e_step(votes, mean, variance, log_active) -> np.ndarray:
    """ln a plus the log density of each vote under its parent's Gaussian."""
    votes = as64(votes)
    out = np.zeros(votes.shape[:-1])
    for index in np.ndindex(out.shape):
        b, p, q, u, v, i, j = index
        total = float(log_active[b, p, q, j])
        for h in range(POSE):
            total += scalars.normal_log_prob(votes[index][h], mean[b, p, q, j, h],
                                             math.sqrt(variance[b, p, q, j, h]))
        out[index] = total
    return out


def compete(joint, stride, competition="parents") -> np.ndarray:
    """Each child's share of each parent; see `port.em.routing.compete` for the three rules."""
    joint = as64(joint)
    out = np.zeros(joint.shape)
    batch, rows, columns, high, wide, types_in, types = joint.shape
    if competition == "stride_1_per_type":
        for b, i, j in np.ndindex(batch, types_in, types):
            pair = joint[b, :, :, :, :, i, j]
            for found in seen_by(pair.shape, 1).values():
                total = 1e-7
                for place in found:
                    total += math.exp(pair[place] - pair.max())
                for p, q, u, v in found:
                    out[b, p, q, u, v, i, j] = math.exp(pair[p, q, u, v] - pair.max()) / total
        return out
    filler = min(float(joint.min()), -100.0)
    for b, i in np.ndindex(batch, types_in):
        for found in seen_by(joint.shape[1:5], stride).values():
            logs = [joint[(b, *place, i, j)] for place in found for j in range(types)]
            if competition == "filled":
                logs = logs + [filler] * ((rows * columns - len(found)) * types)
            shares = scalars.softmax(logs)
            for n, place in enumerate(found):
                for j in range(types):
                    out[(b, *place, i, j)] = shares[n * types + j]
    return out


def route(votes, activation, beta_u, beta_a, stride, routing: Settings) -> dict[str, np.ndarray]:
    """T M steps with T - 1 E steps between them."""
    routing, votes = DEFAULTS | dict(routing), as64(votes)
    beta_u, beta_a = as64(beta_u), as64(beta_a)
    if routing["betas"] == "official":
        beta_u, beta_a = 0.5 * (1.0 + scalars.LOG_2PI) * beta_u, -2500.0 * beta_a
    shares = initial_assignment(votes.shape[1:3], votes.shape[3:5], votes.shape[6], stride, routing)
    found: dict[str, np.ndarray] | None = None
    for t in range(routing["iterations"]):
        if found is not None:
            active = np.vectorize(scalars.sigmoid)(found["logit"])
            log_active = (np.log(active + routing["log_epsilon"]) if routing["log_epsilon"] else
                          -np.vectorize(scalars.softplus)(-found["logit"]))
            joint = e_step(votes, found["mean"], found["variance"], log_active)
            shares = compete(joint, stride, routing["competition"])
        share = {"geometric": 1.0 - 0.95 ** (t + 1), "linear": (t + 1) / routing["iterations"],
                 "constant": 1.0}[routing["schedule"]]
        found = m_step(votes, shares * as64(activation)[..., None], beta_u, beta_a,
                       routing["final_lambda"] * share, None if found is None else found["mean"], routing)
    return {"pose": found["mean"], "activation": np.vectorize(scalars.sigmoid)(found["logit"]),
            "logit": found["logit"], "assignment": shares}
