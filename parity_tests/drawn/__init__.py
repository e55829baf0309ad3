"""Whole models under drawn configurations, both sides on the same weights, images and noise."""
