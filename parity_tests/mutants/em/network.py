"""Planted bugs of `port/em/network.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/em/network.py"
MUTANTS = (
    Mutant("em-decay-all", FILE, 'if name.endswith("weight")', 'if True',
           "biases and betas decay too"),
)
