"""Rows of `constellation/`."""
