"""Oracles of `constellation/`."""

from parity_tests.oracles.constellation import data, decoder, likelihood, model

__all__ = ["data", "decoder", "likelihood", "model"]
