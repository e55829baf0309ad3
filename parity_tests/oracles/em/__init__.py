"""Oracles of `em/`."""

from parity_tests.oracles.em import layers, losses, routing

__all__ = ["layers", "losses", "routing"]
