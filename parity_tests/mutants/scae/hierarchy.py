"""Planted bugs of `port/scae/hierarchy.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/hierarchy.py"
MUTANTS = (
    Mutant("upper-absence-fed", FILE, "torch.cat([pose, 1.0 - presence[..., None], params], -1)",
           "torch.cat([pose, presence[..., None], params], -1)", "presence fed in place of absence"),
    Mutant("upper-soft-parent", FILE, "likelihood.winner.reshape(", "likelihood.soft_winner.reshape(",
           "parents are mixtures of votes, not the winning one"),
    Mutant("upper-parent-presence", FILE, "likelihood.winner_pres[..., None], log)", "None, log)",
           "objects keep their own presence under a parent"),
    Mutant("upper-target-not-cut", FILE, "target = tuple(v.detach() for v in target)",
           "target = tuple(target)", "objects move towards what the third level expects"),
)
