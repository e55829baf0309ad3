"""Rows of `scae/`."""
