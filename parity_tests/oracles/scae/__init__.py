"""Oracles of `scae/`."""

from parity_tests.oracles.scae import model, object_decoder, part_decoder, part_encoder, pcae

__all__ = ["model", "object_decoder", "part_decoder", "part_encoder", "pcae"]
