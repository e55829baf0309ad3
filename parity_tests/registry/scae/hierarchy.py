"""Rows of `scae/hierarchy.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from parity_tests.goldens.ops import LIKELIHOOD_OUT
from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case, Maker
from parity_tests.registry.drawing import draw_settings
from parity_tests.registry.row import OpCase
from parity_tests.registry.scae.drawing import draw_total, run_total

PAIRS = tuple((kind, place) for kind in ("posterior", "prior") for place in ("within", "between"))
UPPER_TERMS = ("upper_log_prob", "parent_log_prob", "upper_dynamic_weights_l2",
               *(f"upper_{kind}_{place}_sparsity_loss" for kind, place in PAIRS))
UPPER_WEIGHTS = ("caps_ll_weight", "parent_ll_weight", "dynamic_l2_weight",
                 *(f"{kind}_{place}_example_sparsity_weight" for kind, place in PAIRS))


def _upper(m: Maker) -> Case:
    batch, objects, caps, params = m.sizes(4, 2, 5)
    encoder = {"n_layers": m.size(1, 2), "n_heads": m.choice([1, 2]), "n_dims": m.size(4, 6),
               "n_output_dims": m.size(3, 6), "n_outputs": caps, "layer_norm": m.flag(),
               "dropout_rate": 0.0, "n_inducing_points": 0}
    decoder = draw_settings(m, caps, objects)
    # Presences apart by more than rounding: attention looks at the largest alone.
    presence = np.stack([m.rng.permutation(objects) for _ in range(batch)]) / objects * 0.8 + 0.1
    return m.case({"n_params": params, "encoder": encoder, "decoder": decoder,
                   "mixing": m.choice(["faithful", "normalised"])}, terms=8 * objects * caps,
                  pose=m.normal(batch, objects, 6, scale=1.0), presence=presence,
                  params=m.normal(batch, objects, params, scale=1.0),
                  target_pose=m.normal(batch, objects, 6, scale=1.0),
                  target_presence=m.presence(batch, objects))


def _build_upper(lib: Any, a: dict[str, Any]) -> Any:
    sections = {"encoder": dict(a["encoder"]), "decoder": dict(a["decoder"])}
    if lib.side == "port":
        decoder = {k: tuple(v) if isinstance(v, list) else v for k, v in a["decoder"].items()}
        sections = {"encoder": lib.scae.config_modes.UpperEncoder(**a["encoder"]),
                    "decoder": lib.scae.config_modes.UpperDecoder(**decoder)}
    return lib.module("scae.hierarchy.UpperLevel", "upper", **a | sections)


def _run_upper(lib: Any, x: dict[str, Any], a: dict[str, Any], m: Any) -> dict[str, Any]:
    votes, flat, likelihood, presence = m(**x)
    found = {name: getattr(likelihood, name) for name in LIKELIHOOD_OUT}
    return found | {"vote6": flat, "scale": votes.scale, "caps_presence": presence,
                    "transform": votes.transform, "dynamic_weights_l2": votes.dynamic_weights_l2}


ROWS = (
    OpCase("scae.hierarchy.upper_loss", Recipe(run_total("scae.hierarchy.upper_loss", "UpperLosses")),
           lambda m: draw_total(m, UPPER_TERMS, UPPER_WEIGHTS), oracle=True),
    OpCase("scae.hierarchy.UpperLevel", Recipe(
        _run_upper, (*LIKELIHOOD_OUT, "vote6", "scale", "caps_presence", "transform", "dynamic_weights_l2"),
        {}, ("presence",), _build_upper, "upper", "upper."), _upper),
    OpCase("scae.hierarchy.HierarchyAutoencoder", tested_by="test_modes.py",
           note="every tap, gradient and optimizer step under drawn configurations"),
)
