"""Capsules with dynamic routing: layers, routing, losses and network."""
