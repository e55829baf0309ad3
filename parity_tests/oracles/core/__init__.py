"""Oracles of `core/`."""

from parity_tests.oracles.core import (
    adam,
    attention,
    initializers,
    layers,
    losses,
    mixture,
    ops,
    preprocess,
    probe,
    rmsprop,
    warp,
)

__all__ = ["adam", "attention", "initializers", "layers", "losses", "mixture", "ops", "preprocess", "probe",
           "rmsprop", "warp"]
