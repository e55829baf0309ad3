"""Oracles of `em/`."""

from parity_tests.oracles.em import network

__all__ = ["network"]
