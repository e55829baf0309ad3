"""Planted bugs of `port/scae/pixel_components.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/pixel_components.py"
MUTANTS = (
    Mutant("kernel-one-shift", FILE, "top - float(background_logit) <= SPREAD", "True",
           "one maximum for logits hundreds apart"),
    Mutant("kernel-singular-absent", FILE, "return UNDRAWN", "return ABSENT",
           "a part with a singular pose leaves the mixture"),
)
