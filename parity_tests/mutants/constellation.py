"""Planted bugs in the constellation model; `parity_tests/mutants.py` has the image model's."""

from __future__ import annotations

from parity_tests.mutants.planting import Mutant

_LIKELIHOOD, _DECODER = "port/constellation/likelihood.py", "port/constellation/decoder.py"
_MODEL, _DATA = "port/constellation/model.py", "port/constellation/data.py"
_OBJECTS, _MIXTURE = "port/scae/object_decoder.py", "port/core/mixture.py"

_ORDER = "    order = np.stack([rng.permutation(n_points) for _ in range(size)])\n"
_NOISE = ("    noise = rng.normal(0.0, gaussian_noise, (size, n_points, 2)) if gaussian_noise > 0 else "
          "None\n")

MUTANTS: tuple[Mutant, ...] = (
    Mutant("unordered-unnormalised", _LIKELIHOOD, "mixing_log_prob[..., None] + log_prob, 1)",
           "mixing_logits[..., None] + log_prob, 1)",
           "unnormalised mixing logits, as the image model has them"),
    Mutant("unordered-dummy-density", _LIKELIHOOD, "torch.full_like(log_prob[:, :1], objects.LOG_DUMMY)",
           "torch.full_like(log_prob[:, :1], -1e8)", "no dummy component"),
    Mutant("unordered-winner-dummy", _LIKELIHOOD, "torch.argmax(joint[:, :-1], 1)",
           "torch.argmax(log_prob[:, :-1], 1)", "winner by density alone, without the mixing"),
    Mutant("unordered-capsule-index", _LIKELIHOOD, "winner_index // n_votes", "winner_index % n_votes",
           "vote's number in place of its capsule's"),
    Mutant("unordered-absent-points", _LIKELIHOOD, "per_point = per_point * presence",
           "per_point = per_point * 1.0", "absent points count in the likelihood"),
    Mutant("unordered-soft-winner", _LIKELIHOOD, "torch.zeros_like(winner),",
           "posterior[:, :-1].mT @ votes,", "soft winners, which the original leaves at zero"),
    Mutant("usage-of-single-win", _LIKELIHOOD, "(wins > 1.0)", "(wins > 0.0)",
           "a capsule with one point is wanted present"),
    Mutant("usage-without-mask", _LIKELIHOOD, "error * (wins > 0.0).to(pres_logit.dtype)", "error * 1.0",
           "capsules without a point are pushed to be absent"),
    Mutant("usage-absent-points", _LIKELIHOOD, "won = won * presence[..., None]", "won = won * 1.0",
           "absent points count as wins"),
    Mutant("mixing-kl-sign", _LIKELIHOOD, "mixing_log_prob + math.log(n_states)",
           "mixing_log_prob - math.log(n_states)", "sign of log n in the mixing KL"),
    Mutant("vote-column", _DECODER, "transform[..., :N_DIMS, N_DIMS]", "transform[..., :N_DIMS, 0]",
           "a vote is a column of the rotation, not the translation"),
    Mutant("presence-of-soft-votes", _DECODER, "vote_presence if soft else likelihood.vote_presence",
           "vote_presence", "capsule presence from the soft vote presences"),
    Mutant("kl-of-components", _DECODER, 'vote.shape[1] + 1 if "Q33" in self.repairs else x.shape[1]',
           "vote.shape[1] + 1", "mixing KL over components, not points"),
    Mutant("plain-own-logits", _DECODER, 'if "Q31" not in self.repairs:', "if False:",
           "the plain decoder keeps its own presence logits"),
    Mutant("plain-scale-floor", _DECODER, "core.ops.softplus(scale + 0.5) + 1e-6",
           "core.ops.softplus(scale + 0.5) + 1e-2", "the plain decoder with the capsules' scale floor"),
    Mutant("plain-split-order", _DECODER, "self.splits = [1, n_votes, n_votes, n_votes * N_DIMS]",
           "self.splits = [n_votes * N_DIMS, n_votes, n_votes, 1]", "votes first in the plain decoder"),
    Mutant("posterior-of-capsules", _MODEL, "share = mass / n_points",
           "share = by_capsule.sum(-1) / n_points",
           "posterior sparsity over capsules, not votes"),
    Mutant("points-cut", _MODEL, "explained = self.object_decoder(encoded, points, presence,",
           "explained = self.object_decoder(encoded, points.detach(), presence,",
           "the target's points cut from the graph"),
    Mutant("mask-left-out", _MODEL, "self.object_encoder(points, presence, ",
           "self.object_encoder(points, None, ",
           "absent points are attended to"),
    Mutant("sparsity-sign", _MODEL, "loss = -terms[\"log_prob\"] + weights.sparsity_weight",
           "loss = -terms[\"log_prob\"] - weights.sparsity_weight", "sign of the usage loss"),
    Mutant("translation-scaled", _DATA, "draws.translation[:, slot] / scale[..., None]",
           "draws.translation[:, slot] * scale[..., None]", "translation times the scale"),
    Mutant("present-extremes", _DATA, "low, high = corners.min(), corners.max()",
           "low, high = corners.min((0, 1)), corners.max((0, 1))", "x and y scaled apart"),
    Mutant("noise-before-order", _DATA, _ORDER + _NOISE, _NOISE + _ORDER,
           "noise drawn before the orders"),
    Mutant("student-df-offset", _OBJECTS, "core.ops.softplus(raw) + 2.0", "core.ops.softplus(raw) + 1.0",
           "degrees of freedom from 1"),
    Mutant("student-half", _MIXTURE, "-0.5 * (df + 1.0) * torch.log1p", "-0.5 * df * torch.log1p",
           "another exponent of Student's t"),
)
