"""Rows of `capsnet/`."""
