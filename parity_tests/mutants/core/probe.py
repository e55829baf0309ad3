"""Planted bugs of `port/core/probe.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/probe.py"
MUTANTS = (
    Mutant("double-softmax", FILE, "F.cross_entropy(logits, labels",
           "F.cross_entropy(torch.softmax(logits, 1), labels", "softmax twice in the probe",
           "bdsaglam"),
    Mutant("probe-gradient", FILE, "self.linear(features.detach())", "self.linear(features)",
           "the probe trains the capsules"),
)
