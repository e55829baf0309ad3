"""Oracles of `capsnet/`."""

from parity_tests.oracles.capsnet import layers, losses, network, routing

__all__ = ["layers", "losses", "network", "routing"]
