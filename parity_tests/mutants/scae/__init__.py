"""Planted bugs of `port/scae/`."""
