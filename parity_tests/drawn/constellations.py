"""Constellation models: configurations drawn by hypothesis, and a few fixed ones with every option.

They are compared by `drawn.verify.verify_model`, as image models are.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from parity_tests.drawn.models import N_STEPS, ModelCase, draw_noise
from parity_tests.harness.strategies import Maker

OP = "constellation.model.ConstellationAutoencoder"



@dataclass(repr=False)
class ConstellationCase(ModelCase):
    """A `ModelCase` whose images are points `[N_STEPS, B, M, 2]` and whose labels are presences."""

    @property
    def op(self) -> str:
        """Name in the registry."""
        return OP


# Option → values; every value stands in one of the fixed configurations.
FACTORS: dict[str, tuple[Any, ...]] = {
    "klass": ("ConstellationCapsule", "ConstellationDecoder"),
    "pdf": ("normal", "student"),
    "noise_type": ("uniform", "logistic", "normal", None),
    "repairs": ((), ("Q01",), ("Q31", "Q32"), ("Q33", "Q35")),
    "prior": ("l2", "entropy", "kl"),
    "posterior": ("entropy", "l2", "kl"),
    "similarity_transform": (True, False),
    "deformations": (True, False),
    "learn_vote_scale": (True, False),
    "caps_dropout_rate": (0.0, 0.3),
    "dropout_rate": (0.0, 0.3),
    "n_inducing_points": (0, 3),
    "layer_norm": (True, False),
    "n_heads": (2, 1),
    "n_hiddens": (7, [6, 4]),
    "n_caps_params": (5, None),
    "constant": (0.0, 1.3),
    "presence": (True, False),
    "noise": (True, False),
}
N_FIXED = 6


def arguments_of(row: dict[str, Any], caps: int, votes: int, points: int) -> dict[str, Any]:
    """Nested class arguments from one value an option."""
    plain = row["klass"] == "ConstellationDecoder"
    return {
        "model": "constellation", "n_points": points, "repairs": list(row["repairs"]),
        "obj_encoder": {"n_layers": 2, "n_heads": row["n_heads"], "n_dims": 6, "n_output_dims": 7,
                        "n_outputs": caps, "layer_norm": row["layer_norm"],
                        "dropout_rate": row["dropout_rate"],
                        "n_inducing_points": row["n_inducing_points"]},
        "obj_decoder": {"n_caps": caps, "n_caps_dims": 2, "n_votes": votes,
                        "n_caps_params": row["n_caps_params"], "n_hiddens": row["n_hiddens"],
                        "learn_vote_scale": row["learn_vote_scale"],
                        "deformations": row["deformations"], "noise_type": row["noise_type"],
                        "noise_scale": 4.0, "similarity_transform": row["similarity_transform"],
                        "caps_dropout_rate": 0.0 if plain else row["caps_dropout_rate"],
                        "klass": row["klass"], "pdf": row["pdf"]},
        "autoencoder": {"n_classes": 2, "dynamic_l2_weight": 10.0, "mixing_kl_weight": 0.7,
                        "sparsity_weight": 3.0, "prior_sparsity_loss_type": row["prior"],
                        "prior_within_example_sparsity_weight": 1.3,
                        "prior_between_example_sparsity_weight": 0.4,
                        "prior_within_example_constant": row["constant"],
                        "posterior_sparsity_loss_type": row["posterior"],
                        "posterior_within_example_sparsity_weight": 0.7,
                        "posterior_between_example_sparsity_weight": 0.2}}


def noise_of(rng: np.random.Generator, arguments: dict[str, Any], batch: int) -> list[np.ndarray]:
    """Raw draws in the original's order, with no part encoder before them."""
    tokens = {"noise_scale": 0.0, "n_caps": arguments["n_points"]}
    return draw_noise(rng, {**arguments, "part_encoder": tokens}, batch)


def make_case(row: dict[str, Any], sizes: tuple[int, int, int, int], rng: np.random.Generator,
              seed: int) -> ConstellationCase:
    """A case from one value an option; a pattern's worth of points is absent here and there."""
    caps, votes, points, batch = sizes
    arguments = arguments_of(row, caps, votes, points)
    corners = rng.uniform(-1, 1, (N_STEPS, batch, points, 2)).astype(np.float32)
    there = None
    if row["presence"]:
        there = (rng.random((N_STEPS, batch, points)) > 0.3).astype(np.float32)
    noise = [noise_of(rng, arguments, batch) for _ in range(N_STEPS)] if row["noise"] else None
    return ConstellationCase(arguments, corners, there, noise, seed)


def draw_model(m: Maker) -> ConstellationCase:
    """A small model with every setting drawn."""
    row = {name: m.choice(values) for name, values in FACTORS.items()}
    allowed = sorted(importlib.import_module("port.core.quirks").CONSTELLATION_REPAIRS)
    row["repairs"] = [repair for repair in allowed if m.flag(3)] if m.flag(3) else []
    caps, votes, points, batch = m.sizes(4, 2, 6)
    return make_case(row, (caps, votes, points, batch), m.rng, m.seed)


def _fixed(index: int) -> ConstellationCase:
    """Configuration `index`: options go through their values at speeds of their own, so as to mix."""
    row = {name: values[(index // (1 + i % max(5 - len(values), 1)) + i) % len(values)]
           for i, (name, values) in enumerate(FACTORS.items())}
    sizes = ((3, 4, 7, 2), (2, 3, 5, 4), (4, 2, 6, 3))[index % 3]
    return make_case(row, sizes, np.random.default_rng(300 + index), 300 + index)


SPECIAL = tuple(_fixed(index) for index in range(N_FIXED))
