"""Planted bugs of `port/constellation/`."""
