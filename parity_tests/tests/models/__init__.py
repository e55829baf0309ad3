"""Whole models: parity of both sides, configurations, export, inputs that are refused."""
