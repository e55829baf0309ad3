"""Planted bugs of `port/constellation/model.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/constellation/model.py"
MUTANTS = (
    Mutant("posterior-of-capsules", FILE, "share = mass_explained_by_votes / n_points",
           "share = by_capsule.sum(-1) / n_points",
           "posterior sparsity over capsules, not votes"),
    Mutant("points-cut", FILE, "explained = self.object_decoder(encoded, points, presence,",
           "explained = self.object_decoder(encoded, points.detach(), presence,",
           "the target's points cut from the graph"),
    Mutant("mask-left-out", FILE, "self.object_encoder(points, presence, ",
           "self.object_encoder(points, None, ",
           "absent points are attended to"),
    Mutant("sparsity-sign", FILE, "loss = -terms[\"log_prob\"] + weights.sparsity_weight",
           "loss = -terms[\"log_prob\"] - weights.sparsity_weight", "sign of the usage loss"),
)
