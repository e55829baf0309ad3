"""Few whole-model configurations that together contain every value of every option.

A greedy covering array: each row takes the values that meet the most pairs not met before, so that
combinations of two options are nearly all there too. Fixed, tiny, and run in every tier. Not by `allpairspy`, which
does as well (97.7 % of the pairs in its first 16 rows, 97.3 % here): its rows would be other fixed cases than those
that the planted bugs were tried on, for a further dependency in place of 30 lines.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

# Option → values; the first is the shipped configurations' own.
FACTORS: dict[str, tuple[Any, ...]] = {
    "repairs": ((), ("Q01",), ("Q02",), ("Q03",), ("Q04",), ("Q25",)),
    "noise_type": ("uniform", "logistic", "normal", None),
    "encoder_type": ("conv_att", "conv", "linear"),
    "colour": ("coloured", "plain", "no features"),
    "vote_type": ("enc", "soft", "hard"),
    "pres_type": ("enc", "soft", "hard"),
    "prior": ("l2", "entropy", "kl"),
    "posterior": ("entropy", "l2", "kl"),
    "feed_templates": (True, False),
    "alpha": (True, False),
    "template_nonlin": ("sigmoid", "relu1"),
    "color_nonlin": ("sigmoid", "relu1"),
    "stop_grad_caps_inpt": (True, False),
    "stop_grad_caps_target": (True, False),
    "caps_dropout": (0.0, 0.3),
    "attention_dropout": (0.0, 0.3),
    "n_inducing_points": (0, 3),
    "layer_norm": (True, False),
    "n_heads": (1, 2),
    "learn_output_scale": (False, True),
    "deformations": (True, False),
    "learn_vote_scale": (True, False),
    "n_hiddens": (7, [6, 4]),
    "weight_decay": (0.0, 0.05),
    "primary_caps_sparsity_weight": (0.0, 0.4),
    "constant": (0.0, 1.3),
    "probe": (True, False),
    "label": (True, False),
    "batch": (3, 1),
    "channels": (1, 3),
    "part_similarity": (False, True),
    "object_similarity": (False, True),
    "part_noise": (0.5, 0.0),  # the recordings have 4
    "noise": (True, False),
    "activate_final": (True, False),
    "target": ("image", "sobel"),
}
N_ROWS = 16
# An object encoder without attention, beside the rows: most of their options it does not have.
MLP = {name: values[0] for name, values in FACTORS.items()} | {"object_encoder": "mlp"}
_TRIES = 40


def rows(n_rows: int = N_ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """The covering rows: option → value."""
    rng = np.random.default_rng(seed)
    names = list(FACTORS)
    met: set[tuple[int, int, int, int]] = set()
    found: list[list[int]] = []
    for row in range(n_rows):
        candidates = []
        for _ in range(_TRIES):
            choice = [0] * len(names)
            for i in rng.permutation(len(names)):
                levels = len(FACTORS[names[i]])
                done = [j for j in range(len(names)) if j != i]
                choice[i] = int(max(rng.permutation(levels), key=lambda level: sum(
                    _pair(i, level, j, choice[j]) not in met for j in done)))
            candidates.append(choice)
        if row < max(len(levels) for levels in FACTORS.values()):
            for choice in candidates:  # every value of the longest option stands in some row
                choice[0] = row % len(FACTORS[names[0]])
        best = max(candidates, key=lambda choice: sum(p not in met for p in _pairs(choice)))
        met |= _pairs(best)
        found.append(best)
    return [{name: FACTORS[name][level] for name, level in zip(names, row)} for row in found]


def _pair(i: int, level: int, j: int, other: int) -> tuple[int, int, int, int]:
    return (i, level, j, other) if i < j else (j, other, i, level)


def _pairs(choice: list[int]) -> set[tuple[int, int, int, int]]:
    return {(i, choice[i], j, choice[j]) for i, j in itertools.combinations(range(len(choice)), 2)}


def pair_coverage(chosen: list[dict[str, Any]]) -> float:
    """Share of all pairs of values that some row holds."""
    names = list(FACTORS)
    every = {(a, repr(x), b, repr(y)) for a, b in itertools.combinations(names, 2)
             for x in FACTORS[a] for y in FACTORS[b]}
    held = {(a, repr(row[a]), b, repr(row[b])) for row in chosen
            for a, b in itertools.combinations(names, 2)}
    return len(every & held) / len(every)


def arguments(row: dict[str, Any], index: int) -> dict[str, Any]:
    """Nested class arguments of one row; sizes are unequal and change from row to row."""
    parts, objects = ((4, 3), (2, 4), (3, 2))[index % 3]
    features = 0 if row["colour"] == "no features" else 5
    # Terms that a weight of 0 leaves out; where they count, below 1 and above.
    own = {1: {"mse_weight": 0.6}, 2: {"template_l1_weight": 0.3}, 3: {
        "mse_weight": 2.0, "template_l1_weight": 2.0, "rec_ll_weight": 0.5}}.get(index % 5, {})
    weights = own | {f"{kind}_{place}_example_sparsity_weight": weight for (kind, place), weight in zip(
        itertools.product(("prior", "posterior"), ("within", "between")), (2.0, 0.35, 0.7, 0.2))}
    return {
        "canvas": 10 + index % 3, "channels": row["channels"], "repairs": list(row["repairs"]),
        "cnn": {"output_channels": [5, 6], "kernel_shapes": [3], "strides": [2, 1],
                "paddings": "VALID", "activate_final": row["activate_final"]},
        "part_encoder": {"n_caps": parts, "n_caps_dims": 6, "n_features": features,
                         "noise_scale": row["part_noise"],
                         "similarity_transform": row["part_similarity"],
                         "encoder_type": row["encoder_type"]},
        "part_decoder": {"template_size": ([4, 3], [3, 5])[index % 2], "n_channels": row["channels"],
                         "learn_output_scale": row["learn_output_scale"],
                         "colorize_templates": row["colour"] == "coloured",
                         "template_nonlin": row["template_nonlin"],
                         "color_nonlin": row["color_nonlin"], "use_alpha_channel": row["alpha"]},
        "obj_encoder": {"n_layers": 2, "n_heads": row["n_heads"], "n_dims": 6, "n_output_dims": 7,
                        "n_outputs": objects, "layer_norm": row["layer_norm"],
                        "dropout_rate": row["attention_dropout"],
                        "n_inducing_points": row["n_inducing_points"]},
        "obj_decoder": {"n_caps": objects, "n_caps_dims": 2, "n_votes": parts, "n_caps_params": 5,
                        "n_hiddens": row["n_hiddens"], "learn_vote_scale": row["learn_vote_scale"],
                        "deformations": row["deformations"], "noise_type": row["noise_type"],
                        "noise_scale": 4.0, "similarity_transform": row["object_similarity"],
                        "caps_dropout_rate": row["caps_dropout"]},
        "autoencoder": weights | {
            "n_classes": 10, "dynamic_l2_weight": 10.0, "caps_ll_weight": 0.7,
            "vote_type": row["vote_type"], "pres_type": row["pres_type"],
            "stop_grad_caps_inpt": row["stop_grad_caps_inpt"],
            "stop_grad_caps_target": row["stop_grad_caps_target"],
            "prior_sparsity_loss_type": row["prior"],
            "prior_within_example_constant": row["constant"],
            "posterior_sparsity_loss_type": row["posterior"],
            "primary_caps_sparsity_weight": row["primary_caps_sparsity_weight"],
            "weight_decay": row["weight_decay"], "feed_templates": row["feed_templates"],
            "object_encoder": row.get("object_encoder", "set_transformer"),
            "probe": row["probe"], "target": row["target"]}}
