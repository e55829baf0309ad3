"""Planted bugs of `port/em/losses.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/em/losses.py"
MUTANTS = (
    Mutant("em-spread-linear", FILE, "(target - activation)).square()", "(target - activation))",
           "spread loss not squared"),
    Mutant("em-spread-target", FILE, " * (1.0 - right)", "",
           "the right class counted with m²"),
    Mutant("em-margin-offset", FILE, "step / 50_000.0 - 4.0", "step / 50_000.0",
           "margin half grown at the start"),
)
