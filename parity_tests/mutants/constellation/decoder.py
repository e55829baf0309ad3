"""Planted bugs of `port/constellation/decoder.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/constellation/decoder.py"
MUTANTS = (
    Mutant("vote-column", FILE, "transform[..., :N_DIMS, N_DIMS]", "transform[..., :N_DIMS, 0]",
           "a vote is a column of the rotation, not the translation"),
    Mutant("presence-of-soft-votes", FILE, "vote_presence if soft else likelihood.vote_presence",
           "vote_presence", "capsule presence from the soft vote presences"),
    Mutant("kl-of-components", FILE, 'vote.shape[1] + 1 if "Q33" in self.repairs else x.shape[1]',
           "vote.shape[1] + 1", "mixing KL over components, not points"),
    Mutant("plain-own-logits", FILE, 'if "Q31" not in self.repairs:', "if False:",
           "the plain decoder keeps its own presence logits"),
    Mutant("plain-scale-floor", FILE, "ops.softplus(scale + 0.5) + 1e-6",
           "ops.softplus(scale + 0.5) + 1e-2", "the plain decoder with the capsules' scale floor"),
    Mutant("plain-split-order", FILE, "self.splits = [1, n_votes, n_votes, n_votes * N_DIMS]",
           "self.splits = [n_votes * N_DIMS, n_votes, n_votes, 1]", "votes first in the plain decoder"),
)
