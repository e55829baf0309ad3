"""Oracles of `constellation/`."""

from parity_tests.oracles.constellation import data, model

__all__ = ["data", "model"]
