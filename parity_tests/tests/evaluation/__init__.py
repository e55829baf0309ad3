"""Metrics, their intervals, and what the stages make of them over seeds."""
