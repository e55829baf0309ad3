"""Planted bugs of `port/em/`."""
