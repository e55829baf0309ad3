"""Timings: a training step on either side, kernels, seeds, and what a GPU would be asked for."""
