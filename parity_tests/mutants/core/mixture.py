"""Planted bugs of `port/core/mixture.py`."""

from parity_tests.mutants.planting import Mutant

FILE = "port/core/mixture.py"
MUTANTS = (
    Mutant("channels-joint", FILE,
           "component = normal_log_prob(x.unsqueeze(1), mean, scale)",
           "component = normal_log_prob(x.unsqueeze(1), mean, scale).sum(2, keepdim=True)"
           ".expand_as(mean)", "density summed over channels before mixing", "mlberkeley"),
    Mutant("mixture-axis", FILE, "torch.softmax(mixing_logits, 1) * mean",
           "torch.softmax(mixing_logits, 2) * mean", "softmax over the wrong axis"),
    Mutant("half-missing", FILE, "return -0.5 * torch.square", "return -1.0 * torch.square",
           "no one half in the Gaussian"),
    Mutant("mode-of-density", FILE, "if maximum:", "if True:",
           "the mode always weighs the component's density"),
    Mutant("student-half", FILE, "-0.5 * (df + 1.0) * torch.log1p", "-0.5 * df * torch.log1p",
           "another exponent of Student's t"),
)
