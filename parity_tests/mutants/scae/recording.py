"""Planted bugs of `port/scae/recording.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/recording.py"
MUTANTS = (
    Mutant("per-capsule-paired", FILE, 'if "Q25" in repairs:', "if True:",
           "per-capsule reconstructions paired rightly, which the original does not"),
)
