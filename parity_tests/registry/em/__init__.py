"""Rows of `em/`."""
