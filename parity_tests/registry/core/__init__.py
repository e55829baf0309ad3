"""Rows of `core/`."""
