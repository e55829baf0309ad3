"""Planted bugs of `port/capsnet/`."""
