"""Planted bugs of `port/core/`."""
