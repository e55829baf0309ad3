"""Rows of `scae/pcae.py`."""

from __future__ import annotations

import numpy as np

from parity_tests.harness.sides import Recipe
from parity_tests.harness.strategies import Case
from parity_tests.registry.row import OpCase
from parity_tests.registry.scae.drawing import draw_total, run_total

PART_TERMS = ("rec_ll", "template_l1", "rec_mse", "primary_caps_l1", "weight_decay_loss")
PART_WEIGHTS = ("rec_ll_weight", "template_l1_weight", "mse_weight", "primary_caps_sparsity_weight",
                "weight_decay")


def _small_error() -> Case:
    """A squared error that counts, with a weight below 1."""
    weights = dict.fromkeys(PART_WEIGHTS, 1.0) | {"mse_weight": 0.3}
    return Case({name: np.ones(()) for name in PART_TERMS}, {"weights": weights}, terms=len(PART_TERMS))


ROWS = (
    OpCase("scae.pcae.total_loss", Recipe(run_total("scae.pcae.total_loss", "PartLosses")),
           lambda m: draw_total(m, PART_TERMS, PART_WEIGHTS), (("small error", _small_error()),),
           oracle=True),
    OpCase("scae.pcae.PartAutoencoder", tested_by="test_modes.py",
           note="every tap, gradient and optimizer step under drawn configurations"),
)
