"""Planted bugs of `port/constellation/likelihood.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/constellation/likelihood.py"
MUTANTS = (
    Mutant("unordered-unnormalised", FILE, "mixing_log_prob[..., None] + log_prob, 1)",
           "mixing_logits[..., None] + log_prob, 1)",
           "unnormalised mixing logits, as the image model has them"),
    Mutant("unordered-dummy-density", FILE, "torch.full_like(log_prob[:, :1], objects.LOG_DUMMY)",
           "torch.full_like(log_prob[:, :1], -1e8)", "no dummy component"),
    Mutant("unordered-winner-dummy", FILE, "torch.argmax(joint[:, :-1], 1)",
           "torch.argmax(log_prob[:, :-1], 1)", "winner by density alone, without the mixing"),
    Mutant("unordered-capsule-index", FILE, "winner_index // n_votes", "winner_index % n_votes",
           "vote's number in place of its capsule's"),
    Mutant("unordered-absent-points", FILE, "per_point = per_point * presence",
           "per_point = per_point * 1.0", "absent points count in the likelihood"),
    Mutant("unordered-soft-winner", FILE, "torch.zeros_like(winner),",
           "posterior[:, :-1].mT @ votes,", "soft winners, which the original leaves at zero"),
    Mutant("usage-of-single-win", FILE, "(wins > 1.0)", "(wins > 0.0)",
           "a capsule with one point is wanted present"),
    Mutant("usage-without-mask", FILE, "error * (wins > 0.0).to(pres_logit.dtype)", "error * 1.0",
           "capsules without a point are pushed to be absent"),
    Mutant("usage-absent-points", FILE, "won = won * presence[..., None]", "won = won * 1.0",
           "absent points count as wins"),
    Mutant("mixing-kl-sign", FILE, "mixing_log_prob + math.log(n_states)",
           "mixing_log_prob - math.log(n_states)", "sign of log n in the mixing KL"),
)
