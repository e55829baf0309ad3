"""Oracles of `capsnet/`."""

from parity_tests.oracles.capsnet import network

__all__ = ["network"]
