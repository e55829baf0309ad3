"""Whole models of the other modes: parts alone, objects on frozen parts, three levels, stronger encoders.

Drawn from the image model's configurations (`drawn_models`), and a few fixed ones that every tier runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parity_tests.drawn import models
from parity_tests.drawn.models import N_STEPS, ModelCase, covering_case, draw_noise
from parity_tests.harness import covering
from parity_tests.harness.strategies import Maker

OPS = {"pcae": "scae.pcae.PartAutoencoder", "ocae": "scae.model.ImageAutoencoder",
       "hierarchy": "scae.hierarchy.HierarchyAutoencoder", "scae": "scae.model.ImageAutoencoder"}


@dataclass(repr=False)
class ModeCase(ModelCase):
    """A `ModelCase` of another kind of configuration."""

    @property
    def op(self) -> str:
        """Name in the registry."""
        return OPS[self.arguments.get("model", "scae")]


def draw_mode(m: Maker, kind: str) -> ModeCase:
    """A small model of a kind, with every setting drawn; `scae` always has what the original has not."""
    case = models.draw_model(m)
    extras = {"residual_blocks": m.size(0, 2), "inverse_space_transform": m.flag()}
    if kind == "scae":
        extras = {"residual_blocks": m.size(1, 2), "inverse_space_transform": not m.flag(3)}
    return _case(case, kind, extras, m.rng)


def _case(case: ModelCase, kind: str, extras: dict[str, Any], rng: np.random.Generator) -> ModeCase:
    """The same sizes, images and labels with the arguments of a kind."""
    old = case.arguments
    arguments = {**old, "cnn": dict(old["cnn"]), "part_decoder": dict(old["part_decoder"])}
    if extras["residual_blocks"]:
        arguments["cnn"]["residual_blocks"] = extras["residual_blocks"]
    if not extras["inverse_space_transform"]:
        arguments["part_decoder"]["inverse_space_transform"] = False
    if kind != "scae":
        arguments = {"model": kind} | arguments
    if kind == "pcae":
        del arguments["obj_encoder"], arguments["obj_decoder"]
        arguments["repairs"] = [name for name in old["repairs"] if name == "Q02"]
        arguments["autoencoder"] = part_losses(old["autoencoder"], rng)
    if kind == "scae":  # the part capsules' own terms
        own = part_losses(old["autoencoder"], rng)
        arguments["autoencoder"] = old["autoencoder"] | {name: own[name] for name in (
            "rec_ll_weight", "mse_weight", "template_l1_weight")}
    if kind == "hierarchy":
        arguments |= upper(old, rng)
    noise = case.noise and [draw_noise(rng, arguments, case.images.shape[1]) for _ in range(N_STEPS)]
    return ModeCase(arguments, case.images, None if kind == "pcae" else case.labels, noise, case.seed)


def part_losses(old: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Every weight of part capsules alone; the likelihood's or the squared error's may be 0."""
    ll, mse = [(1.0, 0.0), (0.7, 0.4), (0.0, 3.0)][rng.integers(3)]
    return {"rec_ll_weight": ll, "mse_weight": mse, "template_l1_weight": float(rng.choice([0.0, 0.5])),
            "primary_caps_sparsity_weight": old["primary_caps_sparsity_weight"],
            "weight_decay": old["weight_decay"], "target": old["target"]}


def upper(old: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The three sections of the third level."""
    n_upper = int(rng.integers(2, 4))
    kinds = ["l2", "entropy", "kl"]
    weights = {f"{kind}_{place}_example_sparsity_weight": float(rng.choice([0.3, 1.0]))
               for kind in ("prior", "posterior") for place in ("within", "between")}
    return {
        "upper_encoder": old["obj_encoder"] | {"n_outputs": n_upper, "n_inducing_points": 0,
                                               "n_output_dims": 5},
        "upper_decoder": old["obj_decoder"] | {
            "n_caps": n_upper, "n_votes": old["obj_decoder"]["n_caps"], "n_caps_params": 3,
            "caps_dropout_rate": float(rng.choice([0.0, 0.3]))},  # of this level alone
        "upper": weights | {"caps_ll_weight": 0.8, "parent_ll_weight": 0.6, "dynamic_l2_weight": 2.0,
                            "prior_sparsity_loss_type": kinds[rng.integers(3)],
                            "posterior_sparsity_loss_type": kinds[rng.integers(3)]}}


def fixed(kind: str, index: int) -> ModeCase:
    """A covering row of the image model as a model of a kind."""
    case = covering_case(covering.rows()[index], index)
    extras = {"residual_blocks": 1 + index % 2, "inverse_space_transform": index % 2 == 0}
    made = _case(case, kind, extras, np.random.default_rng(1000 + index))
    if kind == "pcae":  # every combination of the three terms stands in one of three rows
        ll, mse, l1 = ((1.0, 0.0, 0.5), (0.7, 0.4, 0.0), (0.0, 3.0, 0.2))[index % 3]
        weights = {"rec_ll_weight": ll, "mse_weight": mse, "template_l1_weight": l1}
        made = replace(made, arguments=made.arguments | {
            "autoencoder": made.arguments["autoencoder"] | weights})
    return made


def draw_model(m: Maker) -> ModeCase:
    """A small model of any of the kinds."""
    return draw_mode(m, m.choice(["pcae", "ocae", "hierarchy"]))


FIXED = {f"{kind}-{index}": (kind, index) for kind, indices in (
    ("pcae", (0, 1, 2)), ("ocae", (3, 4)), ("hierarchy", (1, 2, 10)), ("scae", (7, 8)))
    for index in indices}
# What planted bugs meet first: models of each mode, with and without noise.
SPECIAL = (fixed("pcae", 0), fixed("pcae", 1), fixed("ocae", 3), fixed("hierarchy", 1),
           fixed("hierarchy", 10))  # the last with noise and dropout in the third level too
