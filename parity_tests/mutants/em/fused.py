"""Planted bugs of `port/em/fused.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/em/fused.py"
MUTANTS = (
    Mutant("em-fused-charge", FILE,
           "charged = mass + routing.mass_epsilon if routing.mass_epsilon_in_cost else mass",
           "charged = mass", "the epsilon never in the cost"),
    Mutant("em-fused-children", FILE, "assignment.movedim(-1, 3).flatten(4)",
           "assignment.movedim(5, 3).flatten(4)", "child types and parent types exchanged"),
)
