"""Stages, commands, data sources and visits, run as a user runs them."""
