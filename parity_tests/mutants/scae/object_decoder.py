"""Planted bugs of `port/scae/object_decoder.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/scae/object_decoder.py"
MUTANTS = (
    Mutant("likelihood-normalised", FILE,
           '(mixing_logits if mixing == "faithful" else mixing_log_prob)', "mixing_log_prob",
           "normalised mixing probabilities in the likelihood"),
    Mutant("dummy-missing", FILE, "posterior = torch.softmax(joint, 1)",
           "posterior = torch.cat([torch.softmax(joint[:, :n_caps], 1), 0.0 * joint[:, n_caps:]], 1)",
           "no dummy component in the posterior", "phanideepgampa"),
    Mutant("dummy-logit", FILE, "LOG_DUMMY = -2.0 * math.log(10.0)",
           "LOG_DUMMY = -1.0 * math.log(10.0)", "dummy component of 0.1"),
    Mutant("winner-of-posterior-dummy", FILE, "torch.argmax(joint[:, :n_caps], 1)",
           "torch.argmax(mixing_logits[:, :n_caps], 1)", "winner by presence alone"),
    Mutant("presence-mean-of-votes", FILE, "torch.amax(votes.vote_presence, 2)",
           "torch.mean(votes.vote_presence, 2)", "capsule presence is the mean vote"),
    Mutant("cpr-before-ccr", FILE, "vote = parent_transform @ cpr", "vote = cpr @ parent_transform",
           "transforms composed in the wrong order"),
    Mutant("compiled-vote-transposed", FILE, "outer[..., :, 1:2] * inner[..., 1:2, :]",
           "outer[..., 1:2, :].mT * inner[..., 1:2, :]", "a row of the outer transform in place of a column"),
    Mutant("compiled-vote-unmoved", FILE, "            + outer[..., :, 2:3] * inner[..., 2:3, :])", "            )",
           "no translation of the outer transform in the compiled product"),
    Mutant("vote-scale-offset", FILE, "ops.softplus(scale + 0.5) + 1e-2", "ops.softplus(scale) + 1e-2",
           "no 0.5 in the vote's scale"),
    Mutant("dynamic-l2-mean", FILE, "torch.sum(torch.square(dynamic)) / 2.0 / batch",
           "torch.mean(torch.square(dynamic))", "mean for the l2 loss", "Dinngger"),
    Mutant("caps-noise-unscaled", FILE, '(raw * noise_scale if noise_type == "uniform" else raw)',
           "raw", "object noise not scaled"),
    Mutant("cpr-static-missing", FILE, "ops.geometric_transform(dynamic + self.cpr_static,",
           "ops.geometric_transform(dynamic + 0.0 * self.cpr_static,", "static relations are zero",
           "bdsaglam, mlberkeley"),
    Mutant("point-presence-missing", FILE, "per_point = per_point * presence",
           "per_point = per_point * 1.0", "absent points count in the likelihood"),
    Mutant("student-df-offset", FILE, "ops.softplus(raw) + 2.0", "ops.softplus(raw) + 1.0",
           "degrees of freedom from 1"),
)
